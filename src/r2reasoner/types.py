"""The values that flow through the engine: query, plan, allocation, steps, answer, trace.

All are frozen and plain (stdlib dataclasses), so they can be compared, hashed where it helps,
and written as JSON by `dataclasses.asdict`. Money is a whole number of pico-dollars (`Pico`),
never a float; a cost that is not known is None, never 0.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

Pico = int
"""An amount of money in pico-dollars (10**-12 dollars)."""

PICO_PER_DOLLAR: Final = 10**12
REFERENCE: Final = re.compile(r"#([0-9]{1,6})")
"""A reference to a subtask's answer; more digits than any plan needs would choke `int`."""


def to_dollars(pico: Pico) -> Decimal:
    """Return an amount in dollars, exactly."""
    return Decimal(pico) / PICO_PER_DOLLAR


def to_pico(dollars: Decimal | str | int) -> Pico:
    """Return an amount of dollars in pico-dollars, fractions rounded up."""
    return int((Decimal(dollars) * PICO_PER_DOLLAR).to_integral_value(ROUND_CEILING))


class Role(StrEnum):
    """What a call is for; every call has exactly one."""

    DECOMPOSER = "decomposer"
    ALLOCATOR = "allocator"
    WORKER = "worker"
    FINAL = "final"
    CALIBRATION = "calibration"
    CHECK = "check"


class CallOutcome(StrEnum):
    """How a dispatched call ended. `unknown`: it may have been billed, so its bound is charged."""

    OPEN = "open"
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


class AnswerStatus(StrEnum):
    """How whole an answer is; `cheap_finish`: money ran short, the cheapest model did the rest."""

    COMPLETE = "complete"
    CHEAP_FINISH = "cheap_finish"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call.

    Cached input tokens are part of `input_tokens`, reasoning tokens of `output_tokens`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


class Task(NamedTuple):
    """A query and its right answer: what is measured and trained on."""

    query: str
    gold: str


@dataclass(frozen=True, slots=True)
class Query:
    """What the user asks, and the conversation before it.

    `conversation` is a hash that stays the same through it, None where nobody knows.
    """

    text: str
    id: str
    earlier: tuple[Message, ...] = ()
    conversation: str | None = None


@dataclass(frozen=True, slots=True)
class Subtask:
    """One node of a plan. `#3` in its text stands for the answer of subtask 3.

    `needs` names further subtasks (from 1) whose answers it must see without naming them;
    `needs_conversation`: it must also see what was said before the query.
    """

    text: str
    needs: tuple[int, ...] = ()
    needs_conversation: bool = True

    @property
    def references(self) -> tuple[int, ...]:
        """Numbers of the subtasks that its text names, without repeats."""
        return tuple(dict.fromkeys(int(n) for n in REFERENCE.findall(self.text)))

    @property
    def dependencies(self) -> tuple[int, ...]:
        """Numbers of all subtasks whose answers it needs, without repeats."""
        return tuple(dict.fromkeys((*self.references, *self.needs)))

    @property
    def is_join(self) -> bool:
        """True when it is made of references only, so that joining costs no call."""
        return bool(self.references) and not REFERENCE.sub("", self.text).strip()


@dataclass(frozen=True, slots=True)
class Plan:
    """A directed acyclic graph of subtasks (numbered from 1) and how the answer is made of theirs.

    `answer` is a template of references and separators, e.g. `#1 #1 #2`; validity is checked by
    `plan.validate`, nowhere else.
    """

    subtasks: tuple[Subtask, ...]
    answer: str

    @property
    def is_direct(self) -> bool:
        """True when one call's answer is the answer, without decomposition."""
        return len(self.subtasks) == 1 and self.answer == "#1"

    @property
    def used_by_answer(self) -> frozenset[int]:
        """Numbers of the subtasks that the answer template names."""
        return frozenset(int(n) for n in REFERENCE.findall(self.answer))

    def last_nodes(self) -> frozenset[int]:
        """Numbers of subtasks that the answer uses and no other subtask does (`last-node`)."""
        inner = {n for subtask in self.subtasks for n in subtask.dependencies}
        return self.used_by_answer - inner


@dataclass(frozen=True, slots=True)
class Choice:
    """The model given to one subtask, and why in one line."""

    model: str
    reason: str
    p_right: float | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """One choice per subtask, in order; joins have None."""

    choices: tuple[Choice | None, ...]
    allocator: str
    calibrated: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at a model: what the ledger knows of it. Cost None means unknown price."""

    id: str
    role: Role
    model: str
    subtask: int | None
    attempt: int
    outcome: CallOutcome
    usage: Usage
    cost: Pico | None
    bound: Pico | None
    started_at: float
    latency_s: float
    ttft_s: float | None
    finish_reason: str | None
    error: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to one subtask. Times are seconds since the query came."""

    subtask: int
    model: str | None
    prompt: str
    answer: str | None
    error: str | None
    started_s: float
    finished_s: float
    fell_back_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The text that goes to the user, and how whole it is."""

    text: str
    status: AnswerStatus
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that happened to one query; reports, training rows and rewards read only this."""

    id: str
    query: Query
    pool: str
    trade_off: float
    plan: Plan
    plan_notes: tuple[str, ...]
    plan_failed: bool
    allocation: Allocation
    steps: tuple[Step, ...]
    answer: Answer
    calls: tuple[Call, ...]
    started_at: float
    wall_s: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    def cost(self, *roles: Role) -> Pico | None:
        """Return the cost of the calls of some roles (all, if none is named); None if unknown."""
        costs = [c.cost for c in self.calls if not roles or c.role in roles]
        known = [c for c in costs if c is not None]
        return sum(known) if len(known) == len(costs) else None

    @property
    def workers_cost(self) -> Pico | None:
        """Cost of the subtasks' calls alone (what the paper seems to count)."""
        return self.cost(Role.WORKER, Role.FINAL)
