"""Our errors as a client sees them."""

import pytest

from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    CallFault,
    ConfigError,
    DeadlineExceeded,
    LedgerError,
    PlanError,
    PlanFault,
    R2Error,
    UnknownWords,
)
from r2reasoner.gateway.errors import error_response, over_budget, refusal_of
from r2reasoner.gateway.keys import Key, OverBudget

KEY = Key(id="1", name="one", created_at=0.0)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OverBudget(KEY, 9, 3), 402, "insufficient_quota"),
        (BudgetExceeded("no"), 402, "budget_exceeded"),
        (DeadlineExceeded("late"), 504, "deadline_exceeded"),
        (UnknownWords(["sky"]), 400, "unknown_words"),
        (CallError(CallFault.RATE_LIMITED, "slow"), 429, "upstream_rate_limited"),
        (CallError(CallFault.AUTH, "key"), 502, "upstream_auth"),
        (CallError(CallFault.TIMEOUT, "late"), 504, "upstream_timeout"),
        (ConfigError("empty"), 400, "bad_request"),
        (LedgerError("/secret/path is full"), 503, "no_ledger"),
        (PlanError(PlanFault.CYCLE, "x"), 500, "internal_error"),
    ],
)
def test_each_has_a_status_and_a_code(error: R2Error, status: int, code: str) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.code) == (status, code)
    assert "/secret" not in str(refusal)


def test_what_is_left_and_when_to_come_again() -> None:
    body = over_budget("no", 25 * 10**10).as_object()
    assert body["error"]["left_dollars"] == "0.25"
    assert over_budget("no", -5).as_object()["error"]["left_dollars"] == "0"
    limited = refusal_of(CallError(CallFault.RATE_LIMITED, "slow", retry_after_s=7.2))
    assert error_response(limited).headers["retry-after"] == "7"
