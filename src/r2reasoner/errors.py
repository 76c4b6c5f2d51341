"""Every error the package raises on purpose; the text of each is fit to show to a user.

R2Error
├── ConfigError        a file, key, flag or environment variable is wrong
├── DataError          an items file or a stored artefact is wrong
├── PlanError          a plan breaks a rule (`fault` says which)
├── BudgetExceeded     a call would pass the cap, so it was not dispatched
├── DeadlineExceeded   the time given to a query is over
├── LedgerError        the ledger cannot record, so nothing may be dispatched
├── UnknownWords       a nano model has no words for a text
└── CallError          a call failed for good (`fault` says how)
"""

from collections.abc import Sequence
from enum import StrEnum


class R2Error(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(R2Error):
    """A file, key, flag or environment variable is wrong."""


class DataError(R2Error):
    """An items file or a stored artefact is wrong."""


class PlanFault(StrEnum):
    """Which rule a plan breaks."""

    EMPTY = "empty"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many_subtasks"
    BLANK = "blank_subtask"
    DANGLING = "dangling_reference"
    FORWARD = "forward_reference"
    CYCLE = "cycle"
    DUPLICATE = "duplicate_subtask"
    UNKNOWN_MODEL = "unknown_model"
    ANSWER = "bad_answer_template"
    CONTROL = "control_characters"


class PlanError(R2Error):
    """A plan breaks a rule."""

    def __init__(self, fault: PlanFault, message: str) -> None:
        super().__init__(f"invalid plan ({fault}): {message}")
        self.fault = fault


class BudgetExceeded(R2Error):
    """A call's bound does not fit what is left of the cap; it was not dispatched.

    `left` is that, in pico-dollars, None where there is no telling.
    """

    left: int | None = None


class DeadlineExceeded(R2Error):
    """The time given to a query is over."""


class LedgerError(R2Error):
    """The ledger cannot record a call, so it was not dispatched."""


class UnknownWords(R2Error):
    """A nano model has no words for a text."""

    def __init__(self, words: Sequence[str]) -> None:
        shown = ", ".join(repr(word if len(word) <= 24 else f"{word[:23]}…") for word in words[:8])
        more = f" and {len(words) - 8} more" if len(words) > 8 else ""
        super().__init__(f"words outside the nano vocabulary: {shown}{more}")
        self.words = tuple(words)


class CallFault(StrEnum):
    """How a call failed. The first group may pass on another try, the second will not."""

    CONNECT = "connect"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SERVER = "server_error"
    REQUEST_TIMEOUT = "request_timeout"
    CONFLICT = "conflict"

    TIMEOUT = "timeout"
    CUT = "cut"
    BAD_REQUEST = "bad_request"
    AUTH = "auth"
    NOT_FOUND = "not_found"
    MALFORMED = "malformed"
    EMPTY = "empty_answer"
    REFUSED_INPUT = "refused_input"


RETRYABLE = frozenset(
    {
        CallFault.CONNECT,
        CallFault.RATE_LIMITED,
        CallFault.OVERLOADED,
        CallFault.SERVER,
        CallFault.REQUEST_TIMEOUT,
        CallFault.CONFLICT,
    }
)


class CallError(R2Error):
    """A call to a model failed for good, after the client's retries.

    `may_be_billed` is True when the provider may have done the work (a cut, a time-out).
    """

    def __init__(
        self,
        fault: CallFault,
        message: str,
        *,
        model: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        may_be_billed: bool = False,
    ) -> None:
        super().__init__(f"{model}: {message} ({fault})" if model else f"{message} ({fault})")
        self.fault = fault
        self.model = model
        self.status = status
        self.retry_after_s = retry_after_s
        self.may_be_billed = may_be_billed

    @property
    def retryable(self) -> bool:
        """True when another try may succeed."""
        return self.fault in RETRYABLE
