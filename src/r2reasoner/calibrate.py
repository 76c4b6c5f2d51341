"""Measure a pool on items: which model gets which subtask right, for the calibrated allocator.

Each item is planned once. Where the plan is one call, every model is asked and the scorer judges.
Else the plan is run with one model everywhere, the strongest first, until an answer is right; that
run's answers are the subtasks' reference. Then every model does every subtask on the reference's
inputs, and is right where it says the same (on the last subtask: where the scorer says so). Items
that no model gets right that way teach nothing and are counted: what is left is a little easier
than what was asked.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from r2reasoner.allocator import uniform
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client
from r2reasoner.decomposer import Decomposer
from r2reasoner.errors import CallError, DataError, UnknownWords
from r2reasoner.estimate import Outcome, OutcomeModel
from r2reasoner.executor import Executor, subtask_messages
from r2reasoner.files import write_whole
from r2reasoner.ledger import new_id
from r2reasoner.plan import in_context
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import AnswerStatus, Choice, Plan, Query, Role, Task

IN_FLIGHT: Final = 32
Grade = Callable[[str, str], bool | None]


@dataclass(slots=True)
class Measured:
    """What calibration found. `unsolved`: items that no model got right."""

    outcomes: list[Outcome] = field(default_factory=list)
    items: int = 0
    unsolved: int = 0
    ungraded: int = 0


class Calibration:
    """Measures the workers of a pool; every call is booked on one meter (and its cap).

    `measured` holds what was found so far, also when `run` was stopped.
    """

    def __init__(
        self,
        pool: Pool,
        client: Client,
        decomposer: Decomposer,
        meter: Meter,
        grade: Grade,
    ) -> None:
        self.measured = Measured()
        self._pool = pool
        self._client = client
        self._decomposer = decomposer
        self._meter = meter
        self._grade = grade
        self._executor = Executor(client, pool)

    async def run(
        self, items: Sequence[Task], say: Callable[[int], None] = lambda done: None
    ) -> Measured:
        """Measure all items; `say` hears how many are done.

        Raises UnknownWords for an item that no model has words for, BudgetExceeded at the meter's
        cap, LedgerError; `measured` then holds what was found by that time.
        """
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(item: Task) -> None:
            async with gate:
                await self._measure(item)
            self.measured.items += 1
            say(self.measured.items)

        try:
            async with asyncio.TaskGroup() as group:
                for item in items:
                    group.create_task(one(item))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return self.measured

    async def _measure(self, item: Task) -> None:
        query = Query(item.query, new_id())
        planned = await self._decomposer.decompose(query, self._client, self._meter, None)
        reference: dict[int, str] | None = {}
        if not planned.plan.is_direct:
            reference = await self._reference(query, planned.plan, item.gold)
        if reference is None:
            self.measured.unsolved += 1
            return
        for number, subtask in enumerate(planned.plan.subtasks, 1):
            if not subtask.is_join:
                await self._ask_all(query, planned.plan, number, reference, item.gold)

    async def _ask_all(
        self, query: Query, plan: Plan, number: int, reference: dict[int, str], gold: str
    ) -> None:
        """Ask every model for one subtask. Raises UnknownWords where all of them lack words."""
        lacking: list[UnknownWords] = []
        for card in self._pool.workers:
            try:
                outcome = await self._ask(query, plan, number, reference, gold, card)
            except UnknownWords as error:
                lacking.append(error)
            else:
                self.measured.outcomes += [outcome] if outcome else []
        if len(lacking) == len(self._pool.workers):
            raise lacking[0]

    async def _reference(self, query: Query, plan: Plan, gold: str) -> dict[int, str] | None:
        """Return the subtasks' answers of the strongest model whose whole run is right."""
        for card in reversed(self._pool.workers):
            choice = Choice(card.name, "calibration")
            allocation = uniform(plan, choice, "calibration")
            answer, steps = await self._executor.execute(
                query,
                plan,
                allocation,
                self._meter,
                lambda event: None,
                started=time.monotonic(),
            )
            verdict = self._grade(answer.text, gold)
            self.measured.ungraded += verdict is None
            alone = all(step.model in (card.name, None) for step in steps)
            if verdict and alone and answer.status is AnswerStatus.COMPLETE:
                return {step.subtask: step.answer for step in steps if step.answer is not None}
        return None

    async def _ask(
        self,
        query: Query,
        plan: Plan,
        number: int,
        reference: dict[int, str],
        gold: str,
        card: Card,
    ) -> Outcome | None:
        """Ask one model for one subtask; None where the call failed."""
        request = ChatRequest(
            messages=subtask_messages(query, plan, number, reference, card),
            max_tokens=card.max_tokens,
            role=Role.CALIBRATION,
            subtask=number,
        )
        try:
            completion = await self._client.complete(card, request, self._meter)
        except CallError:
            return None
        if plan.answer == f"#{number}":
            right = bool(self._grade(completion.text, gold))
        else:
            right = _same(completion.text, reference[number])
        return Outcome(in_context(plan, number), card.name, right, completion.cost)


def _same(answer: str, reference: str) -> bool:
    return answer.split() == reference.split()


def write_outcomes(measured: Measured, folder_file: Path) -> OutcomeModel:
    """Write outcomes (`.jsonl`) and the fitted estimate (`.npz`) beside each other.

    Raises DataError where there is nothing to learn from.
    """
    if not measured.outcomes:
        raise DataError(
            f"nothing measured: none of the {measured.items} items was answered right by any"
            " model; take easier items, or check the answers and the scorer"
        )
    lines = (json.dumps(asdict(outcome)) + "\n" for outcome in measured.outcomes)
    write_whole(folder_file.with_suffix(".jsonl"), lines, replace=True)
    model = OutcomeModel.fit(measured.outcomes)
    model.save(folder_file)
    return model
