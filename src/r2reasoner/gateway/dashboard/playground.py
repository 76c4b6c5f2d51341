"""Asking from the dashboard: events as they happen, one JSON object a line, ended by the result.

Who asks is the admin, so no key pays; the gateway's own cap on a query holds.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from r2reasoner.bill import bill
from r2reasoner.config import Settings, settings
from r2reasoner.errors import ConfigError, R2Error
from r2reasoner.events import Allocated, Event, Planned
from r2reasoner.gateway.dashboard.graph import Node, draw_graph
from r2reasoner.gateway.dashboard.shown import money, seconds, share
from r2reasoner.gateway.dashboard.web import HEADERS, Desk
from r2reasoner.gateway.live import as_object
from r2reasoner.ledger import new_id
from r2reasoner.types import Plan, Query, Trace

LINES: Final = "text/x-json-lines; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how."""

    text: str
    settings: Settings
    direct: bool


def page(desk: Desk, request: Request) -> Response:
    """Return the page to ask on."""
    gateway = desk.gateway
    return desk.page(
        request,
        "playground.html",
        trade_off=gateway.settings.trade_off,
        cap=gateway.settings.max_cost,
        text=request.query_params.get("q", "")[: gateway.settings.max_query_bytes],
        strongest=gateway.pool.strongest.name,
        is_nano=gateway.pool.name.startswith("nano"),
    )


async def ask(desk: Desk, request: Request, form: Mapping[str, str]) -> Response:
    """Answer a question as a stream of events. Raises ConfigError for a wrong one."""
    question = read_question(form, desk.gateway.settings)
    return StreamingResponse(_lines(desk, question), headers=HEADERS, media_type=LINES)


def read_question(form: Mapping[str, str], base: Settings) -> Question:
    """Return what a form asks; its cost is at most the operator's cap. Raises ConfigError."""
    text = form.get("query", "").strip()
    if not text:
        raise ConfigError("the query is empty; expected a question or a task")
    wish = settings(
        trade_off=form.get("trade_off") or None,
        max_cost=form.get("max_cost", "").strip() or None,
    )
    caps = [cap for cap in (base.max_cost, wish.max_cost) if cap is not None]
    asked = replace(base, trade_off=wish.trade_off, max_cost=min(caps, default=None))
    return Question(text, asked, form.get("direct") == "on")


async def _lines(desk: Desk, question: Question) -> AsyncIterator[str]:
    """Yield an object per event, with the plan's picture; then the trace's end, or an error."""
    query = Query(question.text, new_id())
    gateway = desk.gateway
    yield _line({"type": "begun", "id": query.id})
    running = gateway.live.start(query.id, None)
    plan: Plan | None = None
    try:
        router = gateway.router(question.settings)
        async with aclosing(router.run(query, direct=question.direct)) as events:
            async for event in events:
                if isinstance(event, Trace):
                    gateway.metrics.count(event.calls)
                    await gateway.ledger.flush()
                    yield _line(_end(event, desk))
                    return
                running.tell(event)
                if isinstance(event, Planned):
                    plan = event.plan
                yield _line(as_object(event) | _picture(event, plan))
    except R2Error as error:
        yield _line({"type": "error", "message": str(error)})
    finally:
        gateway.live.end(query.id)


def _picture(event: Event, plan: Plan | None) -> dict[str, Any]:
    """Return the plan as SVG, when it is made and when its subtasks have their models."""
    if not isinstance(event, Planned | Allocated) or plan is None:
        return {}
    models = ["" for _ in plan.subtasks]
    if isinstance(event, Allocated):
        models = [choice.model if choice else "join" for choice in event.allocation.choices]
    nodes = [
        Node(f"#{n} {model}".strip(), subtask.text, "", "waits")
        for n, (subtask, model) in enumerate(zip(plan.subtasks, models, strict=True), 1)
    ]
    return {"graph": draw_graph(plan, nodes, plan.answer)}


def _end(trace: Trace, desk: Desk) -> dict[str, Any]:
    billed = bill(trace, desk.gateway.pool)
    return {
        "type": "ended",
        "id": trace.id,
        "answer": trace.answer.text,
        "status": trace.answer.status.value,
        "note": trace.answer.note or "",
        "cost": money(billed.total),
        "alone": money(billed.strongest_alone),
        "strongest": billed.strongest,
        "saved": "" if billed.saved is None else _saved(billed.saved),
        "calls": len(trace.calls),
        "wall": seconds(trace.wall_s),
    }


def _saved(part: float) -> str:
    return f"{share(abs(part))} {'saved' if part >= 0 else 'more'}"


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"
