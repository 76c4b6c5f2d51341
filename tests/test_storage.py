import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from ledger_samples import closing, entry
from r2reasoner.errors import ConfigError, LedgerError
from r2reasoner.storage import Store
from r2reasoner.tables import ENTRIES, close_row
from r2reasoner.types import CallOutcome


def store(where: str | Path) -> Store:
    return Store(where, lease_s=60, busy_timeout_s=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def sql(path: Path, *statements: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
    finally:
        connection.close()
    return rows


def test_sqlite_is_set_for_many_processes(path: Path) -> None:
    here = store(path)
    with here.reading() as connection:
        asked = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "secure_delete")
        }
    here.close()
    assert asked == {
        "journal_mode": "wal",
        "synchronous": 1,
        "busy_timeout": 5000,
        "secure_delete": 1,
    }


def test_a_ledger_is_for_its_owner_only(path: Path) -> None:
    here = store(path)
    here.write([here.open_row(entry())], [], [])
    modes = {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()}
    here.close()
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 384)


def test_a_writer_takes_its_lock_at_once_and_a_reader_none(path: Path) -> None:
    here = store(path)
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    with here.reading() as connection:
        connection.execute(select(ENTRIES)).all()
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    with here.database.engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()
    here.close()


def test_calls_go_to_the_driver_without_detours(path: Path) -> None:
    here = store(path)
    assert "INSERT INTO entries" in str(here._open_entries._sql)
    assert "UPDATE entries SET" in str(here._close_entries._sql)
    here.close()


def test_open_calls_of_a_process_are_found_at_once(path: Path) -> None:
    here = store(path)
    planned: list[str] = []

    @event.listens_for(here.database.engine, "before_cursor_execute")
    def plan(connection: Any, cursor: Any, statement: str, values: Any, *_: object) -> None:
        if statement.startswith("UPDATE entries"):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            planned.extend(row[3] for row in cursor.fetchall())

    here.write([here.open_row(entry())], [], [])
    here.release()
    here.close()
    assert planned == ["SEARCH entries USING INDEX ix_entries_open (lease=?)"]


def test_a_failed_write_changes_nothing(path: Path) -> None:
    here = store(path)
    one, two = entry(), entry()
    here.write([here.open_row(one)], [], [])
    bad = close_row(closing(two, cost=2**70))
    with pytest.raises(Exception, match="too large"):
        here.write([here.open_row(two)], [close_row(closing(one)), bad], [])
    (found,) = here.entries(None, None)
    assert (found.id, found.outcome) == (one.id, CallOutcome.OPEN)
    here.write([here.open_row(two)], [close_row(closing(one))], [])
    assert [row.outcome for row in here.entries(None, None)] == [CallOutcome.OK, CallOutcome.OPEN]
    here.close()


class TestForeignFiles:
    def refused(self, path: Path, text: str) -> None:
        before = path.read_bytes()
        with pytest.raises(LedgerError, match=text) as caught:
            store(path)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == before

    def test_garbage(self, path: Path) -> None:
        path.write_bytes(b"not a database, but long enough to be looked at " * 100)
        self.refused(path, "this file is no ledger, choose another")

    def test_another_programs_database(self, path: Path) -> None:
        sql(path, "CREATE TABLE cookies (id)", "PRAGMA journal_mode = WAL")
        self.refused(path, "another program or version: .* found cookies")

    def test_another_versions_columns(self, path: Path) -> None:
        store(path).close()
        sql(path, "ALTER TABLE entries ADD COLUMN mood TEXT", "DROP TABLE r2reasoner_version")
        self.refused(path, "another program or version")

    def test_a_flipped_page(self, path: Path) -> None:
        here = store(path)
        here.write([here.open_row(entry()) for _ in range(500)], [], [])
        here.close()
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        with pytest.raises(
            LedgerError, match=r"ledger\.db: database disk image is malformed; this"
        ):
            store(path)

    def test_a_cut_file(self, path: Path) -> None:
        here = store(path)
        here.write([here.open_row(entry()) for _ in range(500)], [], [])
        here.close()
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(LedgerError, match="malformed"):
            store(path).entries(None, None)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match="unable to open database file; check that the"):
            store(tmp_path)

    def test_a_folder_that_cannot_be(self, path: Path) -> None:
        path.write_text("a file")
        with pytest.raises(LedgerError, match=r"cannot make the ledger .*sub"):
            store(path / "sub" / "ledger.db")


class TestUrls:
    def test_a_file_by_url(self, path: Path) -> None:
        here = store(f"sqlite:///{path}")
        here.write([here.open_row(entry())], [], [])
        here.close()
        assert sql(path, "SELECT count(*) FROM entries") == [(1,)]

    def test_a_path_is_no_url(self, tmp_path: Path) -> None:
        odd = tmp_path / "what?mode=memory#%20.db"
        store(odd).close()
        assert odd.is_file()

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("oracle9://host/db", "no driver for the database oracle9"),
            ("sqlite+none://host/db", "no driver for the database sqlite"),
            ("://", "not a database URL"),
        ],
    )
    def test_a_url_that_leads_nowhere(self, url: str, text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            store(url)

    def test_a_password_is_not_shown(self) -> None:
        with pytest.raises((ConfigError, LedgerError)) as caught:
            store("postgresql+psycopg://me:hunter2@127.0.0.1:1/db?connect_timeout=1")
        assert "hunter2" not in str(caught.value)


def test_a_copied_ledger_is_a_ledger(path: Path, tmp_path: Path) -> None:
    here = store(path)
    here.write([here.open_row(entry())], [], [])
    here.close()
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    there = store(copy)
    assert len(there.entries(None, None)) == 1
    there.close()
