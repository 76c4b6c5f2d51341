"""The routes of the API: chat completions, responses, models, traces, health, figures."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from r2reasoner.chat import DONE, Refusal, event, to_json
from r2reasoner.errors import DataError, R2Error
from r2reasoner.gateway import chatting, openapi
from r2reasoner.gateway.auth import Caller, authenticate, require_admin
from r2reasoner.gateway.dialect import Chat
from r2reasoner.gateway.errors import refusal_of
from r2reasoner.gateway.gateway import Gateway
from r2reasoner.gateway.metrics import CONTENT_TYPE
from r2reasoner.gateway.responses import Responses
from r2reasoner.gateway.routing import ROUTER, dial_of
from r2reasoner.gateway.stream import EventStream
from r2reasoner.pool.cards import Card

JSON: Final = "application/json"

Handler = Callable[[Gateway, Request], Awaitable[ASGIApp]]
Endpoint = Callable[[Request], Awaitable[ASGIApp]]


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the API's routes."""
    table: tuple[tuple[str, str, Handler], ...] = (
        *(("POST", path, handler) for path, handler in ASKING.items()),
        ("GET", "/v1/models", models),
        ("GET", "/v1/models/{name:path}", model),
        ("GET", "/v1/traces/{trace_id}", trace),
        ("GET", "/v1/traces/{trace_id}/events", trace_events),
        ("GET", "/healthz", health),
        ("GET", "/metrics", metrics),
        ("GET", openapi.PATH, described),
    )
    return [
        Route(path, _bound(gateway, path, handler), methods=[method])
        for method, path, handler in table
    ]


def _bound(gateway: Gateway, path: str, handler: Handler) -> Endpoint:
    async def endpoint(request: Request) -> ASGIApp:
        request.scope["r2"]["route"] = path
        return await handler(gateway, request)

    return endpoint


async def chat(gateway: Gateway, request: Request) -> ASGIApp:
    """Answer a conversation."""
    return await chatting.answer(gateway, request, Chat.read)


async def responses(gateway: Gateway, request: Request) -> ASGIApp:
    """Answer a conversation by the Responses API."""
    return await chatting.answer(gateway, request, Responses.read)


ASKING: Final[Mapping[str, Handler]] = {
    "/v1/chat/completions": chat,
    "/v1/responses": responses,
}
"""What is posted to ask models, by path."""


def asking(gateway: Gateway) -> dict[str, ASGIApp]:
    """Return what answers a POST of a question, by path: as its route does, without the way there.

    Its errors are left to who calls it.
    """
    return {
        path: _as_application(_bound(gateway, path, handler)) for path, handler in ASKING.items()
    }


def _as_application(endpoint: Endpoint) -> ASGIApp:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return application


async def models(gateway: Gateway, request: Request) -> Response:
    """List the router and the pool's models, as far as the caller may ask for them."""
    caller = await authenticate(gateway, request)
    listed = [_listed(gateway, None), *(_listed(gateway, card) for card in gateway.pool.workers)]
    return _json({"object": "list", "data": [m for m in listed if _allowed(caller, m["id"])]})


async def model(gateway: Gateway, request: Request) -> Response:
    """Return one model."""
    caller = await authenticate(gateway, request)
    name = request.path_params["name"]
    if name.startswith(f"{ROUTER}:"):
        dial_of(name)
        return _json({**_listed(gateway, None), "id": name})
    for card in (None, *gateway.pool.workers):
        listed = _listed(gateway, card)
        if listed["id"] == name and _allowed(caller, name):
            return _json(listed)
    raise Refusal(404, f"no model {name[:80]!r} here", code="model_not_found", param="model")


def _listed(gateway: Gateway, card: Card | None) -> dict[str, Any]:
    head = {"object": "model", "created": 0, "owned_by": "r2reasoner"}
    if card is None:
        pools = [gateway.pool.name, *gateway.others]
        return {"id": ROUTER, **head, "trade_off": gateway.settings.trade_off, "pools": pools}
    price = card.price
    return {
        "id": card.name,
        **head,
        "context": card.context,
        "max_tokens": card.max_tokens,
        "capabilities": sorted(card.capabilities),
        "input_price": None if price is None else f"{price.input:f}",
        "output_price": None if price is None else f"{price.output:f}",
    }


def _allowed(caller: Caller, name: str) -> bool:
    return caller.key is None or not caller.key.models or name in caller.key.models


async def trace(gateway: Gateway, request: Request) -> Response:
    """Return one trace as JSON: a key's own only, any to the admin."""
    trace_id = await _may_see(gateway, request)
    return _json(await _stored(gateway, trace_id))


async def trace_events(gateway: Gateway, request: Request) -> ASGIApp:
    """Return the events of a request while it runs; of one that has ended, its trace."""
    trace_id = await _may_see(gateway, request)
    running = gateway.live.get(trace_id)
    stored = None if running else await _stored(gateway, trace_id)

    async def events() -> AsyncGenerator[bytes, None]:
        if running is not None:
            async for happened in running.follow():
                yield event(happened)
        else:
            yield event({"type": "trace", "trace": stored})
        yield DONE

    options = gateway.options
    return EventStream(
        events(), {}, keep_alive_s=options.keep_alive_s, write_timeout_s=options.write_timeout_s
    )


async def _may_see(gateway: Gateway, request: Request) -> str:
    """Return the trace's id. Raises Refusal: 404 also for what is somebody else's."""
    caller = await authenticate(gateway, request)
    trace_id: str = request.path_params["trace_id"]
    running = gateway.live.get(trace_id)
    owner = running.key_id if running else await gateway.keys.owner(trace_id)
    if not caller.may_see(owner):
        raise _no_trace(trace_id)
    return trace_id


async def _stored(gateway: Gateway, trace_id: str) -> Any:
    await gateway.ledger.flush()
    try:
        text = await asyncio.to_thread(gateway.ledger.trace_json, trace_id)
    except DataError:
        raise _no_trace(trace_id) from None
    except R2Error as error:
        raise refusal_of(error) from None
    found = json.loads(text)
    if found["id"] != trace_id:  # the ledger also takes the beginning of an id
        raise _no_trace(trace_id)
    return found


def _no_trace(trace_id: str) -> Refusal:
    return Refusal(404, f"no trace {trace_id[:80]!r} of yours", code="trace_not_found")


async def health(gateway: Gateway, request: Request) -> Response:
    """Say that the gateway is up, or 503 while it drains."""
    if gateway.draining:
        return _json({"status": "draining"}, 503)
    return _json({"status": "ok"})


async def metrics(gateway: Gateway, request: Request) -> Response:
    """Return the figures for Prometheus, to the admin."""
    await require_admin(gateway, request)
    return Response(gateway.metrics.text(), media_type=CONTENT_TYPE)


async def described(gateway: Gateway, request: Request) -> Response:
    """Return the API's own description, to anybody."""
    return Response(openapi.document(), media_type=JSON)


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type=JSON)
