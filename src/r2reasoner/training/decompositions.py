"""Decomposition data: run candidate plans, score them, keep the best (section "SFT data").

Each candidate is really run on workers that have not seen the item. Its score is a weighted sum,
lower is better: *conciseness* (subtasks), *practicality* (tokens spent to solve them) and
*coherence* (subtasks whose answer nothing uses). The best among the right ones is kept. The
paper keeps the best of all where none is right; we leave such items out and count them, since
the shortest wrong plan is always to answer directly.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from r2reasoner.allocator import uniform
from r2reasoner.budget import Meter
from r2reasoner.client.base import Client
from r2reasoner.errors import PlanError
from r2reasoner.executor import Executor
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.plan import validate
from r2reasoner.pool.cards import Pool
from r2reasoner.types import Answer, Choice, Plan, Query, Task

IN_FLIGHT: Final = 64


class Candidate(Protocol):
    """What a proposer proposes: a plan, and the (asked, written) lines that write it."""

    @property
    def plan(self) -> Plan:
        """The plan."""
        ...

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """What a policy is asked, and what it writes, call by call."""
        ...


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the score, per subtask, per token and per unused subtask.

    Scores that differ by no more than `tolerance` count as equal.
    """

    conciseness: float = 1.0
    practicality: float = 0.1
    coherence: float = 2.0
    tolerance: float = 0.35


class Tried(NamedTuple):
    """A candidate that was run: its score (lower is better) and whether it was right."""

    candidate: Candidate
    score: float
    right: bool


class Searched(NamedTuple):
    """All candidates of an item, and the best right one (None where none is right)."""

    item: Task
    tried: tuple[Tried, ...]
    best: Tried | None


def score(plan: Plan, tokens: int, weights: Weights) -> float:
    """Return a candidate's score; lower is better."""
    used = plan.used_by_answer | {n for s in plan.subtasks for n in s.dependencies}
    unused = len(plan.subtasks) - len(used)
    return (
        weights.conciseness * len(plan.subtasks)
        + weights.practicality * tokens
        + weights.coherence * unused
    )


class Search:
    """Runs candidates on one worker, many at a time."""

    def __init__(self, pool: Pool, client: Client, ledger: Ledger, weights: Weights) -> None:
        self._pool = pool
        self._executor = Executor(client, pool)
        self._ledger = ledger
        self._weights = weights

    async def run(
        self,
        items: Iterable[Task],
        propose: Callable[[str], Sequence[Candidate]],
        say: Callable[[int], None] = lambda done: None,
    ) -> list[Searched]:
        """Search every item; `say` hears how many are done."""
        gate = asyncio.Semaphore(IN_FLIGHT)
        done = 0

        async def one(item: Task) -> Searched:
            nonlocal done
            async with gate:
                tried = [await self._try(item, c) for c in propose(item.query)]
            done += 1
            say(done)
            return Searched(item, tuple(tried), self._best(tried))

        return await asyncio.gather(*(one(item) for item in items))

    def _best(self, tried: Sequence[Tried]) -> Tried | None:
        """Return the first proposed of those right ones that score (nearly) best.

        Policies learn a steady order more easily than one that turns on a token or two.
        """
        right = [t for t in tried if t.right]
        limit = min((t.score for t in right), default=0.0) + self._weights.tolerance
        return next((t for t in right if t.score <= limit), None)

    async def _try(self, item: Task, candidate: Candidate) -> Tried:
        plan = candidate.plan
        try:
            validate(plan)
        except PlanError:
            return Tried(candidate, float("inf"), right=False)
        answer, tokens = await self._answer(item.query, plan)
        return Tried(candidate, score(plan, tokens, self._weights), answer.text == item.gold)

    async def _answer(self, query: str, plan: Plan) -> tuple[Answer, int]:
        worker = Choice(self._pool.strongest.name, "search")
        meter = Meter(self._ledger, new_id())
        answer, _ = await self._executor.execute(
            Query(query, new_id()),
            plan,
            uniform(plan, worker, "search"),
            meter,
            lambda event: None,
            started=time.monotonic(),
        )
        tokens = sum(c.usage.input_tokens + c.usage.output_tokens for c in meter.calls)
        return answer, tokens
