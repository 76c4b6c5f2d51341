"""The tables of a database: made where it is empty, refused or changed where they are others'.

A new database is made as `tables.py` has it and gets the newest revision's number, so that opening
one never imports alembic. One of an older release is changed by `migrate`, on request only.
"""

from functools import cache, partial
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)

from r2reasoner.database import Database
from r2reasoner.errors import LedgerError
from r2reasoner.tables import METADATA

HEAD: Final = "0002"
"""The newest revision in `migrations/versions`; their numbers sort by age."""
FIRST: Final = "0001"
"""What a database without a number is, if its tables are those."""
EMPTY: Final = ""
MIGRATING_S: Final = 60.0
"""How long a migration waits for what others are doing with the tables."""

VERSION: Final = Table(  # as alembic makes it
    "r2reasoner_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="r2reasoner_version_pkc"),
)


class Migrated(NamedTuple):
    """From which revision to which a database was changed; `before` is empty for a new one."""

    before: str
    after: str


def prepare(database: Database) -> None:
    """Make the tables of an empty database.

    Raises LedgerError for a database of another program, of an older release, which `migrate`
    changes, or of a newer one.
    """
    with database.reading() as connection:
        found = _revision(connection, database.where)
    if found == EMPTY:
        found = database.write(partial(_make, database))
    if found < HEAD:
        raise LedgerError(
            f"{database.where} was made by an older release (revision {found}, now {HEAD}); keep a"
            " copy, then bring it up to date: r2reasoner ledger migrate, with the same --db"
        )
    _refuse_newer(found, database.where)


def migrate(database: Database) -> Migrated:
    """Bring a database up to date in one transaction; writers wait meanwhile.

    Raises LedgerError, and then nothing has changed.
    """
    return database.write(partial(_migrate, database))


def migrate_at(where: str | Path) -> Migrated:
    """As `migrate`, of the database that is there."""
    database = Database(where, busy_timeout_s=MIGRATING_S)
    try:
        return migrate(database)
    finally:
        database.close()


def _make(database: Database, connection: Connection) -> str:
    database.lock(connection)
    found = _revision(connection, database.where)  # another process may have been faster
    if found == EMPTY:
        METADATA.create_all(connection)
        VERSION.create(connection)
        connection.execute(insert(VERSION).values(version_num=HEAD))
        return HEAD
    return found


def _migrate(database: Database, connection: Connection) -> Migrated:
    database.lock(connection)
    found = _revision(connection, database.where)
    _refuse_newer(found, database.where)
    if found != HEAD:
        _upgrade(connection, HEAD)
    return Migrated(found, HEAD)


def _upgrade(connection: Connection, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    scripts = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _revision(connection: Connection, where: str) -> str:
    """Return a database's revision, or EMPTY. Raises LedgerError for another program's."""
    names = set(inspect(connection).get_table_names())
    if VERSION.name in names:
        return str(connection.execute(select(VERSION.c.version_num)).scalar_one())
    ours = names & METADATA.tables.keys()
    if not ours and not (names and connection.dialect.name == "sqlite"):
        return EMPTY  # a server's database may be shared, a file is not
    if ours and all(_columns(connection, name) == _first().get(name) for name in ours):
        return FIRST
    raise LedgerError(
        f"{where} is a database of another program or version: expected the tables "
        f"{', '.join(METADATA.tables)}, found {', '.join(sorted(names))} or other columns; "
        "choose another database"
    )


def _refuse_newer(found: str, where: str) -> None:
    if found > HEAD:
        raise LedgerError(
            f"{where} was made by a newer release (revision {found}, here {HEAD}); install that"
        )


@cache
def _first() -> dict[str, set[str]]:
    """Return the columns of the first revision's tables, as they are made."""
    scratch = Database("sqlite://", busy_timeout_s=1)
    try:
        scratch.write(lambda connection: _upgrade(connection, FIRST))
        with scratch.reading() as connection:
            names = inspect(connection).get_table_names()
            return {name: _columns(connection, name) for name in names}
    finally:
        scratch.close()


def _columns(connection: Connection, table: str) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns(table)}
