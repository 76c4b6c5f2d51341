"""Plan + Allocation -> Answer: subtasks in dependency order, independent ones at the same time.

Answers are passed on as data: they fill references once, or stand between <data> marks in a chat
prompt; they never reach the decomposer, the allocator or the budget. A call that fails for good
falls back to the next stronger model; when money runs short, the cheapest model does the rest.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from r2reasoner import prompts, turns
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    DeadlineExceeded,
    PlanError,
    R2Error,
    UnknownWords,
)
from r2reasoner.events import Event, FellBack, SubtaskFailed, SubtaskFinished, SubtaskStarted
from r2reasoner.plan import direct, expand
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import (
    Allocation,
    Answer,
    AnswerStatus,
    Message,
    Plan,
    Query,
    Role,
    Step,
)

Emit = Callable[[Event], None]


@dataclass(slots=True)
class _Run:
    """The state of one plan's execution."""

    query: Query
    plan: Plan
    allocation: Allocation
    meter: Meter
    deadline: float | None
    emit: Emit
    started: float
    answers: dict[int, str] = field(default_factory=dict)
    steps: dict[int, Step] = field(default_factory=dict)
    money_short: bool = False
    in_flight: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call as in flight, and wake who waits for its reservation when it ends."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self.settled.set()
            self.settled = asyncio.Event()


class Executor:
    """Runs plans over a pool. `parallel=False` runs subtasks one after the other.

    `max_answer_tokens` limits what becomes part of the answer, below what the model's card says.
    """

    def __init__(
        self,
        client: Client,
        pool: Pool,
        *,
        parallel: bool = True,
        temperature: float = 0.0,
        max_answer_tokens: int | None = None,
    ) -> None:
        self._client = client
        self._pool = pool
        self._parallel = parallel
        self._temperature = temperature
        self._max_answer_tokens = max_answer_tokens

    async def execute(
        self,
        query: Query,
        plan: Plan,
        allocation: Allocation,
        meter: Meter,
        emit: Emit,
        *,
        started: float,
        deadline: float | None = None,
    ) -> tuple[Answer, tuple[Step, ...]]:
        """Run a plan and return its answer and what happened to each subtask.

        Raises UnknownWords where no model has words for a query that is asked as it stands,
        LedgerError where calls can not be recorded. Failed calls, money and time end in an answer
        marked as not whole.
        """
        run = _Run(query, plan, allocation, meter, deadline, emit, started)
        failure = await self._run_all(run)
        steps = tuple(run.steps[n] for n in sorted(run.steps))
        return _answer(run, failure), steps

    async def _run_all(self, run: _Run) -> R2Error | None:
        """Run what is ready until all is done or a subtask fails; return that failure."""
        graph = {n: s.dependencies for n, s in enumerate(run.plan.subtasks, 1)}
        sorter = TopologicalSorter(graph)
        sorter.prepare()
        waiting: list[int] = []
        running: dict[asyncio.Task[None], int] = {}
        failure: R2Error | None = None
        try:
            while sorter.is_active():
                waiting = sorted((*waiting, *sorter.get_ready()))
                while waiting and (self._parallel or not running):
                    number = waiting.pop(0)
                    running[asyncio.create_task(self._run_one(run, number))] = number
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    number = running.pop(task)
                    error = task.exception()
                    if error is not None:
                        raise error
                    sorter.done(number)
        except (BudgetExceeded, CallError, DeadlineExceeded, PlanError) as error:
            failure = error
        except UnknownWords as error:
            # the query's own words, not words that a planner made up
            if run.plan == direct(run.query.text):
                raise
            failure = error
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return failure

    async def _run_one(self, run: _Run, number: int) -> None:
        subtask = run.plan.subtasks[number - 1]
        begun = time.monotonic() - run.started
        try:
            text = expand(subtask.text, run.answers)
        except PlanError as error:
            step = self._step(run, number, None, subtask.text, begun, [], None, str(error))
            run.emit(SubtaskFailed(step))
            raise
        if subtask.is_join:
            run.answers[number] = text
            run.steps[number] = Step(number, None, text, text, None, begun, begun)
            return
        failed: list[str] = []
        try:
            model, answer = await self._first_answer(run, number, text, failed)
        except R2Error as error:
            step = self._step(run, number, None, text, begun, failed, None, str(error))
            run.emit(SubtaskFailed(step))
            raise
        run.answers[number] = answer
        step = self._step(run, number, model, text, begun, failed, answer, None)
        run.emit(SubtaskFinished(step))

    async def _first_answer(
        self, run: _Run, number: int, text: str, failed: list[str]
    ) -> tuple[str, str]:
        """Return the first candidate that answers, and its answer; who did not is in `failed`.

        Raises the last failure, that of a model that lacks words only where all lack them.
        """
        choice = run.allocation.choices[number - 1]
        assert choice is not None
        error: R2Error | None = None
        reason = "money ran short before it was asked"
        for card in _Candidates(self._pool, choice.model, run):
            if not failed and card.name != choice.model:
                failed.append(choice.model)
            if failed:
                run.emit(FellBack(number, failed[-1], card.name, reason))
            run.emit(SubtaskStarted(number, card.name, text))
            try:
                answer = await self._call(run, number, card)
            except BudgetExceeded as short:
                run.money_short = True
                error, reason = short, str(short)
            except CallError as failure:
                error, reason = failure, str(failure)
            except UnknownWords as unknown:
                error, reason = error or unknown, str(unknown)
            else:
                return answer.model, answer.text
            failed.append(card.name)
        assert error is not None
        raise error

    async def _call(self, run: _Run, number: int, card: Card) -> Completion:
        """Call a model, if need be when parallel calls have given back what they reserved."""
        while True:
            try:
                with run.call():
                    return await self._complete(run, number, card)
            except BudgetExceeded:
                if not run.in_flight:
                    raise
                await run.settled.wait()

    async def _complete(self, run: _Run, number: int, card: Card) -> Completion:
        is_final = run.plan.answer.strip() == f"#{number}" and not run.plan.is_direct
        limit = card.max_tokens
        if self._max_answer_tokens is not None and number in run.plan.used_by_answer:
            limit = min(limit, self._max_answer_tokens)
        messages = subtask_messages(run.query, run.plan, number, run.answers, card)
        request = ChatRequest(
            messages=messages,
            max_tokens=limit,
            role=Role.FINAL if is_final else Role.WORKER,
            subtask=number,
            note=_left_out(run, number, card, messages),
            temperature=self._temperature,
            cache_key=run.query.conversation,
        )
        return await self._client.complete(card, request, run.meter, run.deadline)

    @staticmethod
    def _step(
        run: _Run,
        number: int,
        model: str | None,
        text: str,
        begun: float,
        failed: list[str],
        answer: str | None,
        error: str | None,
    ) -> Step:
        finished = time.monotonic() - run.started
        step = Step(number, model, text, answer, error, begun, finished, tuple(failed))
        run.steps[number] = step
        return step


class _Candidates:
    """Who does a subtask: the chosen model, then stronger ones, then weaker ones.

    From the moment money is short (here or in a parallel subtask): the cheapest model only.
    """

    def __init__(self, pool: Pool, chosen: str, run: _Run) -> None:
        self._pool = pool
        self._run = run
        stronger = pool.stronger(chosen)
        weaker = pool.workers[: len(pool.workers) - len(stronger) - 1]
        self._left = [pool.card(chosen), *stronger, *reversed(weaker)]
        self._cheapest_tried = False

    def __iter__(self) -> "_Candidates":
        return self

    def __next__(self) -> Card:
        if self._run.money_short:
            if self._cheapest_tried:
                raise StopIteration
            self._cheapest_tried = True
            return self._pool.cheapest
        if not self._left:
            raise StopIteration
        card = self._left.pop(0)
        self._cheapest_tried |= card.name == self._pool.cheapest.name
        return card


def subtask_messages(
    query: Query, plan: Plan, number: int, answers: Mapping[int, str], card: Card
) -> tuple[Message, ...]:
    """Return what a model is asked for a subtask, given the answers that it needs.

    A model with a plain prompt gets the subtask's text with answers put in; a chat model also
    sees the query and, where the subtask needs it, the earlier conversation as far as it fits into
    its context. The conversation's own instructions go to who writes the answer in any case. A
    direct plan is the query itself.
    """
    subtask = plan.subtasks[number - 1]
    if card.prompt == "plain":
        return (Message("user", expand(subtask.text, answers)),)
    if plan.is_direct:
        asked = Message("user", query.text)
        return (*_fitting(query.earlier, card, asked), asked)
    parts = [f"The query:\n{prompts.as_data(query.text)}"]
    if subtask.dependencies:
        lines = "\n".join(f"#{n}: {answers[n]}" for n in sorted(subtask.dependencies))
        parts.append(f"Answers of earlier steps:\n{prompts.as_data(lines)}")
    parts.append(f"Your step: {subtask.text}")
    asked = Message("user", "\n\n".join(parts))
    answers_query = number in plan.used_by_answer
    earlier = [
        turn
        for turn in query.earlier
        if subtask.needs_conversation or (answers_query and turn.role == "system")
    ]
    name = "last_subtask" if answers_query else "subtask"
    return (*prompts.opening(name, _fitting(earlier, card, asked)), asked)


def _fitting(earlier: Sequence[Message], card: Card, asked: Message) -> tuple[Message, ...]:
    return turns.newest(earlier, turns.room(card.context, card.max_tokens, turns.size(asked)))


def _left_out(run: _Run, number: int, card: Card, messages: tuple[Message, ...]) -> str | None:
    """Say in the ledger where a model was not sent all of a conversation that it needs."""
    needs = run.plan.is_direct or run.plan.subtasks[number - 1].needs_conversation
    if card.prompt == "plain" or not needs:
        return None
    said, sent = (sum(turn.role != "system" for turn in of) for of in (run.query.earlier, messages))
    return None if sent > said else f"the newest {sent - 1} of {said} earlier turns fit"


def _answer(run: _Run, failure: R2Error | None) -> Answer:
    if failure is None:
        status = AnswerStatus.CHEAP_FINISH if run.money_short else AnswerStatus.COMPLETE
        note = "money ran short: the cheapest model did the rest" if run.money_short else None
        try:
            return Answer(expand(run.plan.answer, run.answers), status, note)
        except PlanError as error:
            failure = error
    note = str(failure)
    finished = sorted(run.answers)
    if not finished:
        return Answer("", AnswerStatus.FAILED, note)
    used = run.plan.used_by_answer
    best = [n for n in finished if n in used] or finished[-1:]
    return Answer("\n".join(run.answers[n] for n in best), AnswerStatus.PARTIAL, note)
