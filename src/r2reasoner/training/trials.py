"""One trial: a plan with its models, really run, and judged by the right answer."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from r2reasoner.benchmarks.grading import Grade
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.errors import CallError, CallFault, UnknownWords
from r2reasoner.evaluation.evaluate import Unreachable
from r2reasoner.executor import Executor
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.outcomes.keys import answer_key
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import Allocation, AnswerStatus, Call, CallOutcome, Plan, Query, Step, Task

OF_THE_TEXT: Final = frozenset({CallFault.BAD_REQUEST, CallFault.REFUSED_INPUT, CallFault.EMPTY})
"""How a call fails because of what is asked; the same would happen again."""

DIGITS: Final = 4
"""Of a log-probability; those behind turn on what else was in the batch."""


class Ran(NamedTuple):
    """What became of a run; `fault` says why it was not whole.

    By subtask: `logprobs` are those that were told, `keys` those of the answers, where the store
    of recorded outcomes wants them.
    """

    right: bool
    steps: tuple[Step, ...]
    calls: tuple[Call, ...]
    fault: str | None
    logprobs: Mapping[int, float]
    keys: Mapping[int, str]


class Runner:
    """Runs plans on a pool; `grade` says what is right. Each run has its own bill.

    With `keyed`, a run says under which keys its answers are kept.
    """

    def __init__(
        self, pool: Pool, client: Client, ledger: Ledger, grade: Grade, *, keyed: bool = False
    ) -> None:
        self._pool = pool
        self._client = client
        self._ledger = ledger
        self._grade = grade
        self._keyed = keyed

    def meter(self) -> Meter:
        """Return a new bill."""
        return Meter(self._ledger, new_id())

    async def run(
        self, task: Task, plan: Plan, allocation: Allocation, *, how_sure: str | None = None
    ) -> Ran:
        """Run a plan; the model that `how_sure` names is asked for log-probabilities.

        A run in which another model had to take over says nothing of its allocation, so it is not
        right. Raises Unreachable (see `check_reached`), LedgerError, and CapReached at the ledger's
        cap.
        """
        meter = self.meter()
        watched = _Watched(self._client, how_sure, keyed=self._keyed)
        try:
            answer, steps = await Executor(watched, self._pool).execute(
                Query(task.query, new_id()),
                plan,
                allocation,
                meter,
                lambda event: None,
                started=time.monotonic(),
            )
        except UnknownWords as error:
            return Ran(False, (), tuple(meter.calls), str(error), {}, {})
        check_reached(meter, watched.errors)
        failed = sorted({name for step in steps for name in step.fell_back_from})
        fault = answer.note
        if failed and answer.status is not AnswerStatus.FAILED:
            fault = f"no answer of {', '.join(failed)}"
        whole = answer.status is AnswerStatus.COMPLETE and not failed
        right = whole and self._grade(answer.text, task.gold) is True
        return Ran(right, steps, tuple(meter.calls), fault, watched.logprobs, watched.keys)


def check_reached(meter: Meter, errors: Sequence[CallError]) -> None:
    """Raise Unreachable where no call on a bill was answered, and not because of its text.

    What nobody answers for that reason would fill a data set with wrong labels.
    """
    reached = any(call.outcome is CallOutcome.OK for call in meter.calls)
    own = [error for error in errors if error.fault not in OF_THE_TEXT]
    if own and not reached:
        raise Unreachable(f"no model answered; the last one: {own[-1]}") from own[-1]


class _Watched:
    """A client that notes failures, and how sure a model says that it is of each subtask."""

    def __init__(self, inner: Client, how_sure: str | None, *, keyed: bool) -> None:
        self._inner = inner
        self._how_sure = how_sure
        self._keyed = keyed
        self.errors: list[CallError] = []
        self.logprobs: dict[int, float] = {}
        self.keys: dict[int, str] = {}

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        asked = card.name == self._how_sure
        request = replace(request, logprobs=True) if asked else request
        try:
            completion = await self._inner.complete(card, request, meter, deadline)
        except CallError as error:
            self.errors.append(error)
            raise
        if request.subtask is not None:
            if asked and completion.logprob is not None:
                self.logprobs[request.subtask] = round(completion.logprob, DIGITS)
            if self._keyed:
                self.keys[request.subtask] = answer_key(card, request)
        return completion

    def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncIterator[str | Completion]:
        return self._inner.stream(card, request, meter, deadline)

    async def close(self) -> None:
        """Leave the inner client open: it is shared."""
