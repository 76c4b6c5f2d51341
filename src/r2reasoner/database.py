"""Where a ledger's database is and how it is spoken to: SQLite by default, PostgreSQL by URL.

All that is special to one of the two stands here: how a connection is set up, which errors are a
row's fault, what may be tried again, and the few statements that have no common form.

Left out: which tables there are (`tables.py`), and making or changing them (`schema.py`).
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    Float,
    Select,
    Table,
    cast,
    create_engine,
    event,
    extract,
    func,
    literal,
    make_url,
)
from sqlalchemy import exc as sql_errors
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.dml import UpdateBase

from r2reasoner.errors import ConfigError, DataError, LedgerError, R2Error

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")

PSYCOPG: Final = "postgresql+psycopg"
DRIVERS: Final = {"postgres": PSYCOPG, "postgresql": PSYCOPG}
INSTALL: Final = "PostgreSQL needs one more package: pip install 'r2reasoner[postgres]'"
TRIES: Final = 5
"""How often a transaction is begun that the database gave up in favour of another one."""
GIVEN_UP: Final = frozenset({"40001", "40P01"})
"""PostgreSQL's signs of a serialization failure and of a deadlock."""
PATIENCE: Final = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A server that is gone without a word is given up after a minute, not after hours."""
WAL_PAGES: Final = 8000
"""SQLite's log grows to 32 MiB before its pages are moved, which stops a writer for a while."""
MAKING: Final = 0x7232_6C65_6467_6572
"""The advisory lock under which tables are made."""

HINTS: Final = {
    "full": "free some disk space",
    "locked": "another process keeps it locked, try again when that is done",
    "lock timeout": "another process keeps it locked, try again when that is done",
    "readonly": "make it writable or choose another ledger",
    "read-only": "make it writable or choose another ledger",
    "unable to open": "check that the folder exists and that you may write there",
    "not a database": "this file is no ledger, choose another",
    "malformed": "this file is damaged: move it away, and recover it with the sqlite3 tool",
    "refused": "check that the server runs and listens there",
    "permission denied": "the user needs USAGE and CREATE on the schema, or to own its tables",
}


class Database:
    """One database. May be used from several threads; what is in memory is used in turn.

    `where` is its file or URL, never with a password.
    """

    def __init__(self, where: str | Path, *, busy_timeout_s: float) -> None:
        url = database_url(where)
        self.where = _shown(url)
        self._is_sqlite = url.get_backend_name() == "sqlite"
        self._pid = os.getpid()
        self._writers = _engine(url, busy_timeout_s, begin="BEGIN IMMEDIATE")
        self._readers = self._writers
        self._writing: AbstractContextManager[Any] = nullcontext()
        self._reading: AbstractContextManager[Any] = nullcontext()
        if _in_memory(url):
            self._writing = self._reading = threading.RLock()
        else:
            self._readers = _engine(url, busy_timeout_s, begin="BEGIN", pool_pre_ping=True)
            if self._is_sqlite:
                self._writing = _turn_at(str(url))

    @property
    def engine(self) -> Engine:
        """The engine of writers."""
        return self._writers

    def now(self) -> ColumnElement[float]:
        """Return the time in seconds since 1970, by the one clock of all who use it."""
        if self._is_sqlite:
            return literal(time.time())
        return cast(extract("epoch", func.clock_timestamp()), Float)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees what is committed. Its errors become LedgerError."""
        with self._reading, self._trouble("read"), self._readers.connect() as connection:
            yield connection

    def write(self, do: Callable[[Connection], T]) -> T:
        """Run a function in one transaction that is committed, and return what it returns.

        It is run again where the database gave it up (a deadlock, a connection that was lost):
        never after a commit was asked for. Raises DataError for a row that is refused, LedgerError
        where the database cannot be used; texts of either hold no value of a row.
        """
        with self._trouble("write to"):
            for tries_left in reversed(range(TRIES)):
                with self._writing, self._writers.connect() as connection:
                    try:
                        result = do(connection)
                    except sql_errors.DBAPIError as error:
                        if tries_left and _is_undone(error):
                            continue
                        raise
                    connection.commit()
                    return result
        raise AssertionError("unreachable")

    def lock(self, connection: Connection) -> None:
        """Keep others from making tables until this transaction ends."""
        if not self._is_sqlite:
            connection.execute(func.pg_advisory_xact_lock(MAKING).select())

    def close(self) -> None:
        """Close all connections; a forked child only lets go of its parent's."""
        is_mine = os.getpid() == self._pid
        with self._reading:
            self._readers.dispose(close=is_mine)
            self._writers.dispose(close=is_mine)

    @contextmanager
    def _trouble(self, doing: str) -> Iterator[None]:
        """Turn errors of the database into ours; parameters stay out of the text."""
        try:
            yield
        except R2Error:
            raise
        except Exception as error:
            reason = _reason(error)
            if self._is_of_a_row(error):
                raise DataError(f"the ledger {self.where} refuses a row: {reason}") from error
            hint = next((f"; {text}" for sign, text in HINTS.items() if sign in reason), "")
            raise LedgerError(f"cannot {doing} the ledger {self.where}: {reason}{hint}") from error

    def _is_of_a_row(self, error: Exception) -> bool:
        """Tell whether other rows may be written all the same."""
        if isinstance(error, sql_errors.ProgrammingError | sql_errors.InterfaceError):
            # What a driver cannot send; a server's own such errors (a missing right) have a code.
            return self._is_sqlite or _sqlstate(error) is None
        kinds = sql_errors.IntegrityError, sql_errors.DataError, OverflowError, UnicodeError
        return isinstance(error, kinds)


class Statement:
    """A statement that is compiled once. Its rows are tuples in the order of `names`."""

    def __init__(
        self, clause: UpdateBase | Select[Any], names: Sequence[str], engine: Engine
    ) -> None:
        compiled = clause.compile(dialect=engine.dialect, column_keys=list(names))
        if compiled.positiontup != list(names):
            raise AssertionError(f"{compiled.positiontup} are not in the order of {names}")
        self._sql = str(compiled)

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write so many rows."""
        if rows:
            connection.exec_driver_sql(self._sql, list(rows))

    def one(self, connection: Connection, row: tuple[Any, ...]) -> CursorResult[Any]:
        """Run it once."""
        return connection.exec_driver_sql(self._sql, row)


def insertion(dialect: str, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """Return an insertion into a table that may say what happens ON CONFLICT."""
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def database_url(where: str | Path) -> URL:
    """Return the URL of a database by its file or URL; a file is made if it is not there.

    Raises ConfigError for what is no URL of a database that will do, and LedgerError.
    """
    if isinstance(where, str) and "://" in where:
        return _parse(where)
    path = Path(where).expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)  # queries are nobody else's business
    except OSError as error:
        raise LedgerError(f"cannot make the ledger {path}: {error}") from None
    return URL.create("sqlite", database=str(path))


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
    except (sql_errors.ArgumentError, ValueError):
        url = None
    if url is None or "@" in (url.host or ""):
        raise ConfigError(
            "not a database URL: expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME,"
            " where signs as @ / : in a password are written as %40 %2F %3A"
        )
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    kind = url.get_backend_name()
    if kind == "postgresql" and url.drivername != PSYCOPG:
        raise ConfigError(
            f"{url.drivername}: PostgreSQL is spoken to by psycopg; say postgresql://"
        )
    if kind not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"no driver for the database {url.drivername}: a ledger is in SQLite or PostgreSQL"
        )
    return url


def _shown(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return url.database or "in memory"
    secret = [name for name in url.query if "password" in name]
    shown = url.update_query_dict(dict.fromkeys(secret, "***")).set(drivername="postgresql")
    return shown.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


@cache
def _turn_at(database: str) -> threading.Lock:
    """Return the lock by which a process's writers of one file take turns.

    They would wait for each other anyway, but SQLite waits by sleeping ever longer.
    """
    return threading.Lock()


if hasattr(os, "register_at_fork"):  # a thread that held one is not in the child to let it go
    os.register_at_fork(after_in_child=_turn_at.cache_clear)


def _in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def _engine(url: URL, busy_timeout_s: float, *, begin: str, **more: Any) -> Engine:
    is_sqlite = url.get_backend_name() == "sqlite"
    if _in_memory(url):
        more |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    elif not is_sqlite:
        patience = PATIENCE | {
            "connect_timeout": max(2, ceil(busy_timeout_s)),
            "application_name": "r2reasoner",
        }
        more |= {
            "connect_args": {k: v for k, v in patience.items() if k not in url.query},
            "isolation_level": "READ COMMITTED",
            "paramstyle": "format",
        }
    try:
        engine = create_engine(url, **more)
    except (sql_errors.NoSuchModuleError, ImportError) as error:
        if not is_sqlite:
            raise ConfigError(INSTALL) from None
        raise ConfigError(f"no driver for the database {url.drivername}: {error}") from None
    if engine.dialect.is_async:
        raise ConfigError(f"the ledger needs a synchronous driver, not {url.drivername}")
    if is_sqlite:
        _prepare_sqlite(engine, busy_timeout_s, begin)
    else:
        _prepare_postgresql(engine, busy_timeout_s)
    return engine


def _prepare_sqlite(engine: Engine, busy_timeout_s: float, begin: str) -> None:
    """Let writers take their lock at once: a transaction that upgrades its lock may only fail."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {round(busy_timeout_s * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        cursor.execute("PRAGMA secure_delete = ON")  # what is removed does not stay in the file
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _prepare_postgresql(engine: Engine, busy_timeout_s: float) -> None:
    """Let nobody wait for a lock for ever."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.execute(f"SET lock_timeout = {round(busy_timeout_s * 1000)}")
        connection.commit()


def _is_undone(error: sql_errors.DBAPIError) -> bool:
    """Tell whether nothing of a transaction was done that had not asked for its commit."""
    return error.connection_invalidated or _sqlstate(error) in GIVEN_UP


def _sqlstate(error: Exception) -> str | None:
    code: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return code


def _reason(error: Exception) -> str:
    """Return an error's first line: in those that follow there may be values of a row."""
    return str(getattr(error, "orig", None) or error).split("\n", 1)[0][:200]
