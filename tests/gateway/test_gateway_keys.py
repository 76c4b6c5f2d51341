"""Keys and their budgets: against real databases, by several threads and processes."""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2reasoner.errors import ConfigError, LedgerError
from r2reasoner.gateway import keys as module
from r2reasoner.gateway.keys import Keys, OverBudget, OverRate, Spending
from r2reasoner.ledger import EntryOpen, Ledger, new_id
from r2reasoner.types import PICO_PER_DOLLAR, Role, Usage, to_pico


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    opened = Keys.open(tmp_path / "l.db")
    yield opened
    opened.close_sync()


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


class TestKeys:
    async def test_the_secret_is_kept_nowhere(self, keys: Keys, tmp_path: Path) -> None:
        key, secret = keys.create("one", per_day=Decimal("2.5"), models=["r2reasoner"])
        keys.close_sync()
        stored = everything_in(tmp_path)
        assert secret.startswith("r2-")
        assert len(secret) > 40
        assert secret.encode() not in stored
        again = Keys.open(tmp_path / "l.db")
        assert await again.find(secret) == key
        assert await again.find(secret + "x") is None
        assert key.per_day == to_pico("2.5")
        again.close_sync()

    async def test_revoked_and_expired_ones_say_so(self, keys: Keys) -> None:
        _, secret = keys.create("one")
        past, _ = keys.create("two", expires_at=time.time() - 1)
        assert keys.revoke("one").why_not(time.time()) == "was revoked"
        found = await keys.find(secret)
        assert found is not None
        assert found.why_not(time.time()) == "was revoked"
        assert past.why_not(time.time()) == "has expired"

    async def test_a_revocation_elsewhere_is_seen(
        self, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "FRESH_S", 0.0)
        _, secret = keys.create("one")
        assert await keys.find(secret) is not None
        other = Keys.open(tmp_path / "l.db")
        other.revoke("one")
        other.close_sync()
        found = await keys.find(secret)
        assert found is not None
        assert found.revoked_at is not None

    async def test_whether_one_was_ever_made(self, keys: Keys) -> None:
        assert not await keys.exist()
        keys.create("one")
        keys.revoke("one")
        assert await keys.exist()

    @pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101])
    def test_names(self, keys: Keys, name: str) -> None:
        with pytest.raises(ConfigError, match="name"):
            keys.create(name)

    def test_what_cannot_be_made(self, keys: Keys) -> None:
        keys.create("one")
        with pytest.raises(ConfigError, match="already"):
            keys.create("one")
        with pytest.raises(ConfigError, match="dollars per day"):
            keys.create("two", per_day=Decimal(0))
        with pytest.raises(ConfigError, match="per minute"):
            keys.create("two", per_minute=0)
        with pytest.raises(ConfigError, match="no key 'nine'"):
            keys.revoke("nine")

    async def test_in_memory_and_closed(self) -> None:
        keys = Keys.open("sqlite://")
        keys.create("one")
        assert [key.name for key, _ in keys.all()] == ["one"]
        await keys.close()
        with pytest.raises(LedgerError, match="closed"):
            await keys.flush()


class TestBudgets:
    async def test_hold_and_settle(self, keys: Keys) -> None:
        key, _ = keys.create("one", per_day=Decimal(1), per_month=Decimal(3))
        first = keys.plan_hold(key, new_id(), to_pico("0.75"))
        await keys.hold(key, first)
        assert await keys.spending(key) == (0, first.amount, 0, first.amount)
        with pytest.raises(OverBudget, match=r"\$0.25 is left") as error:
            await keys.hold(key, keys.plan_hold(key, new_id(), to_pico("0.26")))
        assert error.value.left == to_pico("0.25")
        keys.settle(first, to_pico("0.1"))
        keys.settle(first, to_pico("0.1"))  # again: nothing happens
        spending = await keys.spending(key)
        assert spending == (to_pico("0.1"), 0, to_pico("0.1"), 0)
        assert spending.left(key) == to_pico("0.9")

    async def test_the_month_counts_too(self, keys: Keys) -> None:
        key, _ = keys.create("one", per_day=Decimal(5), per_month=Decimal(1))
        with pytest.raises(OverBudget):
            await keys.hold(key, keys.plan_hold(key, new_id(), to_pico(2)))
        assert await keys.spending(key) == (0, 0, 0, 0)

    async def test_without_a_limit_all_fits_and_is_counted(self, keys: Keys) -> None:
        key, _ = keys.create("one")
        hold = keys.plan_hold(key, new_id(), to_pico(10**6))
        await keys.hold(key, hold)
        keys.settle(hold, 7)
        spending = await keys.spending(key)
        assert (spending.day_spent, spending.left(key)) == (7, None)

    async def test_the_rate(self, keys: Keys) -> None:
        key, _ = keys.create("one", per_minute=3)
        free, _ = keys.create("two")
        ends = await asyncio.gather(
            *(keys.admit(key) for _ in range(7)), keys.admit(free), return_exceptions=True
        )
        *limited, unlimited = ends
        over = [end for end in limited if isinstance(end, OverRate)]
        assert 1 <= len(over) <= 4  # a minute may end in between, but not two
        assert all(1 <= end.retry_after_s <= 60 for end in over)
        assert unlimited is None

    async def test_one_bad_wish_spoils_no_other(self, keys: Keys) -> None:
        key, _ = keys.create("one", per_day=Decimal(1))
        hold = keys.plan_hold(key, "same", 1)
        again = keys.plan_hold(key, "same", 1)
        answers = await asyncio.gather(
            keys.hold(key, hold),
            keys.hold(key, again),
            keys.spending(key),
            return_exceptions=True,
        )
        assert answers[0] is None
        assert isinstance(answers[1], Exception)
        assert isinstance(answers[2], Spending)
        assert (await keys.spending(key)).day_held == 1

    @settings(max_examples=15)
    @given(amounts=st.lists(st.integers(1, 40), max_size=30), limit=st.integers(1, 100))
    def test_never_more_than_the_limit(self, amounts: list[int], limit: int) -> None:
        async def run() -> None:
            keys = Keys.open("sqlite://")
            key, _ = keys.create("one", per_day=Decimal(limit) / PICO_PER_DOLLAR)
            holds = [keys.plan_hold(key, new_id(), amount) for amount in amounts]
            done = await asyncio.gather(
                *(keys.hold(key, hold) for hold in holds), return_exceptions=True
            )
            held = [h for h, end in zip(holds, done, strict=True) if end is None]
            spending = await keys.spending(key)
            assert spending.day_held == sum(h.amount for h in held) <= limit
            for hold in held:
                keys.settle(hold, hold.amount // 2)
            spending = await keys.spending(key)
            assert spending.day_held == 0
            assert spending.day_spent == sum(h.amount // 2 for h in held)
            await keys.close()

        asyncio.run(run())

    def test_several_processes_never_overshoot(self, keys: Keys, tmp_path: Path) -> None:
        key, _ = keys.create("one", per_day=Decimal(100) / PICO_PER_DOLLAR)
        context = multiprocessing.get_context("spawn")
        with context.Pool(2) as pool:
            held = pool.map(hold_many, [(str(tmp_path / "l.db"), key)] * 2)
        ((_, spending),) = keys.all()
        assert sum(held) == spending.day_held == 98  # 14 holds of 7


def hold_many(what: tuple[str, module.Key]) -> int:
    """Hold 7 pico-dollars as often as it goes, in a process of its own."""
    where, key = what

    async def run() -> int:
        keys = Keys.open(where)
        holds = [keys.plan_hold(key, new_id(), 7) for _ in range(20)]
        done = await asyncio.gather(*(keys.hold(key, h) for h in holds), return_exceptions=True)
        await keys.close()
        return sum(h.amount for h, end in zip(holds, done, strict=True) if end is None)

    return asyncio.run(run())


class TestWhatADeadProcessLeaves:
    """A hold whose entry is closed, and whose process is gone, is settled as the ledger says."""

    async def test_is_charged_as_the_ledger_says(
        self, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "SETTLED_LATE_S", -1.0)
        key, _ = keys.create("one", per_day=Decimal(1))
        with Ledger.open(tmp_path / "l.db") as ledger:
            entry = EntryOpen(
                id=new_id(),
                query_id="q",
                role=Role.WORKER,
                model="m",
                subtask=None,
                attempt=1,
                bound=500,
                bound_usage=Usage(1, 1),
                price=None,
                started_at=time.time(),
            )
            await ledger.begin(entry)
            await keys.hold(key, keys.plan_hold(key, entry.id, 500))
            unsent = keys.plan_hold(key, new_id(), 300)
            await keys.hold(key, unsent)
            self._reap(keys)
            assert (await keys.spending(key)).day_held == 800  # open: not ended yet
        self._reap(keys)  # closing the ledger made the entry unknown, at its bound
        assert await keys.spending(key) == (500, 300, 500, 300)
        monkeypatch.setattr(module, "NEVER_SENT_S", -1.0)
        self._reap(keys)
        assert await keys.spending(key) == (500, 0, 500, 0)

    @staticmethod
    def _reap(keys: Keys) -> None:
        keys._do_now(module._reap)


async def test_whose_trace_it_is(keys: Keys) -> None:
    key, _ = keys.create("one")
    keys.record(key, "trace")
    assert await keys.owner("trace") == key.id
    assert await keys.owner("other") is None


def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database, but a text that is long enough " * 9)
    with pytest.raises(LedgerError, match="not a database"):
        Keys.open(tmp_path / "no.db")
