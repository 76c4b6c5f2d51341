"""Our errors and refusals as responses in OpenAI's shape."""

import json
from typing import Final

from starlette.responses import Response

from r2reasoner.chat import Refusal
from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    CallFault,
    ConfigError,
    DeadlineExceeded,
    LedgerError,
    R2Error,
    UnknownWords,
)
from r2reasoner.gateway.keys import OverBudget
from r2reasoner.types import Pico, to_dollars

NO_RETRY: Final = {"x-should-retry": "false"}
_CALL_STATUS = {
    CallFault.RATE_LIMITED: 429,
    CallFault.OVERLOADED: 503,
    CallFault.BAD_REQUEST: 400,
    CallFault.REFUSED_INPUT: 400,
    CallFault.TIMEOUT: 504,
    CallFault.REQUEST_TIMEOUT: 504,
}


def error_response(refusal: Refusal) -> Response:
    """Return a refusal as a response."""
    body = json.dumps(refusal.as_object()).encode()
    return Response(body, refusal.status, dict(refusal.headers), "application/json")


def refusal_of(error: R2Error | Refusal) -> Refusal:
    """Return what a client is told of an error; what is ours alone to know stays out."""
    match error:
        case Refusal():
            return error
        case OverBudget():
            return over_budget(str(error), error.left)
        case BudgetExceeded():
            left = error.left
            details = {} if left is None else {"left_dollars": f"{to_dollars(max(left, 0)):f}"}
            return Refusal(
                402, str(error), code="budget_exceeded", details=details, headers=NO_RETRY
            )
        case DeadlineExceeded():
            return Refusal(504, str(error), code="deadline_exceeded")
        case UnknownWords():
            return Refusal(400, str(error), code="unknown_words", param="messages")
        case CallError():
            status = _CALL_STATUS.get(error.fault, 502)
            wait = error.retry_after_s if status in (429, 503) else None
            headers = {} if wait is None else {"retry-after": str(round(wait))}
            return Refusal(status, str(error), code=f"upstream_{error.fault}", headers=headers)
        case LedgerError():
            return Refusal(503, "calls cannot be recorded now, so none is made", code="no_ledger")
        case ConfigError():
            return Refusal(400, str(error), code="bad_request")
        case _:
            return Refusal(500, "the gateway failed", code="internal_error")


def shutting_down() -> Refusal:
    """Return the refusal of what comes, or is not done, when the gateway ends."""
    return Refusal(
        503, "this gateway is shutting down", code="draining", headers={"retry-after": "1"}
    )


def over_budget(message: str, left: Pico) -> Refusal:
    """Return the refusal of what a key cannot pay, with the dollars that are left."""
    return Refusal(
        402,
        message,
        code="insufficient_quota",
        details={"left_dollars": f"{to_dollars(max(left, 0)):f}"},
        headers=NO_RETRY,
    )
