"""A request answered by the engine: its events as progress, its Trace as the answer."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from r2reasoner.bill import bill
from r2reasoner.budget import Meter
from r2reasoner.chat import Refusal, cut_at
from r2reasoner.gateway.answers import choice_of
from r2reasoner.gateway.errors import over_budget
from r2reasoner.gateway.gateway import Gateway
from r2reasoner.gateway.live import Running, as_line
from r2reasoner.gateway.parts import Delta, Done, Part, Progress
from r2reasoner.gateway.purse import KeyMeter
from r2reasoner.gateway.routing import Routed
from r2reasoner.gateway.staying import Staying
from r2reasoner.gateway.wire import Asked
from r2reasoner.types import AnswerStatus, Query, Trace, Usage

EARLY_S: Final = 0.05
"""A timer counts in milliseconds, and may fire that much before its moment by another clock."""


async def answer(
    gateway: Gateway, asked: Asked, way: Routed, query_id: str, meter: Meter, running: Running
) -> AsyncGenerator[Part, None]:
    """Yield progress, then the answer. Raises Refusal where there is none, and R2Error."""
    router = gateway.router(way.settings)
    if way.talk is not None:
        router.allocator = Staying(router.allocator, gateway.pool, way.talk)
    query = Query(asked.text, query_id, asked.earlier, way.conversation)
    trace: Trace | None = None
    async with aclosing(
        router.run(query, direct=way.direct, watch=running.tell, meter=meter)
    ) as events:
        async for event in events:
            if isinstance(event, Trace):
                trace = event
                break
            if line := as_line(event):
                yield Progress(line)
    assert trace is not None
    if trace.answer.status is AnswerStatus.FAILED:
        raise _failure(trace, meter)
    way.note(trace)
    text, stopped = cut_at(trace.answer.text, asked.stop)
    finish = "stop" if stopped else _finish_reason(trace)
    message = {"role": "assistant", "content": text, "refusal": None}
    yield Delta([choice_of(delta={"content": text})])
    yield Done(
        trace=trace,
        choices=[choice_of(message=message, finish_reason=finish)],
        finish=[choice_of(delta={}, finish_reason=finish)],
        usage=sum((call.usage for call in trace.calls), Usage()),
        cost=trace.cost(),
        alone=bill(trace, gateway.pool).strongest_alone,
        notes=_notes(asked),
    )


def _notes(asked: Asked) -> dict[str, Any]:
    return {"ignored": list(asked.ignored)} if asked.ignored else {}


def _finish_reason(trace: Trace) -> str:
    """Return `length` where the end of the answer was cut by the limit."""
    last = max(trace.plan.used_by_answer, default=1)
    ends = [call.finish_reason for call in trace.calls if call.subtask == last]
    return "length" if ends and ends[-1] == "length" else "stop"


def _failure(trace: Trace, meter: Meter) -> Refusal:
    """Return why there is no answer: money, time or models."""
    note = trace.answer.note or "no model answered"
    details = {"trace_id": trace.id}
    if isinstance(meter, KeyMeter) and meter.over_budget is not None:
        refusal = over_budget(note, meter.over_budget.left)
        refusal.details = {**refusal.details, **details}
        return refusal
    if meter.cap is not None and not trace.calls:
        return Refusal(402, note, code="budget_exceeded", details=details)
    if trace.wall_s >= float(trace.settings["deadline_s"]) - EARLY_S:
        return Refusal(504, note, code="deadline_exceeded", details=details)
    return Refusal(502, note, code="no_answer", details=details)
