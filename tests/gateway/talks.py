"""Requests of a conversation, and traces of how they were answered."""

import json
from dataclasses import replace
from typing import Any

from r2reasoner.gateway.wire import Asked, read_asked
from r2reasoner.plan import direct
from r2reasoner.types import (
    Allocation,
    Answer,
    AnswerStatus,
    Call,
    CallOutcome,
    Plan,
    Query,
    Role,
    Trace,
    Usage,
)


def said(*texts: str) -> list[dict[str, Any]]:
    """Return turns, the user's first."""
    return [
        {"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)
    ]


def asked(*messages: dict[str, Any], **more: Any) -> Asked:
    return read_asked(json.dumps({"model": "r2reasoner", "messages": messages} | more).encode())


def call(model: str, usage: Usage, **more: Any) -> Call:
    call = Call(
        id="c",
        role=Role.WORKER,
        model=model,
        subtask=1,
        attempt=1,
        outcome=CallOutcome.OK,
        usage=usage,
        cost=0,
        bound=0,
        started_at=0,
        latency_s=0,
        ttft_s=None,
        finish_reason="stop",
        error=None,
        note=None,
    )
    return replace(call, **more)


def trace(*calls: Call, plan: Plan | None = None) -> Trace:
    return Trace(
        id="t",
        query=Query("q", "t"),
        pool="p",
        trade_off=0.3,
        plan=plan or direct("q"),
        plan_notes=(),
        plan_failed=False,
        allocation=Allocation((None,), "none", calibrated=False),
        steps=(),
        answer=Answer("a", AnswerStatus.COMPLETE),
        calls=calls,
        started_at=0,
        wall_s=0,
    )
