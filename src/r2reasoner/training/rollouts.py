"""Rollouts: what became of a query where the policy in training said something of its own.

The policy in training speaks in one call; everything else (its other calls, the other policy,
the workers, the scorer) runs behind it as it is served, through the router, with the ledger, the
cap and the recorded outcomes. A *turn* is a call that the served policy makes on a query: its
messages are the prompt, and a sample for it is put in the place of the served policy's words.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeVar

from r2reasoner.benchmarks.grading import Grade
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.config import Settings
from r2reasoner.errors import R2Error
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import new_id
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.router import Router
from r2reasoner.training.rewards import Judged, judge
from r2reasoner.types import Message, Pico, Query, Role, Trace, Usage

T = TypeVar("T")
IN_FLIGHT: Final = 64


class TrainingLedger(SpendingLedger):
    """A ledger of calls that keeps no traces: rollouts are many, samples of them are kept."""

    def save_trace(self, trace: Trace) -> None:
        """Keep nothing."""


@dataclass(frozen=True, slots=True)
class Item:
    """A training query. `reference`: what the strongest model costs on it, in pico-dollars.

    `pool` names the pool whose workers have not seen it.
    """

    query: str
    gold: str
    family: str
    reference: Pico
    pool: str = "main"


class Turn(NamedTuple):
    """One call of the policy in training: what it is asked, on which query, at which dial."""

    item: Item
    trade_off: float
    messages: tuple[Message, ...]
    subtask: int | None

    @property
    def asked(self) -> str:
        """The last message: all that a policy in the line format reads."""
        return self.messages[-1].content


class Sample(NamedTuple):
    """What the policy in training said: its text, and tokens read and written."""

    text: str
    prompt_tokens: int
    tokens: int
    cut: bool


class _Listening:
    """A client that notes what one policy is asked."""

    def __init__(self, inner: Client, card: Card, role: Role) -> None:
        self._inner = inner
        self._card = card
        self._role = role
        self.heard: list[ChatRequest] = []

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        if request.role is self._role and request.rank == 0:
            self.heard.append(request)
        return await self._inner.complete(card, request, meter, deadline)

    def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncIterator[str | Completion]:
        return self._inner.stream(card, request, meter, deadline)

    async def close(self) -> None:
        """Leave the inner client open: it is shared."""


class _Speaking(_Listening):
    """A client in which a sample stands for one call of the policy in training."""

    def __init__(self, inner: Client, card: Card, role: Role, turn: Turn, sample: Sample) -> None:
        super().__init__(inner, card, role)
        self._turn = turn
        self._sample = sample

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        mine = request.role is self._role and request.rank == 0
        if not mine or request.messages != self._turn.messages:
            return await self._inner.complete(card, request, meter, deadline)
        sample = self._sample
        usage = Usage(sample.prompt_tokens, sample.tokens)
        cost = None if card.price is None else card.price.cost(usage)
        finish = "length" if sample.cut else "stop"
        meter.recorded(
            card,
            role=request.role,
            subtask=request.subtask,
            usage=usage,
            cost=cost,
            latency_s=0.0,
            finish_reason=finish,
            note="sampled in training",
        )
        return Completion(sample.text, usage, cost, card.name, finish, 0.0, None, 0)


@dataclass(slots=True)
class Counts:
    """What went wrong behind the reward: rollouts that failed, and groups dropped for it."""

    rollouts: int = 0
    failed: int = 0
    dropped_groups: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Rollouts:
    """Runs turns with samples over pools with served policies; one event loop, in a thread.

    `pools` maps a pool's name to the pool that its items are run on. Stop it with `close`.
    """

    def __init__(
        self,
        pools: dict[str, Pool],
        settings: Settings,
        client: Client,
        ledger: SpendingLedger,
        grades: Mapping[str, Grade],
        *,
        timeout_s: float = 120.0,
    ) -> None:
        self._pools = pools
        self._settings = settings
        self._client = client
        self._ledger = ledger
        self._grades = grades
        self._timeout_s = timeout_s
        self._routers: dict[tuple[str, float], Router] = {}
        self._known: dict[tuple[Turn, str, bool], Judged | None] = {}
        self._stop: R2Error | None = None
        self._gate = asyncio.Semaphore(IN_FLIGHT)
        self.counts = Counts()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the rollouts and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        """Close client and ledger and end the thread."""

        async def end() -> None:
            await self._client.close()
            await self._ledger.flush()

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def serve(self, pools: dict[str, Pool]) -> None:
        """Take pools with newly served policies; what was known of the old ones is forgotten."""
        self._pools = pools
        self._routers.clear()
        self._known.clear()

    def _router(self, pool: str, trade_off: float) -> Router:
        key = (pool, trade_off)
        if key not in self._routers:
            settings = replace(self._settings, trade_off=trade_off)
            self._routers[key] = Router.open(
                self._pools[pool], settings, self._ledger, client=self._client
            )
        return self._routers[key]

    def turns(self, items: Sequence[Item], dials: Sequence[float], role: Role) -> list[list[Turn]]:
        """Return, item by item, the calls that the served policy makes on it at a dial.

        `dials` are the settings, one for each item.
        """

        async def one(item: Item, trade_off: float) -> list[Turn]:
            async with self._gate:
                router = self._router(item.pool, trade_off)
                card = _card(router.pool, role)
                listening = _Listening(self._client, card, role)
                await replace(router, client=listening).trace(Query(item.query, new_id()))
            heard = {r.messages: r for r in listening.heard}
            return [Turn(item, trade_off, m, r.subtask) for m, r in heard.items()]

        async def everything() -> list[list[Turn]]:
            return await asyncio.gather(*(one(i, t) for i, t in zip(items, dials, strict=True)))

        return self.run(everything())

    def judge_all(
        self, role: Role, turns: Sequence[Turn], samples: Sequence[Sample]
    ) -> list[Judged | None]:
        """Return what became of each turn with its sample; None where it failed or hung.

        Raises CapReached where the training's dollar cap is reached.
        """

        async def everything() -> list[Judged | None]:
            wanted = {(t, s.text, s.cut): (t, s) for t, s in zip(turns, samples, strict=True)}
            new = {key: ts for key, ts in wanted.items() if key not in self._known}
            found = await asyncio.gather(*(self._judge(role, t, s) for t, s in new.values()))
            self._known.update(zip(new, found, strict=True))
            return [self._known[t, s.text, s.cut] for t, s in zip(turns, samples, strict=True)]

        judged = self.run(everything())
        self.counts.rollouts += len(judged)
        self.counts.failed += sum(j is None for j in judged)
        if self._stop is not None:
            raise self._stop
        return judged

    async def _judge(self, role: Role, turn: Turn, sample: Sample) -> Judged | None:
        try:
            async with self._gate, asyncio.timeout(self._timeout_s):
                trace = await self.trace(role, turn, sample)
                verdict = self._grades[turn.item.family](trace.answer.text, turn.item.gold)
        except CapReached as reached:
            self._stop = reached
            return None
        except (R2Error, TimeoutError, ArithmeticError, ValueError) as error:
            reason = type(error).__name__
            self.counts.reasons[reason] = self.counts.reasons.get(reason, 0) + 1
            return None
        return None if verdict is None else judge(trace, verdict)

    async def trace(self, role: Role, turn: Turn, sample: Sample) -> Trace:
        """Run one turn with a sample in the served policy's place, and return its Trace."""
        router = self._router(turn.item.pool, turn.trade_off)
        speaking = _Speaking(self._client, _card(router.pool, role), role, turn, sample)
        return await replace(router, client=speaking).trace(Query(turn.item.query, new_id()))

    def traces(self, items: Sequence[Item], trade_off: float) -> list[Trace]:
        """Return the traces of items under the policies as they are served."""

        async def one(item: Item) -> Trace:
            async with self._gate:
                router = self._router(item.pool, trade_off)
                return await router.trace(Query(item.query, new_id()))

        async def everything() -> list[Trace]:
            return await asyncio.gather(*(one(item) for item in items))

        return self.run(everything())

    def answers(self, items: Sequence[Item], trade_off: float) -> list[Judged | None]:
        """Answer items with the policies as they are served: what training is measured by."""

        async def one(item: Item) -> Judged | None:
            with suppress(R2Error):
                async with self._gate:
                    router = self._router(item.pool, trade_off)
                    trace = await router.trace(Query(item.query, new_id()))
                    verdict = self._grades[item.family](trace.answer.text, item.gold)
                return None if verdict is None else judge(trace, verdict)
            return None

        async def everything() -> list[Judged | None]:
            return await asyncio.gather(*(one(item) for item in items))

        return self.run(everything())


def _card(pool: Pool, role: Role) -> Card:
    return pool.card(pool.decomposer if role is Role.DECOMPOSER else pool.allocator)
