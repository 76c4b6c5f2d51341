"""Which database a ledger is in, and that nothing is lost or told when one fails."""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    bindparam,
    create_engine,
    insert,
    select,
    text,
)
from sqlalchemy.exc import OperationalError

from ledger_samples import closing, entry, trace
from r2reasoner.database import Database, Statement
from r2reasoner.errors import ConfigError, DataError, LedgerError
from r2reasoner.ledger import Ledger, default_db
from r2reasoner.types import CallOutcome

if TYPE_CHECKING:
    from postgres import Cluster


@pytest.fixture
def server_db(postgres: "Cluster") -> Iterator[str]:
    with postgres.schema() as url:
        yield url


@contextmanager
def opened(where: str) -> Iterator[Database]:
    database = Database(where, busy_timeout_s=5)
    try:
        yield database
    finally:
        database.close()


class TestWhere:
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgres://me@host/books", "postgresql://me@host/books"),
            ("postgresql://me@host:5433/books", "postgresql://me@host:5433/books"),
            ("postgresql+psycopg://host/books", "postgresql://host/books"),
            ("postgresql://me:hunter2@host/books", "postgresql://me:***@host/books"),
            ("postgresql://me:hunter%402@host/books", "postgresql://me:***@host/books"),
            ("postgresql://host/b?password=hunter2", "postgresql://host/b?password=***"),
            ("postgresql://host/b?sslpassword=hunter2", "postgresql://host/b?sslpassword=***"),
            ("postgresql://host/b?sslmode=require", "postgresql://host/b?sslmode=require"),
            ("sqlite://", "in memory"),
        ],
    )
    def test_it_is_said_without_a_password(self, url: str, shown: str) -> None:
        with opened(url) as database:
            assert database.where == shown

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("://hunter2", "not a database URL"),
            ("postgresql://me:hunter2@host:port/db", "not a database URL"),
            ("postgresql://me:hunt@er2@host/db", "written as %40"),
            ("postgresql+asyncpg://me:hunter2@host/db", "say postgresql://"),
            ("postgresql+psycopg2://me:hunter2@host/db", "say postgresql://"),
            ("mysql://me:hunter2@host/db", "no driver for the database mysql: .* PostgreSQL"),
            ("sqlite+aiosqlite:///hunter2", "sqlite"),
        ],
    )
    def test_what_cannot_be_one(self, url: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said) as caught:
            Database(url, busy_timeout_s=1)
        assert "hunt" not in str(caught.value)
        assert "er2" not in str(caught.value)

    def test_without_its_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(ConfigError, match=r"pip install 'r2reasoner\[postgres\]'"):
            Database("postgresql://host/db", busy_timeout_s=1)

    def test_the_environment_names_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("R2REASONER_HOME", str(tmp_path))
        monkeypatch.setenv("R2REASONER_DB", f"sqlite:///{tmp_path}/other.db")
        with Ledger.open() as ledger:
            assert ledger.where == str(tmp_path / "other.db")
        monkeypatch.setenv("R2REASONER_DB", " ")
        assert default_db() == tmp_path / "r2reasoner.db"


class TestServersThatAreNotThere:
    def refused(self, url: str, said: str) -> None:
        with pytest.raises(LedgerError, match=said) as caught:
            Ledger.open(url, busy_timeout_s=1)
        assert "hunter2" not in str(caught.value)

    def test_nobody_listens(self) -> None:
        said = r"cannot read the ledger postgresql://me:\*\*\*@127.0.0.1:1/db: .*refused; check"
        self.refused("postgresql://me:hunter2@127.0.0.1:1/db", said)

    def test_at_several_addresses_nobody_listens(self) -> None:
        said = r'to server at "127.0.0.2", port 1 failed: Connection refused; check that the server'
        self.refused("postgresql://me:hunter2@/db?host=127.0.0.1,127.0.0.2&port=1,1", said)

    def test_nobody_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            port = mute.getsockname()[1]
            self.refused(f"postgresql://me:hunter2@127.0.0.1:{port}/db", "timeout|timed out")

    @pytest.fixture
    def me(self, postgres: "Cluster") -> Iterator[str]:
        """The URL of a user who may come in with the password hunter2, and no more."""
        postgres.sql("postgres", "CREATE ROLE me LOGIN PASSWORD 'hunter2'")
        yield postgres.url("postgres", "me:hunter2")
        postgres.sql("postgres", "DROP ROLE me")

    def test_a_wrong_password(self, me: str) -> None:
        self.refused(
            me.replace("hunter2", "hunter22"), 'password authentication failed for user "me"'
        )

    def test_a_user_who_may_not_make_tables(self, me: str) -> None:
        self.refused(me, "permission denied for schema public; the user needs USAGE and CREATE")


class TestTransactions:
    def test_a_deadlock_is_tried_again(self, server_db: str) -> None:
        """Two writers take two rows in opposite order; each has one before the other goes on."""
        both_hold = threading.Barrier(2)
        begun: list[str] = []

        def swap(first: int, second: int, name: str) -> None:
            def do(connection: Any) -> None:
                begun.append(name)
                connection.execute(text(f"UPDATE t SET n = n + 1 WHERE id = {first}"))
                if begun.count(name) == 1:
                    both_hold.wait(30)
                connection.execute(text(f"UPDATE t SET n = n + 1 WHERE id = {second}"))

            database.write(do)

        with opened(server_db) as database:
            database.write(lambda c: c.execute(text("CREATE TABLE t AS SELECT 1 id, 0 n")))
            database.write(lambda c: c.execute(text("INSERT INTO t VALUES (2, 0)")))
            threads = [
                threading.Thread(target=swap, args=args) for args in ((1, 2, "a"), (2, 1, "b"))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with database.reading() as connection:
                assert connection.execute(text("SELECT sum(n) FROM t")).scalar() == 4
        assert len(begun) >= 3

    def test_a_lost_connection_is_opened_again(self, server_db: str) -> None:
        runs: list[int] = []

        def do(connection: Any) -> int:
            runs.append(1)
            if len(runs) == 1:
                connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return int(connection.execute(text("SELECT 7")).scalar())

        with opened(server_db) as database:
            assert database.write(do) == 7
        assert len(runs) == 2

    def test_what_may_be_committed_is_not_done_again(self, server_db: str) -> None:
        """The connection is lost in the commit itself: by then nobody knows how it ended."""
        killing = """CREATE FUNCTION kill() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"""
        at_commit = """CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON t
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION kill()"""
        runs: list[int] = []

        def do(connection: Any) -> None:
            runs.append(1)
            connection.execute(text("INSERT INTO t VALUES (1)"))

        with opened(server_db) as database:
            for statement in ("CREATE TABLE t (n int)", killing, at_commit):
                database.write(lambda c, s=statement: c.execute(text(s)))  # type: ignore[misc]
            with pytest.raises(LedgerError, match="cannot write to the ledger"):
                database.write(do)
        assert len(runs) == 1

    def test_texts_of_errors_have_no_values(self, db: str) -> None:
        with opened(db) as database:
            database.write(lambda c: c.execute(text("CREATE TABLE t (n INT NOT NULL, s TEXT)")))
            with pytest.raises(DataError, match="refuses a row") as caught:
                database.write(lambda c: c.execute(text("INSERT INTO t VALUES (NULL, 'prompt')")))
            assert "prompt" not in str(caught.value)

    def test_the_clock_is_the_servers(
        self, server_db: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Leases of several machines are not at the mercy of the worst clock."""
        monkeypatch.setattr("time.time", lambda: 1.0)
        with opened(server_db) as database, database.reading() as connection:
            first, second = (
                connection.execute(select(database.now())).scalar_one() for _ in range(2)
            )
        assert 1_700_000_000 < first < second


class TestRestarts:
    async def test_a_restart_is_not_noticed(self, postgres: "Cluster", server_db: str) -> None:
        async with Ledger.open(server_db) as ledger:
            first, second = entry(), entry()
            await ledger.begin(first)
            assert ledger.totals().calls == 1
            postgres.stop(at_once=True)
            postgres.start()
            await ledger.begin(second)
            assert ledger.totals().calls == 2
            ledger.finish(closing(first))
            await ledger.flush()
            assert [e.outcome for e in ledger.entries()] == [CallOutcome.OK, CallOutcome.OPEN]

    async def test_while_it_is_away_closings_are_kept(
        self, postgres: "Cluster", server_db: str
    ) -> None:
        async with Ledger.open(server_db) as ledger:
            opened = entry()
            await ledger.begin(opened)
            postgres.stop(at_once=True)
            try:
                ledger.finish(closing(opened))
                ledger.save_trace(trace(id="t"))
                with pytest.raises(LedgerError, match=r"cannot write to the ledger postgresql://"):
                    await ledger.begin(entry())
                with pytest.raises(LedgerError, match="2 results or traces not recorded"):
                    await ledger.flush()
                with pytest.raises(LedgerError, match="cannot read the ledger postgresql://"):
                    ledger.totals()
            finally:
                postgres.start()
            await ledger.flush()
            (found,) = ledger.entries()
            assert (found.outcome, found.cost) == (CallOutcome.OK, 120_000_000)
            assert ledger.trace("t").id == "t"

    async def test_a_call_that_was_opened_unheard_is_settled_at_its_bound(
        self, db: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its entry was committed, but the answer of the database was lost."""

        def lost(connection: Connection) -> None:
            commit(connection)
            raise OperationalError("COMMIT", None, Exception("the connection was lost"))

        commit = Connection.commit
        ledger = Ledger.open(db)
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "commit", lost)
            with pytest.raises(LedgerError, match="connection was lost"):
                await ledger.begin(entry())
        assert [found.outcome for found in ledger.entries()] == [CallOutcome.OPEN]
        await ledger.close()
        with Ledger.open(db) as again:
            assert [found.outcome for found in again.entries()] == [CallOutcome.UNKNOWN]


async def test_two_who_find_a_dead_process_end_each_of_its_calls_once(server_db: str) -> None:
    with Ledger.open(server_db) as one, Ledger.open(server_db) as two:
        for _ in range(5):
            dead = Ledger.open(server_db)
            await asyncio.gather(*(dead.begin(entry()) for _ in range(20)))
            dead.database.write(lambda c: c.execute(text("UPDATE leases SET expires_at = 1")))
            recovering = (asyncio.to_thread(each.recover) for each in (one, two))
            assert sum(await asyncio.gather(*recovering)) == 20
            dead.close_sync()
        assert {found.outcome for found in one.entries()} == {CallOutcome.UNKNOWN}


def test_a_forked_child_does_not_end_its_parents_connections(server_db: str) -> None:
    with opened(server_db) as database:

        def backend() -> Any:
            return database.write(lambda c: c.execute(text("SELECT pg_backend_pid()")).scalar())

        before = backend()
        child = os.fork()
        if not child:
            database.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert backend() == before


@pytest.mark.parametrize("paramstyle", ["qmark", "named"])
def test_statements_go_to_the_driver_in_their_order_or_not_at_all(paramstyle: Any) -> None:
    engine = create_engine("sqlite://", paramstyle=paramstyle)
    table = Table("rows", MetaData(), Column("a", Integer), Column("b", Integer))
    if paramstyle == "named":
        with pytest.raises(AssertionError, match="order"):
            Statement(insert(table), ("a", "b"), engine)
        return
    write = Statement(insert(table), ("a", "b"), engine)
    read = Statement(select(table.c.b).where(table.c.a == bindparam("a")), ("a",), engine)
    with engine.begin() as connection:
        table.create(connection)
        write.run(connection, [(1, 2), (3, 4)])
        write.run(connection, [])
        assert read.one(connection, (3,)).scalar() == 4
    engine.dispose()
