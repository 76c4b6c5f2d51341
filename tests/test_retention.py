"""What is too old goes, what it came to stays."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from ledger_samples import closing, entry, trace
from r2reasoner import retention
from r2reasoner.gateway.dashboard.books import Books, Day, last_days
from r2reasoner.ledger import Ledger, id_at, moment_of, new_id
from r2reasoner.retention import DAY_S, Removed, count, keep, prune, take_turn
from r2reasoner.tables import COUNTERS, DAILY_CALLS, ENTRIES, HOLDS, LEASES, REQUESTS
from r2reasoner.types import CallOutcome

DAY = timedelta(days=1)
OK, OPEN, FAILED = CallOutcome.OK, CallOutcome.OPEN, CallOutcome.FAILED


@pytest.fixture
def ledger(db: str) -> Iterator[Ledger]:
    with Ledger.open(db) as opened:
        yield opened


def days_ago(days: float) -> str:
    """Return an id that was made so many days ago."""
    return id_at(time.time() - days * DAY_S) + new_id()[13:]


async def call(ledger: Ledger, days: float, outcome: CallOutcome = OK, **more: Any) -> str:
    """Record a call of so many days ago; return its id."""
    opened = entry(id=days_ago(days), **more)
    await ledger.begin(opened)
    if outcome is not OPEN:
        ledger.finish(closing(opened, outcome=outcome, **({} if outcome is OK else {"cost": 0})))
        await ledger.flush()
    return opened.id


def by_day(ledger: Ledger) -> list[tuple[Day, int]]:
    """Return what each of the last days came to, and how many queries it had, as asked anew."""
    books = Books(ledger)
    return [(books.day(day), books.queries(day, day + DAY)) for day in last_days(70)]


def ago(days: float) -> float:
    return time.time() - days * DAY_S


class TestPruning:
    async def test_what_is_old_goes_and_every_sum_stays(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "BATCH", 3)
        for days in (5, 29, 31, 31, 31, 60, 60):
            await call(ledger, days)
        dear = 2**63 - 1
        for _ in range(3):
            await call(ledger, 60, model="dear", bound=dear, outcome=OPEN)
        ended = update(ENTRIES).where(ENTRIES.c.outcome == "open").values(outcome="unknown")
        ledger.database.write(lambda c: c.execute(ended))
        await call(ledger, 60, FAILED, model="dear")
        await call(ledger, 60, price=None, bound=None)
        unpriced = update(ENTRIES).where(ENTRIES.c.bound.is_(None)).values(cost=None)
        ledger.database.write(lambda c: c.execute(unpriced))
        for days in (1, 40, 50, 50, 50):
            ledger.save_trace(trace(id=days_ago(days)))
        await ledger.flush()
        before, totals = by_day(ledger), ledger.totals()
        assert totals.cost > 2**63
        assert count(ledger.database, ago(30)) == Removed(4, 10)
        assert prune(ledger.database, ago(30)) == Removed(4, 10)
        assert len(ledger.entries()) == 2
        assert len(ledger.traces()) == 1
        assert (by_day(ledger), ledger.totals()) == (before, totals)
        assert prune(ledger.database, ago(30)) == Removed(0, 0)
        assert prune(ledger.database, ago(4)) == Removed(0, 2)  # adds to what was kept
        assert (by_day(ledger), ledger.totals()) == (before, totals)

    async def test_open_and_held_calls_stay(self, ledger: Ledger) -> None:
        left_open, held = await call(ledger, 50, OPEN), await call(ledger, 50)
        await call(ledger, 50)
        hold = {"id": held, "key_id": "k", "day": "2026-01-01", "amount": 1, "held_at": 1.0}
        ledger.database.write(lambda c: c.execute(insert(HOLDS).values(hold)))
        assert count(ledger.database, ago(30)) == Removed(0, 1)
        assert prune(ledger.database, ago(30)) == Removed(0, 1)
        assert {found.id for found in ledger.entries()} == {left_open, held}
        ledger.database.write(lambda c: c.execute(HOLDS.delete()))
        assert prune(ledger.database, ago(30)) == Removed(0, 1)

    async def test_traces_only(self, ledger: Ledger) -> None:
        await call(ledger, 50)
        ledger.save_trace(trace(id=days_ago(50)))
        await ledger.flush()
        assert count(ledger.database, ago(30), traces_only=True) == Removed(1, 0)
        assert prune(ledger.database, ago(30), traces_only=True) == Removed(1, 0)
        assert len(ledger.entries()) == 1
        assert ledger.traces() == []

    async def test_what_keys_spent_stays(self, ledger: Ledger) -> None:
        def put(connection: Any) -> None:
            zero = {"key_id": "k", "spent": 5, "held": 0, "requests": 1}
            for period in ("2020-01-01", "2020-01", "2020-01-01T10:00", "2999-01-01T10:00"):
                connection.execute(insert(COUNTERS).values(zero | {"period": period}))
            for days in (50, 1):
                row = {"trace_id": days_ago(days), "key_id": "k", "at": 1.0}
                connection.execute(insert(REQUESTS).values(row))

        ledger.database.write(put)
        prune(ledger.database, ago(30))
        with ledger.reading() as connection:
            left = connection.execute(select(COUNTERS.c.period)).scalars().all()
            assert sorted(left) == ["2020-01", "2020-01-01", "2999-01-01T10:00"]
            assert connection.execute(select(func.count()).select_from(REQUESTS)).scalar() == 1

    async def test_ids_of_others_are_counted_where_they_began(self, ledger: Ledger) -> None:
        other = entry(id="00-other", started_at=1_600_000_000.0)
        await ledger.begin(other)
        ledger.finish(closing(other))
        await ledger.flush()
        prune(ledger.database, ago(30))
        with ledger.reading() as connection:
            assert connection.execute(select(DAILY_CALLS.c.day)).scalars().all() == ["2020-09-13"]

    async def test_while_others_write(
        self, db: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two prune at once, a third records calls: none is counted twice or lost."""
        monkeypatch.setattr(retention, "BATCH", 10)
        opened = [entry(id=days_ago(50 + n / 10)) for n in range(200)]
        await asyncio.gather(*map(ledger.begin, opened))
        for one in opened:
            ledger.finish(closing(one))
        await ledger.flush()
        removed: list[Removed] = []

        def work() -> None:
            with Ledger.open(db) as other:
                removed.append(prune(other.database, ago(30)))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            await call(ledger, 0)
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
        assert sum(each.calls for each in removed) == 200
        assert ledger.totals().calls == 220
        assert ledger.totals().cost == 220 * 120_000_000

    def test_a_file_keeps_nothing_of_what_was_removed(self, tmp_path: Path) -> None:
        with Ledger.open(tmp_path / "l.db") as ledger:
            for days in (50, 1):
                ledger.save_trace(trace(id=days_ago(days), pool=f"secret of {days} " * 2000))
            asyncio.run(ledger.flush())
            prune(ledger.database, ago(30))
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"secret of 1 " in stored
        assert b"secret of 50" not in stored


class TestTurns:
    def test_one_process_gets_it(self, db: str, ledger: Ledger) -> None:
        with Ledger.open(db) as other:
            turns = [take_turn(each.database, 3600) for each in (ledger, other, ledger)]
            assert turns == [True, False, False]
            ledger.database.write(lambda c: c.execute(update(LEASES).values(expires_at=1.0)))
            assert take_turn(other.database, 3600)
            assert not take_turn(ledger.database, 3600)

    async def test_a_thread_does_it_while_something_runs(
        self, ledger: Ledger, caplog: pytest.LogCaptureFixture
    ) -> None:
        await call(ledger, 50)
        with caplog.at_level("INFO", "r2reasoner.retention"), keep(ledger.database, days=30):
            async with asyncio.timeout(60):
                while ledger.entries():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert "removed 0 traces and 1 calls" in caplog.text
        assert "r2-retention" not in {thread.name for thread in threading.enumerate()}

    async def test_nothing_is_removed_unless_days_are_said(self, ledger: Ledger) -> None:
        await call(ledger, 5000)
        with keep(ledger.database, days=None):
            assert "r2-retention" not in {thread.name for thread in threading.enumerate()}

    def test_trouble_is_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with Ledger.open(tmp_path / "l.db") as ledger:
            ledger.database.write(lambda c: LEASES.drop(c))
            with caplog.at_level("WARNING", "r2reasoner.retention"):
                retention._take_turn_and_prune(ledger.database, 30, threading.Event())
        assert "no such table: leases" in caplog.text


def test_ids_say_when_they_were_made() -> None:
    before = time.time()
    made = moment_of(new_id())
    assert before - 0.001 <= made <= time.time() + 0.001
    assert id_at(made) <= new_id()
    with pytest.raises(ValueError, match="no id of ours"):
        moment_of("t")
