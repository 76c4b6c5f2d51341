"""Measure a pool on items: which model gets which subtask right, for the calibrated allocator.

Each item is planned once. Where the plan is one call, every model is asked and the scorer judges.
Else the plan is run with one model everywhere, the strongest first, until an answer is right; that
run's answers are the subtasks' reference. Then every model does every subtask on the reference's
inputs, and is right where it says the same (on the last subtask: where the scorer says so). Items
that no model gets right that way teach nothing and are counted: what is left is a little easier
than what was asked. With `Direct` as decomposer, whole queries are measured, each in one call.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

from r2reasoner.allocator import uniform
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client
from r2reasoner.decomposer import Decomposer
from r2reasoner.errors import CallError, DataError, UnknownWords
from r2reasoner.estimate import Outcome, OutcomeModel
from r2reasoner.executor import Executor, subtask_messages
from r2reasoner.files import write_whole
from r2reasoner.ledger import new_id
from r2reasoner.outcomes.measured import queries_file
from r2reasoner.plan import in_context
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.references import Reference, references_file, write_references
from r2reasoner.types import AnswerStatus, Choice, Plan, Query, Role, Task

IN_FLIGHT: Final = 32
Grade = Callable[[str, str], bool | None]
T = TypeVar("T")


@dataclass(slots=True)
class Measured:
    """What calibration found. `unsolved`: items that no model got right."""

    outcomes: list[Outcome] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
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

        places = {item.query: place for place, item in enumerate(items)}
        try:
            await together(one(item) for item in items)
        finally:  # in the order of the items, not of the answers: what is drawn from them later
            self.measured.references.sort(key=lambda reference: places[reference.query])
        return self.measured

    async def solve(self, item: Task) -> Reference | None:
        """Plan an item and find its subtasks' right answers; None where no model's run is right.

        A plan that is one call is not run: there is nothing to find. Raises as `run`.
        """
        query = Query(item.query, new_id())
        planned = await self._decomposer.decompose(query, self._client, self._meter, None)
        answers: dict[int, str] | None = {}
        if not planned.plan.is_direct:
            answers = await self._right_run(query, planned.plan, item.gold)
        if answers is None:
            return None
        return Reference(item.query, item.gold, planned.plan, answers)

    async def ask(self, reference: Reference, number: int, card: Card) -> Outcome:
        """Ask one model for one subtask. Raises CallError, UnknownWords, and what `run` raises."""
        completion = await self._client.complete(
            card, request(reference, number, card), self._meter
        )
        if reference.plan.answer == f"#{number}":
            right = bool(self._grade(completion.text, reference.gold))
        else:
            right = _same(completion.text, reference.answers[number])
        return Outcome(in_context(reference.plan, number), card.name, right, completion.cost)

    async def _measure(self, item: Task) -> None:
        reference = await self.solve(item)
        if reference is None:
            self.measured.unsolved += 1
            return
        self.measured.references.append(reference)
        for number in reference.subtasks:
            await self._ask_all(reference, number)

    async def _ask_all(self, reference: Reference, number: int) -> None:
        """Ask every model for one subtask. Raises UnknownWords where all of them lack words."""
        lacking: list[UnknownWords] = []
        for card in self._pool.workers:
            try:
                self.measured.outcomes.append(await self.ask(reference, number, card))
            except UnknownWords as error:
                lacking.append(error)
            except CallError:
                continue  # it did not answer, which is not to say that it cannot
        if len(lacking) == len(self._pool.workers):
            raise lacking[0]

    async def _right_run(self, query: Query, plan: Plan, gold: str) -> dict[int, str] | None:
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


def request(reference: Reference, number: int, card: Card) -> ChatRequest:
    """Return what a model is asked for a subtask, on the reference's inputs."""
    query = Query(reference.query, "")
    return ChatRequest(
        messages=subtask_messages(query, reference.plan, number, reference.answers, card),
        max_tokens=card.max_tokens,
        role=Role.CALIBRATION,
        subtask=number,
    )


async def together(jobs: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return what jobs return that run at the same time; an error of theirs comes alone."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _same(answer: str, reference: str) -> bool:
    return answer.split() == reference.split()


def write_outcomes(measured: Measured, folder_file: Path, scorer: str = "exact") -> OutcomeModel:
    """Write outcomes (`.jsonl`), the fitted estimate (`.npz`) and references beside each other.

    `scorer` names who judged. Raises DataError where there is nothing to learn from.
    """
    if not measured.outcomes:
        raise DataError(
            f"nothing measured: none of the {measured.items} items was answered right by any"
            " model; take easier items, or check the answers and the scorer"
        )
    write_raw(folder_file, measured.outcomes)
    write_references(references_file(folder_file), measured.references, scorer)
    model = OutcomeModel.fit(measured.outcomes)
    model.save(folder_file)
    return model


def write_queries(measured: Measured, folder_file: Path) -> None:
    """Write outcomes of whole queries beside those of subtasks. Raises ConfigError."""
    write_raw(queries_file(folder_file), measured.outcomes)


def write_raw(file: Path, outcomes: Iterable[Outcome], before: str = "") -> None:
    """Write outcomes as JSON lines beside an estimate's file, after what stood there `before`."""
    lines = (json.dumps(asdict(outcome)) + "\n" for outcome in outcomes)
    write_whole(file.with_suffix(".jsonl"), chain([before], lines), replace=True)
