"""What every request passes: refusals that need no route, the access log, the figures.

The log has one JSON line per request: never a prompt, an answer, a secret or a query string.
"""

import json
import logging
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r2reasoner.chat import Refusal
from r2reasoner.gateway.auth import refuse_keys_in
from r2reasoner.gateway.errors import error_response
from r2reasoner.gateway.gateway import Gateway

LOG: Final = logging.getLogger("r2reasoner.gateway.access")
SAFE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
OTHER: Final = "other"


class Front:
    """The outermost application. `scope["r2"]` is where routes put what the log tells of them."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note its end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0
        notes: dict[str, Any] = {}
        scope["r2"] = notes

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *SAFE]
            await send(message)

        metrics = self._gateway.metrics
        metrics.in_flight.inc()
        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await error_response(refusal)(scope, receive, noting)
            else:
                await self._app(scope, receive, noting)
        finally:
            metrics.in_flight.dec()
            seconds = time.monotonic() - started
            route = _route(scope)
            metrics.requests.labels(route, str(status)).inc()
            metrics.seconds.labels(route).observe(seconds)
            if LOG.isEnabledFor(logging.INFO):
                LOG.info(_line(scope, status, seconds, notes))

    def _refusal(self, scope: Scope) -> Refusal | None:
        try:
            refuse_keys_in(scope.get("query_string", b""))
        except Refusal as refusal:
            return refusal
        if self._gateway.draining and scope["method"] == "POST":
            return Refusal(
                503, "this gateway is shutting down", code="draining", headers={"retry-after": "1"}
            )
        return None


def _route(scope: Scope) -> str:
    """Return the path of the route that took a request, so that there are few of them."""
    route = scope.get("r2", {}).get("route")
    return route if isinstance(route, str) else OTHER


def _line(scope: Scope, status: int, seconds: float, notes: dict[str, Any]) -> str:
    told = {
        "at": round(time.time(), 3),
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": status or None,
        "ms": round(seconds * 1000, 1),
        **notes,
    }
    return json.dumps(told)
