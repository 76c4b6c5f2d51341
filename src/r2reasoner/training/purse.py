"""One purse for all workers of a run: the dollar cap, the gates of endpoints, and the ledger.

Before a call is dispatched, its worker asks the purse. The purse waits until the call's endpoint
(and card) has a free slot and its bound fits under the cap, records it in the ledger, and says
yes; the settled call comes back the same way. So the cap and the limits hold across workers as
they do within one process, the books are written by one process, on the machine that the run was
started on, and workers need no way to the database.

A worker that is not heard of for `LEASE_S` is dead: its open calls become `unknown`, charged at
their bound, and its slots are free again. If the purse itself dies, nothing is dispatched any more.

Written without Ray, which `ray_engine` puts between the two classes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from r2reasoner.errors import LedgerError, R2Error
from r2reasoner.evaluation.spending import SpendingLedger
from r2reasoner.ledger import EntryOpen, Ledger
from r2reasoner.pool.cards import Card, Endpoint
from r2reasoner.types import Call, CallOutcome, Pico, Trace, Usage

if TYPE_CHECKING:
    from r2reasoner.storage import Store

LEASE_S: Final = 30.0
BEAT_S: Final = 1.0


class Halt(StrEnum):
    """Whether a run goes on. `stop`: begin no more rows; `break off`: end those in flight too."""

    NO = "no"
    STOP = "stop"
    BREAK_OFF = "break off"


class Standing(NamedTuple):
    """What a run has spent (pico-dollars), how many of its calls had no price, if it goes on."""

    spent: Pico
    unpriced: int
    halt: Halt


class Halted(R2Error):
    """The run is being ended: a row was not begun, or a call not dispatched."""


@dataclass(slots=True)
class _Asked:
    """A call that a worker asked for: waiting while `task` is there, open after."""

    worker: str
    entry: EntryOpen
    task: "asyncio.Task[None] | None" = None
    gates: list[asyncio.Semaphore] = field(default_factory=list)


class Purse:
    """Reserves before a call and settles after it, for workers in other processes.

    It serves one event loop. A worker is a name that no other process ever had.
    """

    def __init__(self, where: str, cap: Pico | None, spent: Pico, lease_s: float = LEASE_S) -> None:
        self._ledger = SpendingLedger.open(where)
        self._ledger.cap, self._ledger.spent = cap, spent
        self._lease_s = lease_s
        self._gates: dict[Endpoint | Card, asyncio.Semaphore] = {}
        self._asked: dict[str, _Asked] = {}
        self._given_up: set[str] = set()
        self._heard: dict[str, float] = {}
        self._seats: dict[str, str] = {}
        self._halt = Halt.NO

    async def join(self, worker: str, seat: str) -> None:
        """Take a worker in. Whoever had its seat before is dead."""
        before = self._seats.get(seat)
        self._seats[seat] = worker
        self._heard[worker] = time.monotonic()
        if before is not None:
            self._bury(before)

    async def begin(self, worker: str, entry: EntryOpen) -> None:
        """Wait for the call's slots, reserve its bound and record it.

        Raises CapReached, LedgerError, and Halted while the run is being broken off.
        """
        self._hear(worker)
        if self._halt is Halt.BREAK_OFF:
            raise Halted("the run is being broken off")
        if entry.id in self._given_up:  # overtaken by its own settlement
            raise LedgerError("the call was given up before its dispatch")
        asked = self._asked[entry.id] = _Asked(worker, entry)
        asked.task = asyncio.create_task(self._admit(asked))
        try:
            await asked.task
        except asyncio.CancelledError:
            if entry.id in self._asked:  # not by the call's settlement
                raise
        except Exception:
            self._forget(entry.id)
            raise
        if entry.id not in self._asked:  # its worker may live, in spite of all
            raise LedgerError("the call was given up before its dispatch")
        asked.task = None

    async def finish(self, worker: str, call: Call) -> None:
        """Settle a call; one that a dead worker's end has settled is left as it is."""
        self._hear(worker)
        if call.id in self._asked:
            self._settle(call)
        else:
            self._given_up.add(call.id)

    async def save_trace(self, trace: Trace) -> None:
        """Keep a trace."""
        self._ledger.save_trace(trace)

    async def flush(self) -> None:
        """Return when all that was told before is committed. Raises LedgerError if it is not."""
        await self._ledger.flush()

    async def beat(self, worker: str) -> Standing:
        """Hear a sign of life, and bury those of whom there was none for too long."""
        self._hear(worker)
        now = time.monotonic()
        for other, heard in tuple(self._heard.items()):
            if now - heard > self._lease_s:
                self._bury(other)
        return await self.standing()

    async def standing(self) -> Standing:
        """Return how the run stands."""
        return Standing(self._ledger.spent, self._ledger.unpriced, self._halt)

    async def halt(self, how: Halt) -> None:
        """End the run, when its workers hear of it; once broken off, refuse all further calls."""
        self._halt = how

    async def close(self) -> Standing:
        """Settle what is open, as the end of its workers would, and close the ledger."""
        for worker in tuple(self._heard):
            self._bury(worker)
        standing = await self.standing()
        await self._ledger.close()
        return standing

    def _hear(self, worker: str) -> None:
        self._heard[worker] = time.monotonic()

    async def _admit(self, asked: _Asked) -> None:
        """Wait for a slot of the card, then of the endpoint, then for money; record the call."""
        for what, slots in _limits(asked.entry.card):
            gate = self._gates.setdefault(what, asyncio.Semaphore(slots))
            await gate.acquire()
            asked.gates.append(gate)
        await self._ledger.begin(asked.entry)

    def _settle(self, call: Call) -> None:
        asked = self._forget(call.id)
        if asked.task is not None:
            asked.task.cancel()
        self._ledger.finish(call)

    def _forget(self, call_id: str) -> _Asked:
        asked = self._asked.pop(call_id)
        for gate in asked.gates:
            gate.release()
        return asked

    def _bury(self, worker: str) -> None:
        """Settle what a dead worker asked for: what it was given may have been dispatched."""
        self._heard.pop(worker, None)
        for asked in [asked for asked in self._asked.values() if asked.worker == worker]:
            self._settle(_lost(asked))


class PurseLedger(Ledger):
    """A worker's ledger: whatever it is to record, it asks the purse.

    `ask` calls a method of the purse and gives its result, `tell` does not wait for it. It is
    for writing only: its reading methods raise LedgerError.
    """

    def __init__(
        self,
        worker: str,
        ask: Callable[..., Awaitable[Any]],
        tell: Callable[..., None],
    ) -> None:
        self._store = cast("Store", _Elsewhere())  # and nothing that writes into it
        self._worker = worker
        self._ask = ask
        self._tell = tell

    async def begin(self, entry: EntryOpen, wish: Any = None) -> None:
        """Have a call's bound reserved and the call recorded. Raises what `Purse.begin` does."""
        await self._ask("begin", self._worker, entry)

    def finish(self, call: Call, wish: Any = None) -> None:
        """Have a call settled."""
        self._tell("finish", self._worker, call)

    def save_trace(self, trace: Trace) -> None:
        """Have a trace kept."""
        self._tell("save_trace", trace)

    async def flush(self) -> None:
        """Return when all that was told before is committed. Raises LedgerError if it is not."""
        await self._ask("flush")

    def close_sync(self) -> None:
        """Close nothing: the purse is closed where the run was started."""


class _Elsewhere:
    """Stands where a ledger has its store."""

    def __getattr__(self, name: str) -> NoReturn:
        raise LedgerError("a worker's ledger is written only; read it where the run was started")


def _limits(card: Card | None) -> Iterator[tuple[Endpoint | Card, int]]:
    """Yield what limits the calls in flight of a model that is reached over HTTP, and to how many.

    A model in process has slots of its own in every process.
    """
    if card is not None and card.endpoint.kind == "openai":
        if card.concurrency is not None:
            yield card, card.concurrency
        yield card.endpoint, card.endpoint.concurrency


def _lost(asked: _Asked) -> Call:
    entry, waiting = asked.entry, asked.task is not None
    return Call(
        id=entry.id,
        role=entry.role,
        model=entry.model,
        subtask=entry.subtask,
        attempt=entry.attempt,
        outcome=CallOutcome.FAILED if waiting else CallOutcome.UNKNOWN,
        usage=Usage() if waiting else entry.bound_usage,
        cost=0 if waiting else entry.bound,
        bound=entry.bound,
        started_at=entry.started_at,
        latency_s=max(0.0, time.time() - entry.started_at),
        ttft_s=None,
        finish_reason=None,
        error="its worker ended before its dispatch"
        if waiting
        else "its worker ended during this call: bound charged",
        note=entry.note,
    )
