"""Tables as `tables.py` has them and as the revisions make them; old databases up to date."""

import asyncio
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, select, text

import r2reasoner
from ledger_samples import closing, entry, trace
from r2reasoner import schema
from r2reasoner.database import Database
from r2reasoner.errors import LedgerError
from r2reasoner.gateway.keys import Keys
from r2reasoner.ledger import Ledger
from r2reasoner.schema import FIRST, HEAD, VERSION, Migrated, migrate, prepare
from r2reasoner.tables import ENTRIES, KEYS, METADATA
from r2reasoner.types import CallOutcome

VERSIONS = Path(r2reasoner.__file__).parent / "migrations" / "versions"


@pytest.fixture
def database(db: str) -> Iterator[Database]:
    with opened(db) as found:
        yield found


@contextmanager
def opened(where: str) -> Iterator[Database]:
    found = Database(where, busy_timeout_s=5)
    try:
        yield found
    finally:
        found.close()


def at(database: Database, revision: str, *, numbered: bool = True) -> None:
    """Make an empty database as an older release made it; before there were numbers, without."""

    def make(connection: Connection) -> None:
        schema._upgrade(connection, revision)
        if not numbered:
            VERSION.drop(connection)

    database.write(make)


def differences(connection: Connection) -> list[Any]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    options = {
        "version_table": VERSION.name,
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, parents: name != VERSION.name,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))


def shape(connection: Connection) -> dict[str, Any]:
    """Return all that a database says of its tables."""
    found = inspect(connection)

    def options(of_index: dict[str, Any]) -> list[tuple[str, str]]:
        return sorted((name, str(value)) for name, value in of_index.items())

    def of(table: str) -> Any:
        columns = [
            (c["name"], str(c["type"]), c["nullable"], c.get("primary_key"), c.get("default"))
            for c in found.get_columns(table)
        ]
        keys = found.get_pk_constraint(table)["constrained_columns"]
        unique = sorted(tuple(u["column_names"]) for u in found.get_unique_constraints(table))
        indexes = sorted(
            (str(i["name"]), i["column_names"], bool(i["unique"]), options(i["dialect_options"]))
            for i in found.get_indexes(table)
        )
        return columns, keys, unique, indexes

    return {table: of(table) for table in found.get_table_names()}


class TestNew:
    def test_revisions_make_what_the_tables_are(self, database: Database) -> None:
        assert migrate(database) == Migrated("", HEAD)
        with database.reading() as connection:
            assert differences(connection) == []
            migrated = shape(connection)
            for table in reversed(METADATA.sorted_tables):
                table.drop(connection)
            VERSION.drop(connection)
            schema._make(database, connection)
            assert shape(connection) == migrated

    def test_a_difference_would_be_seen(self, database: Database) -> None:
        at(database, FIRST)
        with database.reading() as connection:
            assert {kind for kind, *_ in differences(connection)} == {"add_table", "add_index"}

    def test_the_newest_revision_is_the_one_that_is_written(self) -> None:
        from alembic.script import ScriptDirectory

        scripts = ScriptDirectory(str(VERSIONS.parent))
        assert scripts.get_heads() == [HEAD]
        numbers = [script.revision for script in scripts.walk_revisions()]
        assert numbers == sorted(numbers, reverse=True)
        assert numbers[-1] == FIRST

    def test_it_is_made_without_alembic(self, db: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "alembic", None)
        with Ledger.open(db):
            pass
        with opened(db) as database, database.reading() as connection:
            assert connection.execute(select(VERSION.c.version_num)).scalars().all() == [HEAD]
            assert set(inspect(connection).get_table_names()) == {*METADATA.tables, VERSION.name}

    def test_four_processes_at_once(self, db: str) -> None:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(4, context) as pool:
            assert list(pool.map(open_and_call, [db] * 4)) == [True] * 4
        with Ledger.open(db) as ledger:
            assert len(ledger.entries()) == 4


def open_and_call(where: str) -> bool:
    """Open keys and ledger of a database that may not be there yet, and record a call."""
    keys = Keys.open(where)
    keys.close_sync()
    with Ledger.open(where) as ledger:
        asyncio.run(ledger.begin(entry()))
    return True


def with_data(database: Database, numbered: bool) -> None:
    """Make a database of the first revision with something in it."""
    at(database, FIRST, numbered=numbered)
    from r2reasoner.tables import TRACES, close_row, open_row, trace_row

    kept, left = entry(), entry()

    def fill(connection: Connection) -> None:
        for one in (kept, left):
            row = dict(zip(ENTRIES.columns.keys(), open_row(one, "gone"), strict=True))
            connection.execute(ENTRIES.insert().values(row))
        outcome, *_ = close_row(closing(kept))
        connection.execute(
            ENTRIES.update().where(ENTRIES.c.id == kept.id).values(outcome=outcome, cost=7)
        )
        row = dict(zip(TRACES.columns.keys(), trace_row(trace(id="t"), "{}"), strict=True))
        connection.execute(TRACES.insert().values(row))
        connection.execute(
            KEYS.insert().values(id="k", name="one", digest="d", created_at=1.0, models="[]")
        )

    database.write(fill)


class TestOld:
    @pytest.mark.parametrize("numbered", [True, False])
    def test_it_is_refused_until_it_is_brought_up_to_date(
        self, db: str, database: Database, numbered: bool
    ) -> None:
        with_data(database, numbered)
        for open_it in (Ledger.open, Keys.open):
            with pytest.raises(LedgerError, match=r"older release .* r2reasoner ledger migrate"):
                open_it(db)
        assert migrate(database) == Migrated(FIRST, HEAD)
        assert migrate(database) == Migrated(HEAD, HEAD)
        with database.reading() as connection:
            assert differences(connection) == []
        with Ledger.open(db) as ledger:
            assert [e.outcome for e in ledger.entries()] == [CallOutcome.OK, CallOutcome.OPEN]
            assert ledger.totals().cost == 7 + 255_000_000
            assert [found.id for found in ledger.traces()] == ["t"]
        keys = Keys.open(db)
        assert [key.name for key, _ in keys.all()] == ["one"]
        keys.close_sync()

    def test_a_ledger_that_never_had_keys(self, db: str, database: Database) -> None:
        at(database, FIRST, numbered=False)

        def forget_keys(connection: Connection) -> None:
            for name in ("api_keys", "key_counters", "key_holds", "key_requests"):
                METADATA.tables[name].drop(connection)

        database.write(forget_keys)
        assert migrate(database) == Migrated(FIRST, HEAD)
        with database.reading() as connection:
            assert differences(connection) == []

    def test_what_fails_changes_nothing(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with_data(database, True)

        def fail(connection: Connection, revision: str) -> None:
            upgrade(connection, revision)
            raise RuntimeError("in the middle")

        upgrade = schema._upgrade
        with database.reading() as connection:
            before = shape(connection)
        with monkeypatch.context() as patched:
            patched.setattr(schema, "_upgrade", fail)
            with pytest.raises(LedgerError, match="in the middle"):
                migrate(database)
        with database.reading() as connection:
            assert shape(connection) == before
        assert migrate(database) == Migrated(FIRST, HEAD)


class TestOthers:
    @pytest.mark.parametrize("do", [prepare, migrate])
    def test_a_newer_one(self, database: Database, do: Callable[[Database], object]) -> None:
        prepare(database)
        database.write(lambda c: c.execute(VERSION.update().values(version_num="0999")))
        with pytest.raises(LedgerError, match=r"newer release \(revision 0999"):
            do(database)

    @pytest.mark.parametrize("do", [prepare, migrate])
    def test_other_columns(self, database: Database, do: Callable[[Database], object]) -> None:
        database.write(lambda c: c.execute(text("CREATE TABLE entries (id INT, mood TEXT)")))
        with pytest.raises(LedgerError, match="another program or version"):
            do(database)

    def test_a_server_may_be_shared(self, postgres: Any) -> None:
        with postgres.database() as where, opened(where) as database:
            database.write(lambda c: c.execute(text("CREATE TABLE cookies (id INT)")))
            database.write(lambda c: c.execute(text("CREATE TABLE alembic_version (id INT)")))
            prepare(database)
            with database.reading() as connection:
                assert connection.execute(text("SELECT count(*) FROM alembic_version")).all()
                assert "entries" in inspect(connection).get_table_names()


def test_ids_sort_by_their_bytes_whatever_the_language(postgres: Any) -> None:
    if int(postgres.sql("postgres", "SHOW server_version_num")[0][0]) < 150_000:
        pytest.skip("a database of another language needs PostgreSQL 15")
    czech = {"TEMPLATE": "template0", "LOCALE_PROVIDER": "icu", "ICU_LOCALE": "'cs'"}
    with postgres.database(**czech) as where, Ledger.open(where) as ledger:
        ids = ["-c", "_b", "ch", "cz", "d", "hz"]
        for identifier in ids:
            ledger.save_trace(trace(id=identifier))
        asyncio.run(ledger.flush())
        with ledger.reading() as connection:
            rows = connection.execute(text("SELECT id FROM traces ORDER BY id")).scalars().all()
        assert rows == sorted(ids)
