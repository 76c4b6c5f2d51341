import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from calls import until
from r2reasoner.budget import Meter
from r2reasoner.errors import LedgerError
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.training.purse import Halt, Halted, Purse, PurseLedger
from r2reasoner.types import CallOutcome, Role, Usage

ENDPOINT = Endpoint(name="e", kind="openai", base_url="http://127.0.0.1:1/v1", concurrency=3)
CARD = Card(name="m", endpoint=ENDPOINT, model="m", price=Price(Decimal(1), Decimal(1)))
BOUND = Usage(100, 100)
BOUND_COST = 200 * 10**6
USED = Usage(5, 5)
USED_COST = 10 * 10**6


class Line:
    """The line between a worker and the purse: messages arrive in turn, as over Ray."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self._told: set[asyncio.Task[Any]] = set()

    def _send(self, method: str, *arguments: Any) -> "asyncio.Task[Any]":
        task = asyncio.create_task(getattr(self._purse, method)(*arguments))
        self._told.add(task)
        return task

    async def ask(self, method: str, *arguments: Any) -> Any:
        return await asyncio.shield(self._send(method, *arguments))

    def tell(self, method: str, *arguments: Any) -> None:
        self._send(method, *arguments)


@pytest.fixture
async def purse(tmp_path: Path) -> AsyncIterator[Purse]:
    opened = Purse(str(tmp_path / "ledger.db"), 10 * BOUND_COST, 0)
    yield opened
    await opened.close()


async def hire(purse: Purse, seat: str) -> PurseLedger:
    line = Line(purse)
    name = new_id()
    await purse.join(name, seat)
    return PurseLedger(name, line.ask, line.tell)


async def call(
    ledger: Ledger,
    card: Card = CARD,
    used: Usage = USED,
    during: Callable[[], Awaitable[Any]] = lambda: asyncio.sleep(0),
) -> None:
    meter = Meter(ledger, new_id())
    opened = await meter.open(card, BOUND, role=Role.WORKER, subtask=1, attempt=1, note=None)
    await during()
    meter.settle(opened, CallOutcome.OK, usage=used, latency_s=0.0)


class Held:
    """Calls that are under way until they may go on; `count` of them by now."""

    def __init__(self) -> None:
        self.count = 0
        self.go = asyncio.Event()

    async def __call__(self) -> None:
        self.count += 1
        await self.go.wait()

    async def reached(self, count: int) -> None:
        await until(lambda: self.count == count)
        await turns()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_cap_holds_for_all_workers_together(tmp_path: Path) -> None:
    purse = Purse(str(tmp_path / "ledger.db"), 5 * BOUND_COST // 2, 0)
    workers = [await hire(purse, f"seat {n}") for n in range(4)]
    calls = [call(worker, used=BOUND) for worker in workers for _ in range(3)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, CapReached) for end in ends) == 10
    assert "the cap of $0.0005" in str(next(e for e in ends if isinstance(e, CapReached)))
    await workers[0].flush()
    assert (await purse.close())[:2] == (2 * BOUND_COST, 0)
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert ledger.totals()[:3] == (2, 0, 0)
        assert ledger.totals().cost == 2 * BOUND_COST


async def test_what_turns_out_cheaper_makes_room(purse: Purse) -> None:
    workers = [await hire(purse, f"seat {n}") for n in range(4)]
    await asyncio.gather(*(call(worker) for worker in workers for _ in range(30)))
    await turns()
    assert (await purse.standing()).spent == 120 * USED_COST


async def test_what_was_spent_before_counts(tmp_path: Path) -> None:
    purse = Purse(str(tmp_path / "ledger.db"), BOUND_COST, 1)
    with pytest.raises(CapReached):
        await call(await hire(purse, "seat"))
    assert (await purse.close()).spent == 1


@pytest.mark.parametrize(("limit", "expected"), [(None, 3), (2, 2), (9, 3)])
async def test_an_endpoints_and_a_cards_slots_are_shared_by_workers(
    purse: Purse, limit: int | None, expected: int
) -> None:
    card = Card(name="m", endpoint=ENDPOINT, model="m", price=CARD.price, concurrency=limit)
    now = most = 0

    async def during() -> None:
        nonlocal now, most
        now += 1
        most = max(now, most)
        await turns(50)
        now -= 1

    workers = [await hire(purse, f"seat {n}") for n in range(4)]
    await asyncio.gather(*(call(worker, card, during=during) for worker in workers for _ in "abc"))
    assert most == expected


async def test_models_in_process_pass_no_gate(purse: Purse) -> None:
    endpoint = Endpoint(name="e", kind="embedded", path=Path("/"), concurrency=1)
    card = Card(name="m", endpoint=endpoint, model="m", price=CARD.price)
    both = asyncio.Barrier(2)
    worker = await hire(purse, "seat")
    await asyncio.gather(*(call(worker, card, during=both.wait) for _ in "ab"))


@pytest.mark.parametrize("how", ["its seat is taken", "it is silent", "the run ends"])
async def test_a_dead_workers_calls_are_charged_at_their_bound(tmp_path: Path, how: str) -> None:
    purse = Purse(str(tmp_path / "ledger.db"), 10 * BOUND_COST, 0, lease_s=0.1)
    dead, held = await hire(purse, "seat"), Held()
    lost = [asyncio.create_task(call(dead, during=held)) for _ in range(5)]
    await held.reached(3)  # the others wait at the gate
    if how == "its seat is taken":
        await hire(purse, "seat")
    elif how == "it is silent":
        other = (await hire(purse, "other"))._worker
        await asyncio.sleep(0.2)
        await purse.beat(other)
    if how != "the run ends":
        alive = await hire(purse, "third seat")
        await asyncio.gather(*(call(alive) for _ in range(3)))
        await turns()
    standing = await purse.close()
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        entries = ledger.entries()
    unknown = [e for e in entries if e.outcome is CallOutcome.UNKNOWN]
    assert [e.cost for e in unknown] == [BOUND_COST] * 3
    assert "its worker ended during this call" in str(unknown[0].error)
    others = [e for e in entries if e.outcome is CallOutcome.OK]
    assert len(others) == len(entries) - 3 == (0 if how == "the run ends" else 3)
    assert standing.spent == 3 * BOUND_COST + USED_COST * len(others)
    for task in lost:
        task.cancel()
    await asyncio.gather(*lost, return_exceptions=True)


async def test_a_settlement_that_comes_after_the_burial_changes_nothing(purse: Purse) -> None:
    held, silent = Held(), await hire(purse, "seat")
    late = asyncio.create_task(call(silent, during=held))
    await held.reached(1)
    await hire(purse, "seat")
    held.go.set()
    await late
    await turns()
    assert (await purse.standing()).spent == BOUND_COST
    await call(silent)  # it lives, and goes on
    await turns()
    assert (await purse.standing()).spent == BOUND_COST + USED_COST


async def test_a_worker_taken_for_dead_dispatches_nothing_that_is_not_recorded(
    tmp_path: Path,
) -> None:
    purse = Purse(str(tmp_path / "ledger.db"), None, 0)
    worker, held = await hire(purse, "seat"), Held()
    calls = [asyncio.create_task(call(worker, during=held)) for _ in range(4)]
    await held.reached(3)
    await hire(purse, "seat")
    with pytest.raises(LedgerError, match="given up before its dispatch"):
        await calls[3]
    held.go.set()
    await asyncio.gather(*calls[:3])
    await turns()
    assert (await purse.close()).spent == 3 * BOUND_COST
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert ledger.totals()[:4] == (3, 0, 0, 3)


async def test_a_call_given_up_while_it_waits_is_not_recorded(tmp_path: Path) -> None:
    purse = Purse(str(tmp_path / "ledger.db"), None, 0)
    worker = await hire(purse, "seat")
    held = Held()
    under_way = [asyncio.create_task(call(worker, during=held)) for _ in range(3)]
    await held.reached(3)
    waiting = asyncio.create_task(call(worker))
    await turns()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await turns()
    held.go.set()
    await asyncio.gather(*under_way)
    again = Held()
    once_more = [asyncio.create_task(call(worker, during=again)) for _ in range(3)]
    await again.reached(3)  # all slots are free
    again.go.set()
    await asyncio.gather(*once_more)
    await worker.flush()
    assert (await purse.close()).spent == 6 * USED_COST
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert ledger.totals()[:4] == (6, 0, 0, 0)


async def test_a_settlement_may_overtake_what_it_settles(purse: Purse) -> None:
    worker = await hire(purse, "seat")
    meter = Meter(worker, new_id())
    begun: list[Any] = []

    async def remember(method: str, *arguments: Any) -> None:
        begun.append(arguments)
        await asyncio.Event().wait()

    worker._ask = remember
    opening = asyncio.create_task(
        meter.open(CARD, BOUND, role=Role.WORKER, subtask=1, attempt=1, note=None)
    )
    await turns()
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await turns()
    with pytest.raises(LedgerError, match="given up before its dispatch"):
        await purse.begin(*begun[0])  # arrives after the settlement
    assert (await purse.standing()).spent == 0
    await purse.flush()
    assert (await purse.close()).spent == 0


async def test_a_run_that_stops_lets_its_rows_end(purse: Purse) -> None:
    worker = await hire(purse, "seat")
    await purse.halt(Halt.STOP)
    await call(worker)
    await turns()
    assert await purse.beat(worker._worker) == (USED_COST, 0, Halt.STOP)


async def test_a_run_that_is_broken_off_dispatches_nothing_but_settles(purse: Purse) -> None:
    worker, held = await hire(purse, "seat"), Held()
    under_way = asyncio.create_task(call(worker, during=held))
    await held.reached(1)
    await purse.halt(Halt.BREAK_OFF)
    with pytest.raises(Halted):
        await call(worker)
    held.go.set()
    await under_way
    await turns()
    assert await purse.beat(worker._worker) == (USED_COST, 0, Halt.BREAK_OFF)


async def test_a_workers_ledger_is_not_read(purse: Purse) -> None:
    worker = await hire(purse, "seat")
    with pytest.raises(LedgerError, match="is written only"):
        worker.totals()
    with pytest.raises(LedgerError, match="is written only"):
        _ = worker.where
    await worker.close()


async def test_it_goes_on_where_the_ledger_of_the_command_is(tmp_path: Path) -> None:
    """Two processes have one ledger open: the purse, and the command that started the run."""
    with SpendingLedger.open(tmp_path / "ledger.db") as ledger:
        await call(ledger)
        purse = Purse(ledger.where, None, ledger.spent)
        await call(await hire(purse, "seat"))
        await turns()
        assert (await purse.close()).spent == 2 * USED_COST
        await ledger.flush()
        assert ledger.totals().cost == 2 * USED_COST
