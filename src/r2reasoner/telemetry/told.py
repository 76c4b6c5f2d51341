"""What is told of one query: what happened when, and the calls that it caused.

`phases` groups that as a trace shows it: the plan, the allocation, each subtask, with their calls.
It takes a query that was broken off anywhere: what has no end ended with the query.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self, TypeAlias

from r2reasoner.errors import CallFault
from r2reasoner.events import (
    Allocated,
    Answered,
    Event,
    FellBack,
    Planned,
    SubtaskFailed,
    SubtaskFinished,
    SubtaskStarted,
)
from r2reasoner.types import (
    Allocation,
    AnswerStatus,
    Call,
    CallOutcome,
    Message,
    Role,
    Step,
    Trace,
)

AGENT: Final = "r2reasoner"
CANCELLED: Final = "cancelled"
DEADLINE: Final = "deadline_exceeded"
ROUTING: Final = frozenset({Role.DECOMPOSER, Role.ALLOCATOR})
NO_PLAN: Final = "no_plan"
NO_ANSWER: Final = "no_answer"
OTHER: Final = "_OTHER"
"""What the conventions call an error that has no name."""

Attribute: TypeAlias = str | bool | int | float | Sequence[str]
Attributes: TypeAlias = Mapping[str, Attribute | None]
"""Those that are None are not known and left out."""
Timed: TypeAlias = tuple[float, Event]
"""An event and when it happened, in seconds since 1970."""

NOT_GIVEN: Final = Allocation((), "", calibrated=False)
_PLAN: Final[Attributes] = {"gen_ai.operation.name": "plan", "gen_ai.agent.name": AGENT}
_FAULT: Final = re.compile(r"\(([a-z_]+)\)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One query. Times in seconds since 1970.

    `begun_at` is when work on it began, where that was later than `started_at`. `error` names what
    it ended with, None where it was answered. `served`: it came over HTTP. Words in `messages`
    and `events` leave only where content is wanted.
    """

    trace_id: str
    model: str
    started_at: float
    ended_at: float
    begun_at: float | None = None
    events: Sequence[Timed] = ()
    calls: Sequence[Call] = ()
    error: str | None = None
    served: bool = False
    attributes: Attributes = field(default_factory=dict)
    messages: Sequence[Message] = ()

    @classmethod
    def of(cls, trace: Trace, events: Sequence[Timed]) -> Self:
        """Return what is told of a query that was answered in this process."""
        status = trace.answer.status
        return cls(
            trace_id=trace.id,
            model=AGENT,
            started_at=trace.started_at,
            ended_at=trace.started_at + trace.wall_s,
            events=events,
            calls=trace.calls,
            error=NO_ANSWER if status is AnswerStatus.FAILED else None,
            attributes={"r2.trade_off": trace.trade_off, "r2.status": status.value},
            messages=(*trace.query.earlier, Message("user", trace.query.text)),
        )

    @property
    def answer(self) -> str | None:
        """The text that went out, as far as it is known."""
        for _, event in reversed(self.events):
            match event:
                case Answered(answer=answer):
                    return answer.text
                case SubtaskFinished(step=step):
                    return step.answer
        return None


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a query with its calls. `fell_back`: when, from which model, to which."""

    name: str
    started_at: float
    ended_at: float
    error: str | None
    attributes: Attributes
    calls: tuple[Call, ...]
    fell_back: tuple[tuple[float, str, str], ...] = ()
    prompt: str | None = None
    answer: str | None = None


def phases(told: Told) -> Iterator[Phase]:
    """Yield the parts of a query that took place, in order."""
    for phase in (_planning(told), _allocating(told)):
        if phase is not None:
            yield phase
    yield from _subtasks(told)


def loose_calls(told: Told) -> tuple[Call, ...]:
    """Return the calls that belong to no phase."""
    return tuple(c for c in told.calls if c.subtask is None and c.role not in ROUTING)


def error_of(call: Call) -> str | None:
    """Return the name of what a call failed with; None for one that has an answer."""
    text = call.error or ""
    found = _FAULT.search(text)
    if found is not None and found[1] in set(CallFault):
        return found[1]
    if text.startswith("broken off at the deadline"):
        return DEADLINE
    if text.startswith(("broken off", "cancelled")):
        return CANCELLED
    return None if call.outcome is CallOutcome.OK else OTHER


def _planning(told: Told) -> Phase | None:
    calls = _by(told, Role.DECOMPOSER)
    begun = told.started_at if told.begun_at is None else told.begun_at
    planned = next(((at, e) for at, e in told.events if isinstance(e, Planned)), None)
    if planned is None:
        if not calls:
            return None
        return Phase(f"plan {AGENT}", begun, told.ended_at, _cut(told), _PLAN, calls)
    at, event = planned
    if not calls and event.plan.is_direct and not event.failed:
        return None  # nobody was asked for a plan
    attributes = {
        **_PLAN,
        "r2.subtasks": len(event.plan.subtasks),
        "r2.plan.direct": event.plan.is_direct,
    }
    error = NO_PLAN if event.failed else None
    text = "\n".join(subtask.text for subtask in event.plan.subtasks)
    return Phase(f"plan {AGENT}", begun, at, error, attributes, calls, answer=text)


def _allocating(told: Told) -> Phase | None:
    calls = _by(told, Role.ALLOCATOR)
    start = next((at for at, event in told.events if isinstance(event, Planned)), None)
    if start is None:
        return None
    end, given = _allocation(told)
    if given is NOT_GIVEN:
        return Phase("allocate", start, end, _cut(told), {}, calls)
    attributes: Attributes = {
        "r2.allocator": given.allocator,
        "r2.calibrated": given.calibrated,
        "r2.models": [choice.model for choice in given.choices if choice is not None],
    }
    return Phase("allocate", start, end, None, attributes, calls)


def _allocation(told: Told) -> tuple[float, Allocation]:
    for at, event in told.events:
        if isinstance(event, Allocated):
            return at, event.allocation
    return told.ended_at, NOT_GIVEN


def _subtasks(told: Told) -> Iterator[Phase]:
    begun: dict[int, tuple[float, str]] = {}
    ended: dict[int, tuple[float, Step | None]] = {}
    fell_back: dict[int, list[tuple[float, str, str]]] = {}
    for at, event in told.events:
        match event:
            case SubtaskStarted(subtask=number, prompt=prompt):
                begun.setdefault(number, (at, prompt))
            case FellBack(subtask=number):
                fell_back.setdefault(number, []).append((at, event.from_model, event.to_model))
            case SubtaskFinished(step=step) | SubtaskFailed(step=step):
                ended[step.subtask] = (at, step)
    choices = _allocation(told)[1].choices
    for number, (at, prompt) in sorted(begun.items()):
        end, last = ended.get(number, (told.ended_at, None))
        choice = choices[number - 1] if choices else None
        yield Phase(
            f"subtask {number}",
            at,
            end,
            _cut(told) if last is None else NO_ANSWER if last.error else None,
            {
                "r2.subtask": number,
                "r2.model": None if last is None else last.model,
                "r2.allocated": None if choice is None else choice.model,
                "r2.p_right": None if choice is None else choice.p_right,
            },
            tuple(c for c in told.calls if c.subtask == number and c.role not in ROUTING),
            tuple(fell_back.get(number, ())),
            prompt=prompt,
            answer=None if last is None else last.answer,
        )


def _by(told: Told, role: Role) -> tuple[Call, ...]:
    return tuple(call for call in told.calls if call.role is role)


def _cut(told: Told) -> str:
    """Return what a phase without an end was ended by."""
    return told.error or CANCELLED
