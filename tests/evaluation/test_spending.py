import asyncio
from decimal import Decimal

import pytest

from r2reasoner.budget import Meter
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import new_id
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.types import CallOutcome, Role, Usage

ENDPOINT = Endpoint(name="e", kind="openai", base_url="http://127.0.0.1:1/v1")
CARD = Card(name="m", endpoint=ENDPOINT, model="m", price=Price(Decimal(1), Decimal(1)))
FREE_PRICE = Card(name="u", endpoint=ENDPOINT, model="u", price=None)
BOUND = Usage(100, 100)
BOUND_COST = 200 * 10**6


async def call(ledger: SpendingLedger, card: Card, used: Usage) -> None:
    meter = Meter(ledger, new_id())
    opened = await meter.open(card, BOUND, role=Role.WORKER, subtask=1, attempt=1, note=None)
    await asyncio.sleep(0)
    meter.settle(opened, CallOutcome.OK, usage=used, latency_s=0.0)


async def test_many_calls_at_once_stay_under_the_cap_and_use_what_turns_out_free() -> None:
    used = Usage(5, 5)
    with SpendingLedger.in_memory() as ledger:
        ledger.cap = 2 * BOUND_COST
        await asyncio.gather(*(call(ledger, CARD, used) for _ in range(20)))
        assert (ledger.spent, ledger.reserved) == (20 * 10 * 10**6, 0)
        await ledger.flush()
        assert ledger.totals().cost == ledger.spent


def test_calls_of_a_later_event_loop_wait_for_room_too() -> None:
    async def many() -> None:
        await asyncio.gather(*(call(ledger, CARD, Usage(5, 5)) for _ in range(6)))

    with SpendingLedger.in_memory() as ledger:
        ledger.cap = 2 * BOUND_COST
        for _ in range(2):
            asyncio.run(many())
        assert (ledger.spent, ledger.reserved) == (12 * 10 * 10**6, 0)


async def test_what_cannot_fit_is_refused_before_its_dispatch() -> None:
    with SpendingLedger.in_memory() as ledger:
        ledger.cap = 5 * BOUND_COST // 2
        outcomes = await asyncio.gather(
            *(call(ledger, CARD, BOUND) for _ in range(6)), return_exceptions=True
        )
        refused = [o for o in outcomes if isinstance(o, CapReached)]
        assert len(refused) == 4
        assert "the cap of $0.0005" in str(refused[0])
        assert (ledger.spent, ledger.reserved) == (2 * BOUND_COST, 0)
        await ledger.flush()
        assert ledger.totals().calls == 2


async def test_an_unknown_price_is_counted_without_a_cap_and_refused_with_one() -> None:
    with SpendingLedger.in_memory() as ledger:
        await call(ledger, FREE_PRICE, BOUND)
        assert (ledger.spent, ledger.unpriced) == (0, 1)
        ledger.cap = BOUND_COST
        with pytest.raises(CapReached, match="u: its price is unknown"):
            await call(ledger, FREE_PRICE, BOUND)


async def test_a_call_that_is_cancelled_or_not_recorded_gives_its_reservation_back() -> None:
    with SpendingLedger.in_memory() as ledger:
        ledger.cap = BOUND_COST
        task = asyncio.create_task(call(ledger, CARD, BOUND))
        await asyncio.sleep(0)
        assert ledger.reserved == BOUND_COST
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (ledger.spent, ledger.reserved) == (0, 0)
