"""The gateway's routes, as a Starlette application.

Every error leaves in OpenAI's shape: `front.py` writes all but those of routes that are not there.
The routes of the API are plain functions on the hot path; the dashboard brings its own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from r2reasoner.chat import Refusal
from r2reasoner.gateway import api, dashboard
from r2reasoner.gateway.front import Front
from r2reasoner.gateway.gateway import Gateway
from r2reasoner.gateway.noted import code_of


def build(gateway: Gateway) -> Starlette:
    """Return the application; closing it closes the gateway."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await gateway.aclose()

    routes: list[BaseRoute] = [*api.routes(gateway), *dashboard.routes(gateway)]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_route},
    )
    app.add_middleware(Front, gateway=gateway, asking=api.asking(gateway))
    if gateway.options.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=gateway.options.allow_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("x-r2-trace-id", "x-r2-cost", "retry-after"),
        )
    return app


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(
        error.status_code, f"{request.method} {request.url.path[:80]}: {error.detail}"
    )
    request.scope["r2"]["error"] = code_of(refusal)
    return JSONResponse(refusal.as_object(), error.status_code, headers=error.headers)
