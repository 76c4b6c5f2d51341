"""Keys and their budgets: against real databases, by several threads and processes."""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from decimal import Decimal
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_samples import entry
from r2reasoner.errors import ConfigError, LedgerError
from r2reasoner.gateway import key_books
from r2reasoner.gateway import keys as module
from r2reasoner.gateway.keys import Hold, Key, Keys, OverBudget, OverRate, Spending
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.types import PICO_PER_DOLLAR, to_pico

if TYPE_CHECKING:
    from postgres import Cluster


@pytest.fixture
def keys(db: str) -> Iterator[Keys]:
    opened = Keys.open(db)
    yield opened
    opened.close_sync()


async def hold_on(keys: Keys, key: Key, hold: Hold) -> None:
    """Hold money as a call does. Raises OverBudget."""
    left = await keys.ledger.ask(keys.placing(key, hold))
    if left is not None:
        raise OverBudget(key, hold.amount, left)


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


class TestKeys:
    async def test_the_secret_is_kept_nowhere(self, tmp_path: Path) -> None:
        keys = Keys.open(tmp_path / "l.db")
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
        self, keys: Keys, db: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "FRESH_S", 0.0)
        _, secret = keys.create("one")
        assert await keys.find(secret) is not None
        other = Keys.open(db)
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
        await hold_on(keys, key, first)
        assert await keys.spending(key) == (0, first.amount, 0, first.amount)
        with pytest.raises(OverBudget, match=r"\$0.25 is left") as error:
            await hold_on(keys, key, keys.plan_hold(key, new_id(), to_pico("0.26")))
        assert error.value.left == to_pico("0.25")
        keys.ledger.put(keys.settling(first, to_pico("0.1")))
        keys.ledger.put(keys.settling(first, to_pico("0.1")))  # again: nothing happens
        spending = await keys.spending(key)
        assert spending == (to_pico("0.1"), 0, to_pico("0.1"), 0)
        assert spending.left(key) == to_pico("0.9")

    async def test_the_month_counts_too(self, keys: Keys) -> None:
        key, _ = keys.create("one", per_day=Decimal(5), per_month=Decimal(1))
        with pytest.raises(OverBudget):
            await hold_on(keys, key, keys.plan_hold(key, new_id(), to_pico(2)))
        assert await keys.spending(key) == (0, 0, 0, 0)

    async def test_without_a_limit_all_fits_and_is_counted(self, keys: Keys) -> None:
        key, _ = keys.create("one")
        hold = keys.plan_hold(key, new_id(), to_pico(10**6))
        await hold_on(keys, key, hold)
        keys.ledger.put(keys.settling(hold, 7))
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
            hold_on(keys, key, hold),
            hold_on(keys, key, again),
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
                *(hold_on(keys, key, hold) for hold in holds), return_exceptions=True
            )
            held = [h for h, end in zip(holds, done, strict=True) if end is None]
            spending = await keys.spending(key)
            assert spending.day_held == sum(h.amount for h in held) <= limit
            for hold in held:
                keys.ledger.put(keys.settling(hold, hold.amount // 2))
            spending = await keys.spending(key)
            assert spending.day_held == 0
            assert spending.day_spent == sum(h.amount // 2 for h in held)
            await keys.close()

        asyncio.run(run())

    def test_several_processes_never_overshoot(self, keys: Keys, db: str) -> None:
        """Both begin with keys that have no counters yet, and go through them the other way."""
        made = [
            keys.create(name, per_day=Decimal(300) / PICO_PER_DOLLAR, per_minute=10**6)[0]
            for name in ("one", "two", "three")
        ]
        context = multiprocessing.get_context("spawn")
        with context.Pool(2, begin_together, (context.Barrier(2),)) as pool:
            work = pool.map(hold_many, [(db, made, 100), (db, made[::-1], 100)], chunksize=1)
        held, refused, troubled = (sum(numbers) for numbers in zip(*work, strict=True))
        assert troubled == 0
        assert held == 3 * 294  # 42 holds of 7 on each key
        assert refused == 2 * 300 - 3 * 42
        assert [s.day_held for _, s in keys.all()] == [s.month_held for _, s in keys.all()]
        assert [s.day_held for _, s in keys.all()] == [294] * 3


def begin_together(barrier: Barrier) -> None:
    """Begin when the other process has imported everything too."""
    barrier.wait(60)


def hold_many(what: tuple[str, list[Key], int]) -> tuple[int, int, int]:
    """Hold 7 pico-dollars on each of some keys so many times, in a process of its own.

    Returns how much was held, how many holds did not fit, and how many failed otherwise.
    """
    where, made, times = what

    async def run() -> tuple[int, int, int]:
        keys = Keys.open(where)

        async def one(key: Key) -> None:
            await keys.admit(key)
            await hold_on(keys, key, keys.plan_hold(key, new_id(), 7))

        async def some(count: int) -> list[BaseException | None]:
            found = []
            for _ in range(count):
                found += await asyncio.gather(*map(one, made), return_exceptions=True)
            return found

        ends = [e for part in await asyncio.gather(*map(some, [times // 10] * 10)) for e in part]
        await keys.close()
        refused = sum(isinstance(end, OverBudget) for end in ends)
        return 7 * ends.count(None), refused, len(ends) - ends.count(None) - refused

    return asyncio.run(run())


class TestWhatADeadProcessLeaves:
    """A hold whose entry is closed, and whose process is gone, is settled as the ledger says."""

    async def test_is_charged_as_the_ledger_says(
        self, keys: Keys, db: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_books, "SETTLED_LATE_S", -1.0)
        key, _ = keys.create("one", per_day=Decimal(1))
        with Ledger.open(db) as ledger:
            call = entry(bound=500)
            await ledger.begin(call)
            await hold_on(keys, key, keys.plan_hold(key, call.id, 500))
            unsent = keys.plan_hold(key, new_id(), 300)
            await hold_on(keys, key, unsent)
            assert (await self._reaped(keys, key)).day_held == 800  # open: not ended yet
        # Closing the ledger made the entry unknown, at its bound.
        assert await self._reaped(keys, key) == (500, 300, 500, 300)
        monkeypatch.setattr(key_books, "NEVER_SENT_S", -1.0)
        assert await self._reaped(keys, key) == (500, 0, 500, 0)

    async def test_is_charged_once_by_two_who_find_it(
        self, db: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_books, "SETTLED_LATE_S", -1.0)
        one, two = Keys.open(db), Keys.open(db)
        made = [one.create(name)[0] for name in ("a", "b", "c")]
        for _ in range(5):
            async with Ledger.open(db) as ledger:
                dead = Keys(ledger)
                dead._reap_at = float("inf")
                for key in made * 4:
                    call = entry(bound=7)
                    await ledger.begin(call, dead.placing(key, dead.plan_hold(key, call.id, 7)))
            one._reap_at = two._reap_at = 0.0
            await asyncio.gather(one.spending(made[0]), two.spending(made[-1]))
        for key in made:
            assert await one.spending(key) == (140, 0, 140, 0)
        for keys in (one, two):
            keys.close_sync()

    @staticmethod
    async def _reaped(keys: Keys, key: Key) -> Spending:
        keys._reap_at = 0.0
        return await keys.spending(key)


async def test_whose_trace_it_is(keys: Keys) -> None:
    key, _ = keys.create("one")
    keys.record(key, "trace")
    assert await keys.owner("trace") == key.id
    assert await keys.owner("other") is None
    assert await keys.owner("no\0text for a database\ud800") is None


def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database, but a text that is long enough " * 9)
    with pytest.raises(LedgerError, match="not a database"):
        Keys.open(tmp_path / "no.db")


async def test_while_the_server_is_away_charges_are_kept(postgres: "Cluster") -> None:
    with postgres.schema() as where:
        keys = Keys.open(where)
        free, _ = keys.create("free")
        key, _ = keys.create("limited", per_day=Decimal(1))
        before = keys.plan_hold(key, new_id(), 500)
        await hold_on(keys, key, before)
        postgres.stop(at_once=True)
        try:
            noted = keys.plan_hold(free, new_id(), 300)
            keys.ledger.put(keys.placing(free, noted))
            keys.ledger.put(keys.settling(noted, 200))
            keys.ledger.put(keys.settling(before, 100))
            with pytest.raises(LedgerError, match="postgresql://"):
                await hold_on(keys, key, keys.plan_hold(key, new_id(), 1))
            with pytest.raises(LedgerError, match="3 results or traces not recorded"):
                await keys.flush()
        finally:
            postgres.start()
        assert await keys.spending(free) == (200, 0, 200, 0)
        assert await keys.spending(key) == (100, 0, 100, 0)
        await keys.close()


async def test_amounts_beyond_64_bits_stay_whole(keys: Keys) -> None:
    key, _ = keys.create("one")
    holds = [keys.plan_hold(key, new_id(), 2**63 - 1) for _ in range(3)]
    for hold in holds:
        await hold_on(keys, key, hold)
    assert (await keys.spending(key)).day_held == 2**63 - 1
    for hold in holds:
        keys.ledger.put(keys.settling(hold, 2**63 - 1))
    spent, held, *_ = await keys.spending(key)
    assert (spent, type(spent), held) == (2**63 - 1, int, 0)
