"""What a run tells while it goes on; `Router.run` yields these, then the Trace."""

from dataclasses import dataclass

from r2reasoner.types import Allocation, Answer, Plan, Step


@dataclass(frozen=True, slots=True)
class Planned:
    """The query has a plan. `failed`: none could be written, so it is answered directly."""

    plan: Plan
    notes: tuple[str, ...]
    failed: bool


@dataclass(frozen=True, slots=True)
class Allocated:
    """Each subtask has a model."""

    allocation: Allocation


@dataclass(frozen=True, slots=True)
class SubtaskStarted:
    """A call for a subtask is about to go out. `prompt` is the subtask with answers put in."""

    subtask: int
    model: str
    prompt: str


@dataclass(frozen=True, slots=True)
class SubtaskFinished:
    """A subtask has its answer."""

    step: Step


@dataclass(frozen=True, slots=True)
class SubtaskFailed:
    """A subtask has no answer from any model, and will get none."""

    step: Step


@dataclass(frozen=True, slots=True)
class FellBack:
    """A call failed for good (or money ran short), so another model does the subtask."""

    subtask: int
    from_model: str
    to_model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is there."""

    answer: Answer


Event = Planned | Allocated | SubtaskStarted | SubtaskFinished | SubtaskFailed | FellBack | Answered
