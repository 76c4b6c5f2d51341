"""A call and what a key holds or pays for it are recorded together, or not at all."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from pools import price
from r2reasoner.budget import OpenCall
from r2reasoner.errors import BudgetExceeded, LedgerError
from r2reasoner.gateway.keys import Keys, OverBudget
from r2reasoner.gateway.purse import KeyMeter
from r2reasoner.ledger import Ledger
from r2reasoner.pool.cards import Card, Endpoint
from r2reasoner.types import Call, CallOutcome, Pico, Role, Usage

CARD = Card(
    name="small", model="small", endpoint=Endpoint(name="e", kind="openai"), price=price("small")
)
UNPRICED = replace(CARD, price=None)


async def opened(meter: KeyMeter, card: Card = CARD) -> tuple[OpenCall, Pico]:
    call = await meter.open(card, Usage(90, 10), role=Role.WORKER, subtask=1, attempt=1, note=None)
    return call, call.bound or 0


def settle(meter: KeyMeter, call: OpenCall) -> Call:
    return meter.settle(call, CallOutcome.OK, usage=Usage(20, 5), latency_s=0.1)


@pytest.mark.parametrize("per_day", [Decimal(1), None])
async def test_what_is_held_becomes_what_it_cost(tmp_path: Path, per_day: Decimal | None) -> None:
    async with Ledger.open(tmp_path / "l.db") as ledger:
        keys = Keys(ledger)
        key, _ = keys.create("one", per_day=per_day)
        meter = KeyMeter(ledger, "query", None, keys, key)
        call, bound = await opened(meter)
        assert await keys.spending(key) == (0, bound, 0, bound)
        cost = settle(meter, call).cost
        assert await keys.spending(key) == (cost, 0, cost, 0)


async def test_a_call_that_does_not_fit_is_not_recorded(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db") as ledger:
        keys = Keys(ledger)
        key, _ = keys.create("one", per_day=Decimal("0.000000000001"))
        meter = KeyMeter(ledger, "query", None, keys, key)
        with pytest.raises(OverBudget, match="only") as raised:
            await opened(meter)
        assert (meter.over_budget, meter.reserved) == (raised.value, 0)
        assert raised.value.left == 1
        with pytest.raises(BudgetExceeded, match="price is unknown"):
            await opened(meter, UNPRICED)
        await ledger.flush()
        assert ledger.entries() == []
        assert await keys.spending(key) == (0, 0, 0, 0)


async def test_a_call_that_is_not_recorded_holds_nothing(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db") as ledger:
        keys = Keys(ledger)
        key, _ = keys.create("one", per_day=Decimal(1))
        meter = KeyMeter(ledger, "query", None, keys, key)
        call, bound = await opened(meter)
        again = keys.placing(key, keys.plan_hold(key, "another", bound))
        with pytest.raises(LedgerError, match="refuses a row"):  # there is such an entry
            await ledger.begin(call, again)
        assert await keys.spending(key) == (0, bound, 0, bound)


async def test_without_a_budget_a_call_of_unknown_price_is_made_and_costs_nothing(
    tmp_path: Path,
) -> None:
    async with Ledger.open(tmp_path / "l.db") as ledger:
        keys = Keys(ledger)
        key, _ = keys.create("one")
        meter = KeyMeter(ledger, "query", None, keys, key)
        call, _ = await opened(meter, UNPRICED)
        assert settle(meter, call).cost is None
        await ledger.flush()
        assert [entry.outcome for entry in ledger.entries()] == [CallOutcome.OK]
        assert await keys.spending(key) == (0, 0, 0, 0)


async def test_what_nobody_knows_is_charged_at_its_bound(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db") as ledger:
        keys = Keys(ledger)
        key, _ = keys.create("one", per_day=Decimal(1))
        meter = KeyMeter(ledger, "query", None, keys, key)
        call, bound = await opened(meter)
        meter.settle(call, CallOutcome.UNKNOWN, usage=None, latency_s=0.1)
        assert await keys.spending(key) == (bound, 0, bound, 0)
