"""Entries, closings and traces for the tests of the ledger; light, for processes to import."""

import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

from r2reasoner.ledger import EntryOpen, new_id
from r2reasoner.pool.cards import Price
from r2reasoner.types import (
    Allocation,
    Answer,
    AnswerStatus,
    Call,
    CallOutcome,
    Choice,
    Message,
    Plan,
    Query,
    Role,
    Step,
    Subtask,
    Trace,
    Usage,
)

BOUND = Usage(500, 300)
PRICE = Price(Decimal("0.15"), Decimal("0.60"))


def entry(query_id: str = "q", **changes: Any) -> EntryOpen:
    found = EntryOpen(
        id=new_id(),
        query_id=query_id,
        role=Role.WORKER,
        model="small",
        subtask=1,
        attempt=1,
        bound=255_000_000,
        bound_usage=BOUND,
        price=PRICE,
        started_at=time.time(),
    )
    return replace(found, **changes)


def closing(opened: EntryOpen, **changes: Any) -> Call:
    call = Call(
        id=opened.id,
        role=opened.role,
        model=opened.model,
        subtask=opened.subtask,
        attempt=opened.attempt,
        outcome=CallOutcome.OK,
        usage=Usage(400, 100, 10, 5),
        cost=120_000_000,
        bound=opened.bound,
        started_at=opened.started_at,
        latency_s=0.5,
        ttft_s=0.1,
        finish_reason="stop",
        error=None,
        note=opened.note,
    )
    return replace(call, **changes)


def trace(**changes: Any) -> Trace:
    call = closing(entry())
    found = Trace(
        id=new_id(),
        query=Query("walk left twice", "q1", (Message("user", "hello"),)),
        pool="nano",
        trade_off=0.3,
        plan=Plan((Subtask("walk left"), Subtask("#1 #1")), "#2"),
        plan_notes=("repaired once",),
        plan_failed=False,
        allocation=Allocation((Choice("small", "cheapest", 0.9), None), "outcomes", True),
        steps=(Step(1, "small", "walk left", "TURN_LEFT WALK", None, 0.1, 0.2, ("tiny",)),),
        answer=Answer("TURN_LEFT WALK TURN_LEFT WALK", AnswerStatus.COMPLETE),
        calls=(call,),
        started_at=1_700_000_000.25,
        wall_s=0.5,
        settings={"temperature": 0, "models": ["a", "b"], "cap": None},
    )
    return replace(found, **changes)
