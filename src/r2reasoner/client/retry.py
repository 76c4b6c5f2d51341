"""When to try again, and how long to wait first: pure functions, used by the HTTP client alone.

Full jitter (each wait is drawn from zero to an exponentially growing ceiling), because callers
that were refused together must not come back together.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from random import Random
from typing import Final

from r2reasoner.errors import CallFault

MAX_ATTEMPTS: Final = 3
BACKOFF_S: Final = 0.5
BACKOFF_CEILING_S: Final = 8.0
RETRY_AFTER_CEILING_S: Final = 60.0

_FAULTS: Final = {
    401: CallFault.AUTH,
    402: CallFault.AUTH,
    403: CallFault.AUTH,
    404: CallFault.NOT_FOUND,
    408: CallFault.REQUEST_TIMEOUT,
    409: CallFault.CONFLICT,
    429: CallFault.RATE_LIMITED,
    503: CallFault.OVERLOADED,
    529: CallFault.OVERLOADED,
}


def fault_of(status: int) -> CallFault:
    """Return what an HTTP status other than 2xx means; `errors.RETRYABLE` says which may pass."""
    return _FAULTS.get(status, CallFault.SERVER if status >= 500 else CallFault.BAD_REQUEST)


def read_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds a Retry-After header asks for, at most 60; None when it makes no sense.

    Both forms are read: seconds, and an HTTP date. A date that has passed asks for 0.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        if date.tzinfo is None:  # "-0000": UTC of unknown origin
            date = date.replace(tzinfo=UTC)
        seconds = max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
    if not isfinite(seconds) or seconds < 0:
        return None
    return min(seconds, RETRY_AFTER_CEILING_S)


def pause_s(attempt: int, retry_after_s: float | None, rng: Random) -> float:
    """Return the seconds to wait after a failed attempt (counted from 1) before the next."""
    ceiling = min(BACKOFF_CEILING_S, BACKOFF_S * 2 ** (attempt - 1))
    return max(rng.uniform(0, ceiling), retry_after_s or 0.0)
