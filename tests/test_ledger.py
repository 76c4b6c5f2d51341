import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_samples import BOUND, closing, entry, trace
from r2reasoner.errors import DataError, LedgerError
from r2reasoner.ledger import Ledger, Totals, default_path, new_id
from r2reasoner.pool.cards import Price, Tier
from r2reasoner.types import (
    Allocation,
    Call,
    CallOutcome,
    Choice,
    Query,
    Role,
    Step,
    Trace,
    Usage,
)

OK, OPEN, UNKNOWN = CallOutcome.OK, CallOutcome.OPEN, CallOutcome.UNKNOWN


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ledger.db"


@pytest.fixture
def ledger(db: str) -> Iterator[Ledger]:
    with Ledger.open(db) as ledger:
        yield ledger


def test_it_says_where_it_is(path: Path) -> None:
    with Ledger.open(path) as ledger:
        assert ledger.where == str(path)


@contextmanager
def locked(db: str | Path) -> Iterator[None]:
    """Keep all from writing to a ledger, as another process might."""
    if "://" in str(db):
        from psycopg import connect

        with connect(str(db)) as other:
            other.execute("LOCK TABLE entries, traces, leases IN EXCLUSIVE MODE")
            yield
        return
    blocker = sqlite3.connect(db, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()


def sql(path: str | Path, statement: str) -> list[Any]:
    if "://" in str(path):
        from postgres import run_sql

        return run_sql(str(path), statement)
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement).fetchall()
    finally:
        connection.close()


def check_integrity(db: str | Path) -> None:
    if "://" not in str(db):
        assert sql(db, "PRAGMA integrity_check") == [("ok",)]


SCRIPT_HEAD = """
import asyncio, os, resource, sys, time
from r2reasoner.errors import LedgerError
from r2reasoner.ledger import Ledger
from r2reasoner.types import CallOutcome
from ledger_samples import closing, entry, trace
"""


def python(script: str, *arguments: object, stdin: int | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT_HEAD + script, *map(str, arguments)],
        start_new_session=True,
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((*sys.path, str(Path(__file__).parent)))},
    )


def output(script: str, *arguments: object) -> str:
    process = python(script, *arguments)
    try:
        said, _ = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the children that it forked
        raise
    assert process.returncode == 0, said
    return said


class TestIds:
    def test_ids_are_unique_and_sort_by_time(self) -> None:
        ids = [new_id() for _ in range(20_000)]
        assert len(set(ids)) == len(ids)
        assert {len(found) for found in ids} == {24}
        later = new_id()
        time.sleep(0.000_01)
        assert later < new_id()

    def test_threads_and_forked_processes_do_not_share_ids(self) -> None:
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda: found.extend([new_id() for _ in range(5000)]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 20_000
        tails = output(
            "from r2reasoner.ledger import new_id\n"
            "child = os.fork()\n"
            "sys.stdout.write(new_id()[-7:] + '\\n'); sys.stdout.flush()\n"
            "if child: os.wait()"
        ).split()
        assert len(set(tails)) == 2


class TestEntries:
    async def test_an_entry_is_committed_before_begin_returns(
        self, ledger: Ledger, db: str
    ) -> None:
        opened = entry()
        await ledger.begin(opened)
        found = "SELECT outcome, cost, bound, input_tokens FROM entries WHERE id = '{}'"
        assert sql(db, found.format(opened.id)) == [("open", 255_000_000, 255_000_000, 500)]

    async def test_what_is_written_is_read_back(self, ledger: Ledger) -> None:
        tiered = Price(
            Decimal("1.25"),
            Decimal("10.0"),
            Decimal("0.125"),
            "a list of 2026-11-01",
            (Tier(200_000, Decimal("2.50"), Decimal(15)),),
        )
        opened = entry(price=tiered, note="repair", role=Role.DECOMPOSER, subtask=None)
        await ledger.begin(opened)
        call = closing(opened, error="a provider's words", latency_s=1.25)
        ledger.finish(call)
        await ledger.flush()
        (found,) = ledger.entries()
        assert {name: getattr(found, name) for name in Call.__dataclass_fields__} == {
            name: getattr(call, name) for name in Call.__dataclass_fields__
        }
        assert (found.query_id, found.price) == ("q", tiered)

    async def test_unknown_prices_and_costs_stay_unknown(self, ledger: Ledger) -> None:
        opened = entry(price=None, bound=None)
        await ledger.begin(opened)
        (found,) = ledger.entries()
        assert (found.cost, found.bound, found.price) == (None, None, None)
        ledger.finish(closing(opened, cost=None))
        await ledger.flush()
        assert ledger.entries()[0].cost is None
        assert ledger.totals() == Totals(1, 0, 0, 0, 1, 400, 100, 0)

    async def test_foreign_text_is_cut_and_cleaned(self, ledger: Ledger) -> None:
        opened = entry(model="m\ud800", note="nul \0 here")
        await ledger.begin(opened)
        ledger.finish(closing(opened, error="é" * 1000, finish_reason="st\udfffop", note="a\0b"))
        await ledger.flush()
        (found,) = ledger.entries()
        assert found.error == "é" * 300
        assert (found.model, found.finish_reason, found.note) == ("m?", "st?op", "a?b")

    async def test_entries_are_chosen_by_query_and_limited_to_the_newest(
        self, ledger: Ledger
    ) -> None:
        opened = [entry(f"q{number % 2}") for number in range(2500)]
        await asyncio.gather(*map(ledger.begin, opened))
        ids = [one.id for one in opened]
        assert [one.id for one in ledger.entries()] == ids
        assert [one.id for one in ledger.entries(limit=3)] == ids[-3:]
        assert [one.id for one in ledger.entries(query_id="q1", limit=2)] == ids[-3::2]
        assert [one.id for one in ledger.iter_entries()] == ids
        assert [one.id for one in ledger.iter_entries(query_id="q0")] == ids[::2]
        assert ledger.entries(query_id="another") == []
        assert ledger.totals(query_id="q0").calls == 1250

    async def test_sums_pass_64_bits(self, ledger: Ledger) -> None:
        most = 2**63 - 1
        opened = [entry(bound=most) for _ in range(3)]
        await asyncio.gather(*map(ledger.begin, opened))
        assert ledger.totals().cost == 3 * most


class TestBatches:
    async def test_what_waits_is_committed_together(self, path: Path) -> None:
        ledger = Ledger.open(path)
        await ledger.begin(entry())
        begun = []
        with locked(path):
            begun = [asyncio.create_task(ledger.begin(entry())) for _ in range(200)]
            for number in range(200):
                ledger.save_trace(trace(id=f"t{number}"))
            await asyncio.sleep(0)
            watcher = sqlite3.connect(path)
            (before,) = watcher.execute("PRAGMA data_version").fetchone()
            assert watcher.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        await asyncio.gather(*begun)
        await ledger.flush()
        assert watcher.execute("SELECT count(*) FROM entries").fetchone() == (201,)
        assert watcher.execute("SELECT count(*) FROM traces").fetchone() == (200,)
        assert watcher.execute("PRAGMA data_version").fetchone() != (before,)
        watcher.close()
        await ledger.close()

    async def test_a_cancelled_wait_does_not_keep_the_others_waiting(
        self, ledger: Ledger, db: str
    ) -> None:
        await ledger.begin(entry())
        with locked(db):
            begun = [asyncio.create_task(ledger.begin(entry())) for _ in range(3)]
            await asyncio.sleep(0)
            begun[0].cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await asyncio.gather(*begun[1:])
        assert begun[0].cancelled()
        assert len(ledger.entries()) == 4

    def test_event_loops_may_follow_one_another(self, ledger: Ledger) -> None:
        async def one() -> None:
            opened = entry()
            await ledger.begin(opened)
            ledger.finish(closing(opened))

        for _ in range(5):
            asyncio.run(one())
        asyncio.run(ledger.flush())
        assert [found.outcome for found in ledger.entries()] == [OK] * 5

    def test_event_loops_may_run_side_by_side(self, ledger: Ledger) -> None:
        async def some() -> None:
            for _ in range(20):
                opened = entry()
                await ledger.begin(opened)
                ledger.finish(closing(opened))
            await ledger.flush()

        threads = [threading.Thread(target=asyncio.run, args=(some(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found.outcome for found in ledger.entries()] == [OK] * 80

    def test_a_loop_that_is_gone_takes_nobody_with_it(self, ledger: Ledger, db: str) -> None:
        async def leave() -> None:
            opening = asyncio.create_task(ledger.begin(entry()))
            await asyncio.sleep(0)
            opening.cancel()

        asyncio.run(ledger.begin(entry()))
        with locked(db):
            asyncio.run(leave())
        asyncio.run(ledger.begin(entry()))
        assert len(ledger.entries()) == 3


class TestTrouble:
    async def test_a_locked_ledger_is_an_error_and_then_works_again(self, db: str) -> None:
        async with Ledger.open(db, busy_timeout_s=0.05) as ledger:
            opened = entry()
            await ledger.begin(opened)
            with locked(db):
                with pytest.raises(LedgerError, match="; another process keeps it locked"):
                    await ledger.begin(entry())
                ledger.finish(closing(opened))
                ledger.save_trace(trace())
                for _ in range(2):
                    with pytest.raises(LedgerError, match="2 results or traces not recorded"):
                        await ledger.flush()
            await ledger.flush()
            assert [found.outcome for found in ledger.entries()] == [OK]
            assert len(ledger.traces()) == 1

    async def test_close_reports_what_is_not_written(self, db: str) -> None:
        ledger = Ledger.open(db, busy_timeout_s=0.05)
        opened = entry()
        await ledger.begin(opened)
        with locked(db):
            ledger.finish(closing(opened))
            with pytest.raises(LedgerError, match=r"1 results .* not recorded: .* locked"):
                await ledger.close()

    async def test_a_lease_that_cannot_be_given_up_is_reported(self, path: Path) -> None:
        ledger = Ledger.open(path, busy_timeout_s=0.05)
        await ledger.begin(entry())
        with locked(path), pytest.raises(LedgerError, match="locked"):
            ledger.close_sync()

    async def test_only_the_refused_row_fails(self, ledger: Ledger, db: str) -> None:
        first, good = entry(), entry()
        await ledger.begin(first)
        with locked(db):
            # All in one batch: what waits for the lock.
            double = asyncio.create_task(ledger.begin(first))
            fine = asyncio.create_task(ledger.begin(good))
            await asyncio.sleep(0)
            ledger.finish(closing(first, cost=2**70))
            ledger.finish(closing(good))
        with pytest.raises(LedgerError, match=r"refuses a row: (UNIQUE|.* unique) constraint"):
            await double
        await fine
        with pytest.raises(
            LedgerError, match=r"1 results .* not recorded: .* (too large|out of range)"
        ):
            await ledger.flush()
        await ledger.flush()
        assert [found.outcome for found in ledger.entries()] == [OPEN, OK]

    async def test_what_is_kept_for_another_try_is_limited(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("r2reasoner.batching.KEPT", 3)
        async with Ledger.open(path, busy_timeout_s=0.05) as ledger:
            await ledger.begin(entry())
            with locked(path):
                for number in range(5):
                    ledger.save_trace(trace(id=str(number)))
                with pytest.raises(LedgerError, match="5 results"):
                    await ledger.flush()
            await ledger.flush()
            assert len(ledger.traces()) == 3

    async def test_a_read_only_ledger_is_an_error(self, path: Path) -> None:
        Ledger.open(path).close_sync()
        async with Ledger.open(f"sqlite:///file:{path}?mode=ro&uri=true") as ledger:
            with pytest.raises(LedgerError, match=r"readonly database; make it writable"):
                await ledger.begin(entry())
            assert ledger.entries() == []

    def test_a_full_disk_is_an_error_and_nothing_more_is_dispatched(self, path: Path) -> None:
        said = output(
            """
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(path):
    ledger = Ledger.open(path)
    begun = [entry() for _ in range(100)]
    await asyncio.gather(*map(ledger.begin, begun))
    limit(150_000)
    dispatched = refused = 0
    while not refused:
        results = await asyncio.gather(
            *(ledger.begin(entry()) for _ in range(20)), return_exceptions=True
        )
        refused = sum(isinstance(result, LedgerError) for result in results)
        dispatched += sum(result is None for result in results)
    print(dispatched)
    limit(1000)
    for one in begun:
        ledger.finish(closing(one))
    try:
        await ledger.flush()
    except LedgerError as error:
        print(error)
    limit(resource.RLIM_INFINITY)
    await ledger.flush()
    limit(1000)
    ledger.finish(closing(begun[0], cost=1))
    try:
        await ledger.close()
    except LedgerError as error:
        print(error)

asyncio.run(main(sys.argv[1]))
""",
            path,
        ).splitlines()
        dispatched = int(said[0])
        assert "100 results or traces not recorded: cannot write to the ledger" in said[1]
        assert "1 results or traces not recorded: cannot write to the ledger" in said[2]
        with Ledger.open(path) as ledger:
            entries = ledger.entries()
            assert len(entries) == 100 + dispatched
            assert sum(found.outcome is OK for found in entries) == 100

    def test_a_database_at_its_largest_size_says_it_is_full(self, path: Path) -> None:
        said = output(
            """
import sqlalchemy
@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def small(connection, record):
    connection.execute("PRAGMA max_page_count = 40")

async def main(path):
    ledger = Ledger.open(path)
    dispatched = 0
    try:
        while True:
            await ledger.begin(entry())
            dispatched += 1
    except LedgerError as error:
        print(dispatched, error)
    try:
        await ledger.close()
    except LedgerError as error:
        print(error)

asyncio.run(main(sys.argv[1]))
""",
            path,
        )
        dispatched, error = said.split(" ", 1)
        assert "database or disk is full; free some disk space" in error
        assert sql(path, "SELECT count(*) FROM entries") == [(int(dispatched),)]


class TestClosing:
    async def test_a_closed_ledger_records_nothing(self, ledger: Ledger) -> None:
        opened = entry()
        await ledger.begin(opened)
        await ledger.close()
        await ledger.close()
        ledger.close_sync()
        with pytest.raises(LedgerError, match="is closed"):
            ledger.finish(closing(opened))
        with pytest.raises(LedgerError, match="is closed"):
            ledger.save_trace(trace())
        for wait in (ledger.begin(entry()), ledger.flush()):
            with pytest.raises(LedgerError, match="is closed"):
                await wait

    async def test_closing_writes_what_is_queued_and_leaves_nothing_open(
        self, ledger: Ledger, db: str
    ) -> None:
        finished, left = entry(), entry()
        await asyncio.gather(ledger.begin(finished), ledger.begin(left))
        ledger.finish(closing(finished))
        await ledger.close()
        with Ledger.open(db) as again:
            first, second = again.entries()
        assert (first.outcome, first.cost) == (OK, 120_000_000)
        assert (second.outcome, second.cost, second.usage) == (UNKNOWN, second.bound, BOUND)
        assert second.error == "the ledger was closed before this call was settled: bound charged"
        assert sql(db, "SELECT * FROM leases") == []

    async def test_a_ledger_that_nobody_refers_to_is_closed(self, db: str) -> None:
        ledger = Ledger.open(db)
        opened = entry()
        await ledger.begin(opened)
        ledger.finish(closing(opened))
        del ledger
        gc.collect()
        assert sql(db, "SELECT outcome FROM entries") == [("ok",)]
        assert "r2-ledger" not in {thread.name for thread in threading.enumerate()}

    def test_a_process_that_ends_without_closing_loses_nothing(self, path: Path) -> None:
        output(
            """
async def main():
    opened = [entry() for _ in range(50)]
    await asyncio.gather(*map(ledger.begin, opened))
    for one in opened:
        ledger.finish(closing(one))
    ledger.save_trace(trace())

ledger = Ledger.open(sys.argv[1])
asyncio.run(main())
""",
            path,
        )
        assert sql(path, "SELECT outcome, count(*) FROM entries GROUP BY 1") == [("ok", 50)]
        assert sql(path, "SELECT count(*) FROM traces") == [(1,)]

    def test_a_forked_child_is_told_to_open_its_own(self, path: Path) -> None:
        said = output(
            """
ledger = Ledger.open(sys.argv[1])
asyncio.run(ledger.begin(entry()))
child = os.fork()
if child:
    print(os.waitpid(child, 0)[1])
else:
    try:
        asyncio.run(ledger.begin(entry()))
    except LedgerError as error:
        print(error)
""",
            path,
        )
        assert "opened before a fork; open one in the child" in said
        assert said.endswith("\n0\n")
        assert sql(path, "SELECT outcome FROM entries") == [("unknown",)]

    def test_a_child_forked_in_the_middle_of_a_write_may_write(self, path: Path) -> None:
        said = output(
            """
import signal, threading

ledger = Ledger.open(sys.argv[1])
writing, forked = threading.Event(), threading.Event()

def write(connection):
    writing.set()
    forked.wait()

thread = threading.Thread(target=ledger.database.write, args=[write])
thread.start()
writing.wait()
child = os.fork()
if not child:
    signal.alarm(60)
    with Ledger.open(sys.argv[1]) as own:
        asyncio.run(own.begin(entry()))
    os._exit(0)
forked.set()
thread.join()
print(os.waitpid(child, 0)[1])
""",
            path,
        )
        assert said == "0\n"
        assert sql(path, "SELECT outcome FROM entries") == [("unknown",)]


WORK_UNTIL_KILLED = """
async def call(ledger, number):
    opened = entry(f"q{number}")
    await ledger.begin(opened)
    print("begun", opened.id)
    if number % 3:
        await asyncio.sleep(0.001 * (number % 5))
        ledger.finish(closing(opened))
        await ledger.flush()
        print("closed", opened.id)

async def main():
    ledger = Ledger.open(sys.argv[1], lease_s=0.5)
    number = 0
    while True:
        await asyncio.gather(*(call(ledger, number + i) for i in range(16)))
        number += 16
        sys.stdout.flush()
        if len(sys.argv) > 2 and number >= int(sys.argv[2]):
            os._exit(7)

asyncio.run(main())
"""


class TestCrashes:
    def survivors(self, db: str | Path, said: str) -> None:
        """Check the books of a dead process against what it had been told."""
        whole = said[: said.rfind("\n") + 1]
        told = [line.split() for line in whole.splitlines()]
        begun = [name for what, name in told if what == "begun"]
        closed = {name for what, name in told if what == "closed"}
        assert begun
        assert closed
        ((expires_at,),) = sql(db, "SELECT expires_at FROM leases")
        time.sleep(max(0.0, expires_at - time.time()) + 0.01)
        with Ledger.open(db) as ledger:
            still_open = [found for found in ledger.entries() if found.outcome is OPEN]
            assert ledger.recover() == len(still_open) > 0
            assert ledger.recover() == 0
            entries = ledger.entries()
        ids = [found.id for found in entries]
        assert len(set(ids)) == len(ids)
        assert set(begun) <= set(ids)
        for found in entries:
            if found.id in closed:
                assert (found.outcome, found.cost) == (OK, 120_000_000)
            elif found.outcome is not OK:
                assert (found.outcome, found.cost) == (UNKNOWN, found.bound)
                assert found.usage == BOUND
                assert (found.error or "").startswith("process ")
        assert sql(db, "SELECT * FROM leases") == []
        check_integrity(db)

    def test_after_an_abrupt_exit(self, path: Path) -> None:
        process = python(WORK_UNTIL_KILLED, path, 160)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 7
        self.survivors(path, said)

    def kill_after(self, db: str, lines: int) -> None:
        process = python(WORK_UNTIL_KILLED, db)
        assert process.stdout is not None
        said = "".join(process.stdout.readline() for _ in range(lines))
        process.kill()
        said += process.stdout.read()
        process.stdout.close()
        assert process.wait(timeout=60) == -signal.SIGKILL
        self.survivors(db, said)

    def test_after_kill_9(self, db: str) -> None:
        self.kill_after(db, 40 if "://" in db else 333)

    @pytest.mark.slow
    @pytest.mark.parametrize("lines", range(30, 1530, 30))
    def test_after_kill_9_at_fifty_moments(self, db: str, lines: int) -> None:
        self.kill_after(db, lines)


class TestLeases:
    async def test_calls_of_a_living_process_are_left_alone(self, db: str) -> None:
        process = python(
            """
async def main():
    ledger = Ledger.open(sys.argv[1])
    opened = entry()
    await ledger.begin(opened)
    print("begun", flush=True)
    sys.stdin.readline()
    ledger.finish(closing(opened))
    await ledger.close()

asyncio.run(main())
""",
            db,
            stdin=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        async with Ledger.open(db) as ledger:
            assert ledger.recover() == 0
            await ledger.begin(entry())
            assert [found.outcome for found in ledger.entries()] == [OPEN, OPEN]
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
        assert sql(db, "SELECT outcome FROM entries ORDER BY id") == [("ok",), ("unknown",)]

    async def test_a_lease_is_renewed_while_nothing_happens(self, db: str) -> None:
        async with Ledger.open(db, lease_s=0.3) as ledger:
            await ledger.begin(entry())
            renewed = "SELECT renewed_at FROM leases"
            first = sql(db, renewed)
            deadline = time.monotonic() + 60
            while sql(db, renewed) == first:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    async def test_a_ledger_in_use_recovers_others_by_itself(self, db: str) -> None:
        stalled, alive = Ledger.open(db), Ledger.open(db)
        opened = entry()
        await stalled.begin(opened)
        sql(db, "UPDATE leases SET expires_at = 1")
        await alive.begin(entry())
        assert [found.outcome for found in alive.entries()] == [UNKNOWN, OPEN]

        # The process was only slow: what it knows in the end is nearer the truth than its bound.
        stalled.finish(closing(opened))
        await stalled.close()
        await alive.close()
        assert sql(db, "SELECT outcome, cost FROM entries ORDER BY id") == [
            ("ok", 120_000_000),
            ("unknown", 255_000_000),
        ]

    async def test_after_a_time_without_the_database_nobody_is_called_dead(self, db: str) -> None:
        async with Ledger.open(db) as one, Ledger.open(db) as two:
            await one.begin(entry())
            await two.begin(entry())
            sql(db, "UPDATE leases SET expires_at = 1")
            for ledger in (one, two):
                ledger._store._renew_at -= 1000
                await ledger.begin(entry())
            assert one.recover() == two.recover() == 0
            assert {found.outcome for found in one.entries()} == {OPEN}

    async def test_a_ledger_does_not_reap_itself(self, db: str) -> None:
        async with Ledger.open(db) as ledger:
            await ledger.begin(entry())
            sql(db, "UPDATE leases SET expires_at = 1")
            assert ledger.recover() == 0
            assert ledger.entries()[0].outcome is OPEN


WRITERS = """
async def some(ledger, writer, count):
    async def calls(query_id):
        for number in range(count // 16):
            one = entry(query_id)
            await ledger.begin(one)
            ledger.finish(closing(one, cost=1000 + number))
    await asyncio.gather(*(calls(f"{writer}.{number}") for number in range(16)))
    await ledger.close()

children = []
for writer in range(8):
    child = os.fork()
    if not child:
        # All open the file that is not there yet at the same moment.
        asyncio.run(some(Ledger.open(sys.argv[1], busy_timeout_s=60), writer, int(sys.argv[2])))
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""


class TestManyProcesses:
    def eight_writers(self, db: str | Path, each: int) -> None:
        assert output(WRITERS, db, each) == "[0, 0, 0, 0, 0, 0, 0, 0]\n"
        with Ledger.open(db) as ledger:
            entries = ledger.entries()
            assert len(entries) == 8 * each
            assert len({found.id for found in entries}) == 8 * each
            assert {found.outcome for found in entries} == {OK}
            assert len({found.query_id for found in entries}) == 8 * 16
            of_one = each // 16
            sum_of_one = sum(1000 + number for number in range(of_one))
            assert ledger.totals().cost == 8 * 16 * sum_of_one
        check_integrity(db)

    def test_eight_writers(self, db: str) -> None:
        self.eight_writers(db, 160 if "://" in db else 320)

    @pytest.mark.slow
    def test_fifty_thousand_entries_by_eight_writers(self, path: Path) -> None:
        self.eight_writers(path, 6256)


class TestTraces:
    async def test_a_trace_is_read_back_whole(self, ledger: Ledger) -> None:
        saved = trace()
        ledger.save_trace(saved)
        await ledger.flush()
        assert ledger.trace(saved.id) == saved
        (summary,) = ledger.traces()
        assert summary == (
            saved.id, 1_700_000_000.25, "walk left twice", "nano", 120_000_000, "complete", 0.5
        )  # fmt: skip
        assert list(ledger.iter_trace_json()) == [ledger.trace_json(saved.id)]

    async def test_the_beginning_of_an_id_will_do(self, ledger: Ledger) -> None:
        for identifier in ("ab1", "ab2", "ab", "c_d", "cxd"):
            ledger.save_trace(trace(id=identifier))
        await ledger.flush()
        assert ledger.trace("ab1").id == "ab1"
        assert ledger.trace("ab").id == "ab"
        assert ledger.trace("c_").id == "c_d"
        with pytest.raises(DataError, match="several traces begin with 'c': c_d, cxd"):
            ledger.trace("c")
        with pytest.raises(DataError, match=r"no trace 'x' in .*; list them: r2reasoner"):
            ledger.trace("x")

    async def test_saving_again_replaces(self, ledger: Ledger) -> None:
        first = trace()
        second = replace(first, wall_s=9.0)
        for saved in (first, second, second):
            ledger.save_trace(saved)
        await ledger.flush()
        assert ledger.trace(first.id) == second
        assert len(ledger.traces()) == 1

    async def test_the_list_is_newest_first(self, ledger: Ledger) -> None:
        for number in (2, 3, 1):
            ledger.save_trace(trace(id=str(number), started_at=float(number)))
        await ledger.flush()
        assert [found.id for found in ledger.traces()] == ["3", "2", "1"]
        assert [found.id for found in ledger.traces(limit=1)] == ["3"]

    async def test_odd_text_and_settings_do_not_keep_a_trace_from_being_saved(
        self, ledger: Ledger
    ) -> None:
        odd = trace(
            query=Query("a\ud800b\0c", "q"),
            settings={"path": Path("/x"), "price": Decimal("0.1"), "set": {2, 1}},
        )
        ledger.save_trace(odd)
        await ledger.flush()
        found = ledger.trace(odd.id)
        assert found.query.text == "a?b\0c"
        assert found.settings == {"path": "/x", "price": "0.1", "set": [1, 2]}

    async def test_a_damaged_trace_is_named(self, ledger: Ledger, db: str) -> None:
        saved = trace()
        ledger.save_trace(saved)
        await ledger.flush()
        sql(db, "UPDATE traces SET body = substr(body, 1, 100)")
        with pytest.raises(DataError, match=f"trace {saved.id} cannot be read"):
            ledger.trace(saved.id)


texts = st.text(max_size=20)
small = st.floats(0, 1e6)
counts = st.integers(0, 10**9)
calls = st.builds(
    Call,
    attempt=counts,
    subtask=st.none() | counts,
    usage=st.builds(Usage, counts, counts, counts, counts),
    cost=st.none() | counts,
    bound=st.none() | counts,
    started_at=small,
    latency_s=small,
    ttft_s=st.none() | small,
)
traces = st.builds(
    Trace,
    id=st.uuids().map(str),
    trade_off=small,
    calls=st.lists(calls, max_size=3).map(tuple),
    allocation=st.builds(
        Allocation,
        st.lists(st.none() | st.builds(Choice, texts, texts, st.none() | small)).map(tuple),
        texts,
        st.booleans(),
    ),
    steps=st.lists(
        st.builds(Step, subtask=counts, started_s=small, finished_s=small), max_size=3
    ).map(tuple),
    started_at=small,
    wall_s=small,
    settings=st.dictionaries(texts, st.none() | st.booleans() | counts | texts, max_size=3),
)


@pytest.fixture(scope="module")
def memory() -> Iterator[Ledger]:
    with Ledger.in_memory() as ledger:
        yield ledger


@given(saved=traces)
@settings(max_examples=30, deadline=None)
def test_any_trace_is_read_back_whole(memory: Ledger, saved: Trace) -> None:
    memory.save_trace(saved)
    asyncio.run(memory.flush())
    assert memory.trace(saved.id) == saved


def test_importing_the_ledger_is_cheap() -> None:
    heavy = "print({'sqlalchemy', 'pydantic'} & set(sys.modules))"
    assert output(heavy) == "set()\n"


def test_where_the_ledger_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    assert default_path() == tmp_path / "home" / "r2reasoner.db"
    with Ledger.open() as ledger:
        asyncio.run(ledger.begin(entry()))
    assert default_path().is_file()
    assert default_path().parent.stat().st_mode & 0o077 == 0
    monkeypatch.delenv("R2REASONER_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".r2reasoner" / "r2reasoner.db"


async def test_memory_keeps_readers_and_the_writer_apart() -> None:
    """Both share one connection, on which there is one transaction at a time."""
    seen: list[int] = []
    trouble: list[LedgerError] = []
    done = threading.Event()

    def read(ledger: Ledger) -> None:
        while not done.is_set():
            try:
                seen.append(ledger.totals().calls)
            except LedgerError as error:
                trouble.append(error)

    async with Ledger.in_memory() as ledger:
        reader = threading.Thread(target=read, args=(ledger,))
        reader.start()
        try:
            for _ in range(30):
                await asyncio.gather(*(ledger.begin(entry()) for _ in range(10)))
        finally:
            done.set()
            reader.join()
        assert ledger.totals().calls == 300
    assert not trouble
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
