import asyncio
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2reasoner.budget import Meter, OpenCall
from r2reasoner.errors import BudgetExceeded, ConfigError, LedgerError
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.pool.cards import Card, Endpoint, Price, Tier
from r2reasoner.types import Call, CallOutcome, Pico, Role, Usage, to_pico

OK, FAILED, UNKNOWN = CallOutcome.OK, CallOutcome.FAILED, CallOutcome.UNKNOWN
BOUND = Usage(1000, 500)
ENDPOINT = Endpoint(name="here", kind="openai", base_url="http://127.0.0.1:1/v1")
PRICE = Price(Decimal("0.15"), Decimal("0.60"), Decimal("0.075"))


def card(price: Price | None = PRICE) -> Card:
    return Card(name="small", endpoint=ENDPOINT, model="small-1", price=price)


def tiered(rates: str, above_800: str) -> Price:
    given, made = map(Decimal, rates.split())
    return Price(given, made, tiers=(Tier(800, *map(Decimal, above_800.split())),))


CARD = card()
COST_OF_BOUND = PRICE.cost(BOUND)


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    with Ledger.in_memory() as ledger:
        yield ledger


@pytest.fixture
def query_id() -> str:
    return new_id()


@pytest.fixture
def meter(ledger: Ledger, query_id: str) -> Meter:
    return Meter(ledger, query_id)


async def opened(meter: Meter, card: Card = CARD, bound: Usage = BOUND) -> OpenCall:
    return await meter.open(card, bound, role=Role.WORKER, subtask=2, attempt=1, note=None)


def settled(
    meter: Meter, call: OpenCall, outcome: CallOutcome = OK, usage: Usage | None = None
) -> Call:
    return meter.settle(call, outcome, usage=usage, latency_s=0.5)


async def test_a_reservation_becomes_a_cost(ledger: Ledger, query_id: str) -> None:
    meter = Meter(ledger, query_id, cap=to_pico("0.01"))
    call = await opened(meter)
    assert (meter.reserved, meter.spent) == (COST_OF_BOUND, 0)
    assert meter.left() == to_pico("0.01") - COST_OF_BOUND

    usage = Usage(400, 100, cached_tokens=100)
    closed = meter.settle(
        call, OK, usage=usage, latency_s=1.5, ttft_s=0.25, finish_reason="stop", error=None
    )
    assert closed.cost == PRICE.cost(usage)
    assert (meter.reserved, meter.spent) == (0, closed.cost)
    assert meter.calls == [closed]

    await ledger.flush()
    (entry,) = ledger.entries(query_id=query_id)
    for name in Call.__dataclass_fields__:
        assert getattr(entry, name) == getattr(closed, name), name
    assert (entry.query_id, entry.price) == (query_id, PRICE)


@pytest.mark.parametrize(
    ("outcome", "usage", "charged", "note"),
    [
        (OK, Usage(10, 10), Usage(10, 10), None),
        (OK, Usage(9000, 9000), Usage(9000, 9000), None),
        (OK, None, BOUND, "usage missing: bound charged"),
        (OK, Usage(-5, 10), BOUND, "usage impossible: bound charged"),
        (OK, Usage(5, 10, cached_tokens=6), BOUND, "usage impossible: bound charged"),
        (OK, Usage(10**30, 1), BOUND, "usage impossible: bound charged"),
        (FAILED, None, Usage(), None),
        (FAILED, Usage(10, 10), Usage(), None),
        (UNKNOWN, None, BOUND, None),
        (UNKNOWN, Usage(10, 10), BOUND, None),
    ],
)
async def test_what_each_outcome_is_charged(
    meter: Meter, outcome: CallOutcome, usage: Usage | None, charged: Usage, note: str | None
) -> None:
    call = settled(meter, await opened(meter), outcome, usage)
    assert (call.outcome, call.usage, call.note) == (outcome, charged, note)
    assert call.cost == PRICE.cost(charged) == meter.spent
    assert meter.reserved == 0


async def test_a_note_of_the_caller_stays_beside_ours(meter: Meter) -> None:
    call = await meter.open(
        CARD, BOUND, role=Role.FINAL, subtask=None, attempt=3, note="repair of the plan"
    )
    assert settled(meter, call).note == "repair of the plan; usage missing: bound charged"


async def test_an_unknown_price_stays_unknown(meter: Meter) -> None:
    unpriced = card(price=None)
    assert meter.fits(unpriced, BOUND)
    for outcome, cost in ((OK, None), (UNKNOWN, None), (FAILED, 0)):
        call = await opened(meter, unpriced)
        assert call.bound is None
        assert settled(meter, call, outcome, Usage(1, 1)).cost == cost
    assert (meter.spent, meter.reserved) == (0, 0)


async def test_an_unknown_price_cannot_be_held_to_a_budget(ledger: Ledger) -> None:
    meter = Meter(ledger, "q", cap=to_pico(1))
    assert not meter.fits(card(price=None), BOUND)
    with pytest.raises(BudgetExceeded, match="set input_price and output_price in the pool file"):
        await opened(meter, card(price=None))


async def test_what_does_not_fit_is_neither_reserved_nor_recorded(
    ledger: Ledger, query_id: str
) -> None:
    meter = Meter(ledger, query_id, cap=2 * COST_OF_BOUND - 1)
    assert meter.fits(CARD, BOUND)
    first = await opened(meter)
    assert not meter.fits(CARD, BOUND)
    with pytest.raises(BudgetExceeded, match=r"up to \$0\.00045, but only \$0\.000449999999 is"):
        await opened(meter)
    assert meter.reserved == COST_OF_BOUND

    settled(meter, first, FAILED)
    await opened(meter)
    await ledger.flush()
    assert len(ledger.entries(query_id=query_id)) == 2


@pytest.mark.parametrize(
    ("price", "dearest"),
    [
        (Price(Decimal(1), Decimal(2), cached=Decimal(3)), Usage(1000, 500, cached_tokens=1000)),
        (tiered("5 9", "1 2"), Usage(800, 500)),
        (tiered("1 2", "5 9"), Usage(1000, 500)),
        (tiered("1 2", "1 2 7"), Usage(1000, 500, cached_tokens=1000)),
    ],
)
async def test_the_bound_is_the_dearest_usage_within_it(
    meter: Meter, price: Price, dearest: Usage
) -> None:
    call = await opened(meter, card(price))
    assert call.bound == price.cost(dearest)
    assert settled(meter, call, OK, dearest).cost == call.bound


async def test_a_cap_is_not_negative(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="0 dollars or more"):
        Meter(ledger, "q", cap=-1)
    assert not Meter(ledger, "q", cap=0).fits(CARD, BOUND)
    free = card(Price(Decimal(0), Decimal(0)))
    assert (await opened(Meter(ledger, "q", cap=0), free)).bound == 0


async def test_a_call_is_settled_once_and_by_its_own_meter(ledger: Ledger, meter: Meter) -> None:
    call = await opened(meter)
    with pytest.raises(RuntimeError, match="not open on this meter"):
        settled(Meter(ledger, "another"), call)
    with pytest.raises(ValueError, match="not as open"):
        settled(meter, call, CallOutcome.OPEN)
    settled(meter, call, OK, BOUND)
    with pytest.raises(RuntimeError, match="settled before"):
        settled(meter, call, OK, BOUND)
    assert (meter.spent, len(meter.calls)) == (COST_OF_BOUND, 1)


async def test_what_cannot_be_recorded_is_not_reserved() -> None:
    ledger = Ledger.in_memory()
    meter = Meter(ledger, "q", cap=to_pico(1))
    call = await opened(meter)
    await ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        await opened(meter)
    assert meter.reserved == COST_OF_BOUND
    with pytest.raises(LedgerError, match="closed"):
        settled(meter, call, OK, BOUND)
    assert (meter.reserved, meter.spent) == (0, COST_OF_BOUND)


async def test_prices_beyond_the_ledgers_integers_are_refused(meter: Meter) -> None:
    absurd = card(Price(Decimal(10) ** 12, Decimal(1)))
    with pytest.raises(LedgerError, match="dollars per million tokens"):
        await opened(meter, absurd)
    assert meter.reserved == 0


async def test_a_call_cancelled_before_dispatch_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with Ledger.open(path) as ledger:
        meter = Meter(ledger, "q", cap=to_pico(1))
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(opened(meter))
        await asyncio.sleep(0)
        assert meter.reserved == COST_OF_BOUND
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert (meter.reserved, meter.spent) == (0, 0)
        blocker.execute("COMMIT")
        blocker.close()
        await ledger.flush()
        (entry,) = ledger.entries()
        assert (entry.outcome, entry.cost) == (FAILED, 0)
        assert entry.error == "cancelled before dispatch"
        assert [call.id for call in meter.calls] == [entry.id]


async def test_five_hundred_tasks_on_one_budget(ledger: Ledger, query_id: str) -> None:
    fitting = 137
    meter = Meter(ledger, query_id, cap=fitting * COST_OF_BOUND + COST_OF_BOUND // 2)
    assert meter.cap is not None
    dispatched = refused = in_flight = most = 0

    async def call(number: int) -> None:
        nonlocal dispatched, refused, in_flight, most
        try:
            call = await opened(meter)
        except BudgetExceeded:
            refused += 1
            return
        dispatched += 1
        in_flight += 1
        most = max(most, in_flight)
        assert meter.cap is not None
        assert meter.reserved + meter.spent <= meter.cap
        for _ in range(number % 7):
            await asyncio.sleep(0)
        outcome = (OK, OK, FAILED, UNKNOWN)[number % 4]
        settled(meter, call, outcome, Usage(number * 2, number))
        in_flight -= 1

    for _ in range(2):
        await asyncio.gather(*(call(number) for number in range(500)))
    assert most > 100
    assert dispatched + refused == 1000
    assert dispatched >= fitting
    assert refused > 0
    assert meter.reserved == 0
    assert meter.spent <= meter.cap
    await ledger.flush()
    entries = ledger.entries(query_id=query_id)
    assert len(entries) == dispatched == len(meter.calls)
    assert sum(entry.cost or 0 for entry in entries) == meter.spent
    assert ledger.totals(query_id=query_id).cost == meter.spent


rates = st.decimals("0", "100", places=4)
tiers = st.lists(
    st.builds(Tier, st.integers(1, 3000), rates, rates, st.none() | rates), max_size=2
).map(lambda found: tuple(sorted(found, key=lambda tier: tier.above)))
prices = st.builds(Price, rates, rates, st.none() | rates, st.just("here"), tiers)
tokens = st.integers(0, 4000)
fractions = st.sampled_from([Fraction(0), Fraction(1)]) | st.fractions(0, 1)
steps = st.lists(
    st.tuples(
        st.just("open"), prices, st.builds(Usage, tokens, tokens)
    )
    | st.tuples(st.just("settle"), st.integers(0, 50), st.sampled_from([OK, OK, FAILED, UNKNOWN]),
                st.none() | st.tuples(fractions, fractions, fractions)),
    max_size=30,
)  # fmt: skip


@given(cap=st.integers(0, 2 * 10**12), steps=steps)
@settings(max_examples=60, deadline=None)
def test_no_interleaving_passes_the_cap(ledger: Ledger, cap: Pico, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    query_id = new_id()
    meter = Meter(ledger, query_id, cap=cap)
    open_calls: list[OpenCall] = []

    def check() -> None:
        assert meter.reserved == sum(call.bound or 0 for call in open_calls)
        assert meter.reserved + meter.spent <= cap

    def settle(call: OpenCall, outcome: CallOutcome, shares: tuple | None) -> None:  # type: ignore[type-arg]
        usage = None
        if shares is not None:
            inputs = int(call.bound_usage.input_tokens * shares[0])
            outputs = int(call.bound_usage.output_tokens * shares[1])
            usage = Usage(inputs, outputs, cached_tokens=int(inputs * shares[2]))
        before = meter.spent
        cost = settled(meter, call, outcome, usage).cost
        assert cost is not None
        assert 0 <= cost <= (call.bound or 0)
        assert meter.spent == before + cost

    async def run() -> None:
        for kind, *args in steps:
            if kind == "open":
                price, bound = args
                fits = meter.fits(card(price), bound)
                try:
                    open_calls.append(await opened(meter, card(price), bound))
                    assert fits
                except BudgetExceeded:
                    assert not fits
            elif open_calls:
                settle(open_calls.pop(args[0] % len(open_calls)), args[1], args[2])
            check()
        while open_calls:
            settle(open_calls.pop(), UNKNOWN, None)
            check()
        await ledger.flush()

    asyncio.run(run())
    entries = ledger.entries(query_id=query_id)
    assert sum(entry.cost or 0 for entry in entries) == meter.spent
    assert {entry.id for entry in entries} == {call.id for call in meter.calls}
