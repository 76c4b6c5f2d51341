"""POST /v1/chat/completions and /v1/responses: from a request to its answer, streamed or whole.

Nothing is dispatched before who asks, what is asked, and what may be spent have been checked.
"""

import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from r2reasoner.budget import Meter
from r2reasoner.chat import Refusal, to_json
from r2reasoner.errors import R2Error
from r2reasoner.gateway import direct, routed
from r2reasoner.gateway.answers import Writer, dollars
from r2reasoner.gateway.auth import Caller, authenticate
from r2reasoner.gateway.dialect import Dialect
from r2reasoner.gateway.errors import over_budget, refusal_of
from r2reasoner.gateway.gateway import Gateway
from r2reasoner.gateway.keys import OverRate
from r2reasoner.gateway.noted import Notes, Work
from r2reasoner.gateway.parts import Done, Part
from r2reasoner.gateway.purse import KeyMeter
from r2reasoner.gateway.routing import ROUTER, Direct, Routed, Way, way_of
from r2reasoner.gateway.staying import steer
from r2reasoner.gateway.stream import EventStream, unless_gone
from r2reasoner.gateway.wire import MAX_BODY_BYTES, Asked
from r2reasoner.ledger import new_id
from r2reasoner.types import AnswerStatus, Pico

LOG: Final = logging.getLogger("r2reasoner.gateway")
BYPASS: Final = "x-r2-bypass"
MOST_DISCARDED: Final = 8 << 20
"""A body too large is read so far, because a client that still sends may not see the answer."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """One request that may be answered."""

    gateway: Gateway
    caller: Caller
    dialect: Dialect
    asked: Asked
    way: Way
    trace_id: str
    notes: Notes

    @property
    def headers(self) -> dict[str, str]:
        return {"x-r2-trace-id": self.trace_id}


async def answer(gateway: Gateway, request: Request, read: Callable[[bytes], Dialect]) -> ASGIApp:
    """Answer a request in the API that reads it. Raises Refusal."""
    caller = await authenticate(gateway, request)
    dialect = read(await read_body(request))
    asked = dialect.asked
    caller.check_model(asked.model)
    gateway = gateway.over(asked.wish.pool)
    bypass = request.headers.get(BYPASS) == "1"
    turn = _Turn(
        gateway,
        caller,
        dialect,
        asked,
        steer(gateway, caller.who, asked, _way(gateway, caller, asked, request, bypass=bypass)),
        new_id(),
        request.scope["r2"],
    )
    turn.notes.update(model=asked.model, trace=turn.trace_id, stream=asked.stream)
    if caller.key is not None:
        turn.notes["key"] = caller.key.name
        await _admit(turn)
    name = None if bypass else gateway.cache.name(caller.who, asked, turn.way.settings)
    if name is not None and (kept := gateway.cache.get(name)) is not None:
        gateway.metrics.cache_hits.inc()
        return _again(turn, kept)
    writer = Writer(turn.trace_id, asked.model, gateway.pool)
    if asked.stream:
        return _stream(turn, writer, name)
    answered = await unless_gone(request.receive, _whole(turn))
    if answered is None:
        turn.notes["gone"] = True
        return Response(status_code=499)
    completion = writer.completion(answered)
    try:
        body = dialect.whole(completion)
    except Refusal as refusal:
        raise _with_trace(refusal, turn) from None
    if _is_kept(name, answered):
        gateway.cache.put(name, completion)
    return _json(body, turn.headers | _cost_header(answered.cost))


async def read_body(request: Request) -> bytes:
    """Return a request's body, however it is sent. Raises Refusal (413) where it is too large."""
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isdigit() else 0
    pieces: list[bytes] = []
    got = 0
    try:
        if size <= MOST_DISCARDED:
            async for piece in request.stream():
                got += len(piece)
                if got > MOST_DISCARDED:
                    break
                if max(size, got) <= MAX_BODY_BYTES:
                    pieces.append(piece)
    except ClientDisconnect:
        raise Refusal(400, "the body broke off") from None
    if max(size, got) > MAX_BODY_BYTES:
        raise Refusal(
            413,
            f"the body is larger than {MAX_BODY_BYTES} bytes",
            code="body_too_large",
            headers={"connection": "close"},
        )
    return b"".join(pieces)


def _way(gateway: Gateway, caller: Caller, asked: Asked, request: Request, *, bypass: bool) -> Way:
    """Return how a request is answered, a canary's by the router although it names a model."""
    way = way_of(asked, gateway.pool, gateway.settings, bypass=bypass)
    named = not asked.model.startswith(ROUTER)
    if named and not bypass and gateway.trial.is_canary(asked, caller.who):
        request.scope["r2"]["canary"] = True
        return Routed(way.settings, direct=False)
    return way


async def _admit(turn: _Turn) -> None:
    """Raise Refusal where a key has no request (429) or no money (402) left.

    Money is held before each call anyway; asking first saves a plan that nobody could pay for.
    """
    keys, key = turn.gateway.keys, turn.caller.key
    assert key is not None
    try:
        await keys.admit(key)
    except OverRate as error:
        raise Refusal(
            429,
            str(error),
            code="rate_limit_exceeded",
            headers={"retry-after": str(error.retry_after_s)},
        ) from None
    if key.has_budget and isinstance(turn.way, Routed):
        left = (await keys.spending(key)).left(key)
        if left is not None and left <= 0:
            raise over_budget(f"the budget of key {key.name!r} is used up", left)


async def _parts(turn: _Turn) -> AsyncGenerator[Part, None]:
    """Yield the answer's parts, and book what it cost whatever happens."""
    gateway, key = turn.gateway, turn.caller.key
    meter = gateway.meter(turn.trace_id, turn.way.settings, key)
    running = gateway.live.start(turn.trace_id, None if key is None else key.id)
    work = turn.notes.work = Work(turn.asked, turn.way, meter, running)
    how = (gateway, turn.asked)
    if isinstance(turn.way, Routed):
        parts = routed.answer(*how, turn.way, turn.trace_id, meter, running)
    else:
        parts = direct.answer(*how, turn.way, turn.trace_id, meter, running)
    try:
        async with aclosing(parts):
            async for part in parts:
                work.saw(part)
                yield part
                if isinstance(part, Done):
                    _shadow(turn, part.cost)
    except Exception as error:
        turn.notes["error"] = work.failed(error)
        raise
    finally:
        gateway.live.end(turn.trace_id)
        work.count(gateway.metrics)
        _book(turn, meter)
        if isinstance(meter, KeyMeter):
            meter.claim()


def _book(turn: _Turn, meter: Meter) -> None:
    turn.notes["calls"] = len(meter.calls)
    turn.notes["cost"] = dollars(meter.spent)


async def _whole(turn: _Turn) -> Done:
    done: Done | None = None
    try:
        async with aclosing(_parts(turn)) as parts:
            async for part in parts:
                done = part if isinstance(part, Done) else done
    except (Refusal, R2Error) as error:
        raise _with_trace(refusal_of(error), turn) from None
    assert done is not None
    return done


def _with_trace(refusal: Refusal, turn: _Turn) -> Refusal:
    refusal.headers = {**refusal.headers, **turn.headers}
    return refusal


def _stream(turn: _Turn, writer: Writer, name: bytes | None) -> EventStream:
    async def keeping() -> AsyncGenerator[Part, None]:
        async with aclosing(_parts(turn)) as parts:
            async for part in parts:
                if isinstance(part, Done) and _is_kept(name, part):
                    turn.gateway.cache.put(name, writer.completion(part))
                yield part

    options = turn.gateway.options
    return EventStream(
        turn.dialect.events(keeping(), writer),
        turn.headers,
        keep_alive_s=options.keep_alive_s,
        write_timeout_s=options.write_timeout_s,
        failed=lambda refusal: turn.dialect.failed(refusal, writer),
    )


def _is_kept(name: bytes | None, done: Done) -> TypeGuard[bytes]:
    """Tell whether an answer is whole and has a name to be kept under."""
    is_whole = bool(done.choices) and done.trace.answer.status is not AnswerStatus.PARTIAL
    return name is not None and is_whole


def _again(turn: _Turn, kept: Mapping[str, Any]) -> ASGIApp:
    """Return a kept answer: it costs nothing, and says that it is one."""
    turn.notes.update(cached=True, trace=kept["r2"]["trace_id"])
    completion = {**kept, "r2": {**kept["r2"], "cached": True}}
    headers = {"x-r2-trace-id": kept["r2"]["trace_id"], **_cost_header(0)}
    if not turn.asked.stream:
        return _json(turn.dialect.whole(completion), headers)
    return Response(turn.dialect.again(completion), 200, headers, "text/event-stream")


def _shadow(turn: _Turn, cost: Pico | None) -> None:
    """Route a request in the background that was answered directly, to compare the cost."""
    gateway, asked = turn.gateway, turn.asked
    if (
        cost is None
        or not isinstance(turn.way, Direct)
        or asked.model.startswith(ROUTER)
        or not gateway.trial.is_shadowed(asked, turn.caller.who)
    ):
        return
    gateway.trial.run(_route_in_background(turn, cost))


async def _route_in_background(turn: _Turn, cost: Pico) -> None:
    gateway, way = turn.gateway, Routed(turn.way.settings, direct=False)
    trace_id = new_id()
    meter = gateway.meter(trace_id, way.settings, None)
    running = gateway.live.start(trace_id, None)
    work = Work(turn.asked, way, meter, running)
    told = {"shadow_of": turn.trace_id, "trace": trace_id, "direct": dollars(cost)}
    try:
        async with aclosing(
            routed.answer(gateway, turn.asked, way, trace_id, meter, running)
        ) as parts:
            async for part in parts:
                work.saw(part)
        told["status"] = "answered"
    except (Refusal, R2Error) as error:
        told["status"] = work.failed(error)
    finally:
        gateway.live.end(trace_id)
        work.count(gateway.metrics)
        if gateway.spans is not None:
            gateway.spans.record(work.told_in_background(trace_id, turn.trace_id))
        gateway.metrics.shadow_dollars.labels("direct").inc(float(dollars(cost) or 0))
        gateway.metrics.shadow_dollars.labels("routed").inc(float(dollars(meter.spent) or 0))
        LOG.info(json.dumps(told | {"routed": dollars(meter.spent)}))


def _cost_header(cost: Pico | None) -> dict[str, str]:
    return {"x-r2-cost": dollars(cost) or "unknown"}


def _json(body: Any, headers: Mapping[str, str]) -> Response:
    return Response(to_json(body), 200, dict(headers), "application/json")
