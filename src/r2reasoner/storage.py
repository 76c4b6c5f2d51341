"""The database behind the ledger: its transactions, its queries, and the leases of processes.

SQLAlchemy Core over SQLite (WAL, BEGIN IMMEDIATE) or, by URL, a database of another kind; all
that is special to SQLite stands in `_prepare_sqlite`. Statements are compiled once and rows go
to the driver as tuples, because this code runs twice for every call to a model.

Left out: when to write and who waits for it (`ledger.py`), and migrations: a database whose
columns are not ours is refused.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy import exc as sql_errors
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.dml import UpdateBase

from r2reasoner.errors import ConfigError, DataError, LedgerError
from r2reasoner.ledger import Entry, EntryOpen, Row, Totals, TraceSummary, new_id
from r2reasoner.tables import (
    CLOSED_COLUMNS,
    ENTRIES,
    LEASES,
    METADATA,
    TRACES,
    close_row,
    open_row,
    to_entry,
    trace_row,
)
from r2reasoner.types import CallOutcome

PAGE: Final = 1000
"""Rows read at a time by the iterators."""

HINTS: Final = {
    "full": "free some disk space",
    "locked": "another process keeps it locked, try again when that is done",
    "readonly": "make it writable or choose another ledger",
    "unable to open": "check that the folder exists and that you may write there",
    "not a database": "this file is no ledger, choose another",
    "malformed": "this file is damaged: move it away, and recover it with the sqlite3 tool",
}


class _Statement:
    """A write that is compiled once. Its rows are tuples in the order of `names`."""

    def __init__(self, clause: UpdateBase, names: Sequence[str], engine: Engine) -> None:
        compiled = clause.compile(dialect=engine.dialect, column_keys=list(names))
        self._clause = clause
        self._names = tuple(names)
        # A driver with named parameters takes the longer way through SQLAlchemy.
        self._sql = str(compiled) if compiled.positiontup == list(names) else None

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        if not rows:
            return
        if self._sql is not None:
            connection.exec_driver_sql(self._sql, list(rows))
        else:
            names = self._names
            connection.execute(self._clause, [dict(zip(names, r, strict=True)) for r in rows])


class Store:
    """The database of one ledger. `write` and `release` are for its writer thread only.

    The reading methods have their own connections and see what is committed. All raise
    LedgerError when the database cannot be used; `write` and the conversions also DataError,
    when a row is at fault.
    """

    def __init__(self, where: str | Path, *, lease_s: float, busy_timeout_s: float) -> None:
        url = database_url(where)
        in_memory = _in_memory(url)
        self.where = _readable(url)
        self.heartbeat_s = lease_s / 6
        self._lease_s = lease_s
        self._lease = new_id()
        self._renew_at = 0.0
        self._open_ids: set[str] = set()
        # A database in memory has one connection, which reader and writer take in turn.
        self._turn: AbstractContextManager[Any] = threading.RLock() if in_memory else nullcontext()
        self._writing_turn = writing_turn(url)
        self._engine = open_engine(url, busy_timeout_s=busy_timeout_s)
        self._writing_engine = self._engine.execution_options(r2_writes=True)
        self._open_entries = _Statement(insert(ENTRIES), ENTRIES.columns.keys(), self._engine)
        self._close_entries = _Statement(
            update(ENTRIES)
            .where(ENTRIES.c.id == bindparam("entry_id"))
            .values({name: bindparam(name) for name in CLOSED_COLUMNS}),
            (*CLOSED_COLUMNS, "entry_id"),
            self._engine,
        )
        self._abandon_entries = _Statement(
            _to_unknown("the ledger was closed before this call was settled").where(
                ENTRIES.c.id == bindparam("entry_id")
            ),
            ("entry_id",),
            self._engine,
        )
        self._drop_traces = _Statement(
            delete(TRACES).where(TRACES.c.id == bindparam("trace_id")), ("trace_id",), self._engine
        )
        self._save_traces = _Statement(insert(TRACES), TRACES.columns.keys(), self._engine)
        try:
            self._prepare_tables()
        except LedgerError:
            self.close()
            raise

    close_row = staticmethod(close_row)
    trace_row = staticmethod(trace_row)

    def open_row(self, entry: EntryOpen) -> Row:
        """Return the row of an open entry under this store's lease."""
        return open_row(entry, self._lease)

    # --- writing --------------------------------------------------------------------------------

    def write(self, opened: Sequence[Row], closed: Sequence[Row], traces: Sequence[Row]) -> None:
        """Write rows in one transaction, with a sign of life and recovery when they are due."""
        now = time.time()
        renew = now >= self._renew_at
        if not (renew or opened or closed or traces):
            return
        with self._transaction() as connection:
            if renew:
                self._renew(connection, now)
                self._reap(connection, now)
            self._open_entries.run(connection, opened)
            self._close_entries.run(connection, closed)
            self._drop_traces.run(connection, [row[:1] for row in traces])
            self._save_traces.run(connection, traces)
        if renew:
            self._renew_at = now + self.heartbeat_s
        self._open_ids.update(row[0] for row in opened)
        self._open_ids.difference_update(row[-1] for row in closed)

    def release(self) -> None:
        """Give up the lease; calls still open become `unknown`."""
        if not self._renew_at:
            return
        with self._transaction() as connection:
            self._abandon_entries.run(connection, [(entry_id,) for entry_id in self._open_ids])
            connection.execute(delete(LEASES).where(LEASES.c.id == self._lease))

    def recover(self) -> int:
        """Make open entries whose lease ran out `unknown`; return how many."""
        with self._transaction() as connection:
            return self._reap(connection, time.time())

    def close(self) -> None:
        """Close all connections."""
        with self._turn:
            self._engine.dispose()

    def _renew(self, connection: Connection, now: float) -> None:
        times = {"renewed_at": now, "expires_at": now + self._lease_s}
        renewed = connection.execute(update(LEASES).where(LEASES.c.id == self._lease).values(times))
        if not renewed.rowcount:
            who = {"id": self._lease, "host": socket.gethostname(), "pid": os.getpid()}
            connection.execute(insert(LEASES).values(who | times))

    def _reap(self, connection: Connection, now: float) -> int:
        expired = (LEASES.c.expires_at < now) & (LEASES.c.id != self._lease)
        reaped = 0
        for lease in connection.execute(select(LEASES).where(expired)).all():
            ended = _to_unknown(f"process {lease.pid} on {lease.host} ended during this call")
            reaped += connection.execute(ended.where(ENTRIES.c.lease == lease.id)).rowcount
            connection.execute(delete(LEASES).where(LEASES.c.id == lease.id))
        return reaped

    # --- reading --------------------------------------------------------------------------------

    def entries(self, query_id: str | None, limit: int | None) -> list[Entry]:
        """Return entries, oldest first; with a limit, the newest so many."""
        chosen = select(ENTRIES).order_by(ENTRIES.c.id.desc()).limit(limit)
        if query_id is not None:
            chosen = chosen.where(ENTRIES.c.query_id == query_id)
        with self.reading() as connection:
            rows = connection.execute(chosen).all()
        return [to_entry(row) for row in reversed(rows)]

    def iter_entries(self, query_id: str | None) -> Iterator[Entry]:
        """Yield entries, oldest first, page by page: no transaction stays open between."""
        chosen = select(ENTRIES).order_by(ENTRIES.c.id).limit(PAGE)
        if query_id is not None:
            chosen = chosen.where(ENTRIES.c.query_id == query_id)
        last = ""
        while True:
            with self.reading() as connection:
                rows = connection.execute(chosen.where(ENTRIES.c.id > last)).all()
            if not rows:
                return
            yield from map(to_entry, rows)
            last = rows[-1].id

    def totals(self, query_id: str | None) -> Totals:
        """Return sums, made in Python because a database's integers may overflow."""
        columns = ENTRIES.c
        chosen = select(columns.outcome, columns.input_tokens, columns.output_tokens, columns.cost)
        if query_id is not None:
            chosen = chosen.where(columns.query_id == query_id)
        outcomes = dict.fromkeys(CallOutcome, 0)
        unpriced = tokens_in = tokens_out = cost = 0
        with self.reading() as connection:
            for outcome, inputs, outputs, its_cost in connection.execute(chosen):
                outcomes[CallOutcome(outcome)] += 1
                tokens_in += inputs
                tokens_out += outputs
                unpriced += its_cost is None
                cost += its_cost or 0
        return Totals(
            calls=sum(outcomes.values()),
            open=outcomes[CallOutcome.OPEN],
            failed=outcomes[CallOutcome.FAILED],
            unknown=outcomes[CallOutcome.UNKNOWN],
            unpriced=unpriced,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cost=cost,
        )

    def traces(self, limit: int | None) -> list[TraceSummary]:
        """Return what the list of traces shows, newest first."""
        columns = [column for column in TRACES.columns if column.name != "body"]
        newest = TRACES.c.started_at.desc(), TRACES.c.id.desc()
        with self.reading() as connection:
            rows = connection.execute(select(*columns).order_by(*newest).limit(limit)).all()
        return [TraceSummary(*row) for row in rows]

    def trace_body(self, prefix: str) -> tuple[str, str]:
        """Return id and JSON of the one trace whose id is, or begins with, `prefix`."""
        chosen = select(TRACES.c.id, TRACES.c.body)
        begins = chosen.where(TRACES.c.id.startswith(prefix, autoescape=True)).limit(5)
        with self.reading() as connection:
            rows = connection.execute(chosen.where(TRACES.c.id == prefix)).all()
            rows = rows or connection.execute(begins).all()
        if not rows:
            raise DataError(
                f"no trace {prefix!r} in {self.where}; list them: r2reasoner trace list"
            )
        if len(rows) > 1:
            some = ", ".join(row.id for row in rows)
            raise DataError(f"several traces begin with {prefix!r}: {some}; give more of the id")
        return rows[0].id, rows[0].body

    def iter_trace_bodies(self) -> Iterator[str]:
        """Yield the JSON of each trace, in the order of their ids, page by page."""
        chosen = select(TRACES.c.id, TRACES.c.body).order_by(TRACES.c.id).limit(PAGE)
        last = ""
        while True:
            with self.reading() as connection:
                rows = connection.execute(chosen.where(TRACES.c.id > last)).all()
            if not rows:
                return
            yield from (row.body for row in rows)
            last = rows[-1].id

    # --- connections ----------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees what is committed."""
        with self._turn, self._trouble("read"), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with (
            self._turn,
            self._writing_turn,
            self._trouble("write to"),
            self._writing_engine.begin() as connection,
        ):
            yield connection

    @contextmanager
    def _trouble(self, doing: str) -> Iterator[None]:
        """Turn errors of the database into ours; parameters stay out of the text."""
        try:
            yield
        except (LedgerError, DataError):
            raise
        except (
            sql_errors.IntegrityError,
            sql_errors.DataError,
            sql_errors.ProgrammingError,
            sql_errors.InterfaceError,
            OverflowError,
            UnicodeError,
        ) as error:
            raise DataError(f"the ledger {self.where} refuses a row: {_reason(error)}") from error
        except Exception as error:
            reason = _reason(error)
            hint = next((f"; {text}" for sign, text in HINTS.items() if sign in reason), "")
            raise LedgerError(f"cannot {doing} the ledger {self.where}: {reason}{hint}") from error

    def _prepare_tables(self) -> None:
        if not self._has_tables():
            with self._transaction() as connection:
                METADATA.create_all(connection)
            self._has_tables()

    def _has_tables(self) -> bool:
        """Return whether all tables are there. Raises LedgerError for tables of something else."""
        with self.reading() as connection:
            found = inspect(connection)
            names = set(found.get_table_names())
            missing = METADATA.tables.keys() - names
            columns = {
                name: {column["name"] for column in found.get_columns(name)}
                for name in METADATA.tables.keys() - missing
            }
        foreign = names and missing == METADATA.tables.keys() and self._engine.name == "sqlite"
        if foreign or any(columns[n] != set(METADATA.tables[n].c.keys()) for n in columns):
            raise LedgerError(
                f"{self.where} is a database of another program or version: expected the tables "
                f"{', '.join(METADATA.tables)}, found {', '.join(sorted(names))} or other columns; "
                "choose another file"
            )
        return not missing


def database_url(where: str | Path) -> URL:
    """Return the URL of a database by its file or URL; a file is made if it is not there.

    Raises ConfigError for what is no URL, and LedgerError.
    """
    if isinstance(where, str) and "://" in where:
        try:
            return make_url(where)
        except sql_errors.ArgumentError as error:
            raise ConfigError(f"not a database URL: {error}") from None
    path = Path(where).expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)  # queries are nobody else's business
    except OSError as error:
        raise LedgerError(f"cannot make the ledger {path}: {error}") from None
    return URL.create("sqlite", database=str(path))


def _readable(url: URL) -> str:
    if url.get_backend_name() != "sqlite":
        return url.render_as_string(hide_password=True)
    return url.database or "in memory"


@cache
def _turn_at(database: str) -> threading.Lock:
    return threading.Lock()


def writing_turn(url: URL) -> threading.Lock:
    """Return the lock by which a process's writers of one database take turns.

    They would wait for each other anyway, but SQLite waits by sleeping ever longer.
    """
    return threading.Lock() if _in_memory(url) else _turn_at(str(url))


def _in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def open_engine(url: URL, *, busy_timeout_s: float) -> Engine:
    """Return an engine whose transactions wait for each other instead of failing.

    Those of a connection with the option `r2_writes` take SQLite's lock at once. Raises
    ConfigError where there is no synchronous driver.
    """
    shared: dict[str, Any] = {}
    if _in_memory(url):
        shared = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    try:
        engine = create_engine(url, **shared)
    except (sql_errors.NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"no driver for the database {url.drivername}: {error}") from None
    if engine.dialect.is_async:
        raise ConfigError(
            f"the ledger needs a synchronous driver, not {url.drivername}; "
            "for PostgreSQL: postgresql+psycopg://"
        )
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, busy_timeout_s)
    return engine


def _prepare_sqlite(engine: Engine, busy_timeout_s: float) -> None:
    """Let writers take their lock at once: a transaction that upgrades its lock may only fail."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {round(busy_timeout_s * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("r2_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _to_unknown(why: str) -> Any:
    return (
        update(ENTRIES)
        .where(ENTRIES.c.outcome == CallOutcome.OPEN.value)
        .values(outcome=CallOutcome.UNKNOWN.value, error=f"{why}: bound charged")
    )


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).split("\n", 1)[0][:200]
