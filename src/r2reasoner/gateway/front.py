"""What every request passes: refusals that need no route, our own failures; log, figures, spans.

The log has one JSON line per request: never a prompt, an answer, a secret or a query string.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r2reasoner.chat import Refusal
from r2reasoner.errors import R2Error
from r2reasoner.gateway.auth import refuse_keys_in
from r2reasoner.gateway.errors import error_response, refusal_of, shutting_down
from r2reasoner.gateway.gateway import Gateway
from r2reasoner.gateway.logs import failure
from r2reasoner.gateway.noted import BROKEN, Notes, code_of
from r2reasoner.telemetry.told import Attributes

LOG: Final = logging.getLogger("r2reasoner.gateway.access")
SAFE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
TRACE: Final = b"x-r2-trace-id"
OTHER: Final = "other"
SECRET: Final = re.compile(r"r2-[\w-]{8,}")
API: Final = "/v1/"
JSON: Final = "application/json"


class Front:
    """The outermost application but for CORS.

    `scope["r2"]` is where routes put what the log tells of them.
    `asking` are the applications that a POST to a path goes to directly, being asked most.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway, asking: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._gateway = gateway
        self._asking = asking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note its end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        notes = scope["r2"] = Notes()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _headers(message, notes)
            await send(message)

        metrics = self._gateway.metrics
        metrics.in_flight.inc()
        try:
            self._check(scope)
            await self._application(scope)(scope, receive, noting)
        except (Refusal, R2Error) as error:
            if status:
                raise
            notes["error"] = code_of(error)
            await error_response(refusal_of(error))(scope, receive, noting)
        except asyncio.CancelledError:  # the time to drain is over
            if status:
                raise
            await error_response(shutting_down())(scope, receive, noting)
        except Exception as error:  # the client learns that it is our fault, the log where it is
            notes["error"] = BROKEN
            head = {"at": round(time.time(), 3), "level": "error"}
            LOG.error(json.dumps({**head, **notes, **failure(error)}))
            if not status:
                refusal = Refusal(500, "the gateway failed", code=BROKEN)
                await error_response(refusal)(scope, receive, noting)
        finally:
            metrics.in_flight.dec()
            self._tell(scope, status, notes)

    def _tell(self, scope: Scope, status: int, notes: Notes) -> None:
        """Tell of a request that has ended."""
        seconds = time.monotonic() - notes.began
        metrics, spans, route = self._gateway.metrics, self._gateway.spans, _route(scope)
        metrics.requests.labels(route, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        if notes.work is not None:
            notes.work.count_answer(metrics, notes.began)
            if notes.work.error is not None:
                notes.setdefault("error", notes.work.error)
        if "error" in notes:
            metrics.errors.labels(notes["error"]).inc()
        if spans is not None and (told := notes.tell(seconds, _http(scope, status))) is not None:
            notes["otel_trace_id"] = spans.record(told, _parent(scope))
        if LOG.isEnabledFor(logging.INFO):
            LOG.info(_line(scope, status, seconds, notes))

    def _application(self, scope: Scope) -> ASGIApp:
        """Return who answers: for a question its handler at once, past routes and middleware."""
        if scope["method"] != "POST":
            return self._app
        return self._asking.get(scope["path"], self._app)

    def _check(self, scope: Scope) -> None:
        """Raise Refusal for what no route is to see."""
        refuse_keys_in(scope.get("query_string", b""))
        _check_type(scope)
        if self._gateway.draining and scope["method"] == "POST":
            raise shutting_down()


def _check_type(scope: Scope) -> None:
    """Raise Refusal (415) for what is posted to the API and not said to be JSON.

    Pages of any site can post other types to this machine without asking it first.
    """
    if scope["method"] != "POST" or not scope["path"].startswith(API):
        return
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise Refusal(415, f"expected content-type: {JSON}, got {kind[:80]!r}", code="not_json")


def _headers(message: Message, notes: Notes) -> list[tuple[bytes, bytes]]:
    """Return a response's headers, with those that each has."""
    headers = list(message.get("headers", ()))
    names = {name.lower() for name, _ in headers}
    if "trace" in notes and TRACE not in names:
        headers.append((TRACE, notes["trace"].encode()))
    return headers + [header for header in SAFE if header[0] not in names]


def _http(scope: Scope, status: int) -> Attributes:
    return {
        "http.request.method": scope["method"],
        "http.route": _route(scope),
        "http.response.status_code": status or None,
    }


def _parent(scope: Scope) -> dict[str, str]:
    """Return the headers by which a caller's own trace goes on here."""
    headers = Headers(scope=scope)
    return {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}


def _route(scope: Scope) -> str:
    """Return the path of the route that took a request, so that there are few of them."""
    route = scope.get("r2", {}).get("route")
    return route if isinstance(route, str) else OTHER


def _line(scope: Scope, status: int, seconds: float, notes: Notes) -> str:
    told = {
        "at": round(time.time(), 3),
        "method": scope["method"],
        "path": SECRET.sub("r2-…", scope["path"])[:200],
        "status": status or None,
        "ms": round(seconds * 1000, 1),
        **notes,
    }
    return json.dumps(told)
