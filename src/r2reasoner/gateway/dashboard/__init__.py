"""The dashboard: what was spent and saved, how each answer was made, who may spend what.

Pages made on the server from the ledger and the keys, with little scripts that a browser may lack
(all but the playground works without). Everything is served from this package, under a policy that
lets a page load nothing else. Only the admin sees it; what it changes are keys.
"""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from r2reasoner.gateway.dashboard import (
    keys_page,
    overview,
    playground,
    pool_page,
    trace_page,
    traces,
)
from r2reasoner.gateway.dashboard.session import COOKIE
from r2reasoner.gateway.dashboard.web import (
    HEADERS,
    STATIC,
    Desk,
    FormError,
    act,
    go,
    keep_session,
    read_form,
    show,
)
from r2reasoner.gateway.gateway import Gateway

NEVER_CHANGES = "private, max-age=31536000, immutable"


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the dashboard's routes."""
    desk = Desk.over(gateway)
    pages = {
        "/": overview.page,
        "/traces": traces.page,
        "/traces/{identifier:str}/json": traces.json,
        "/traces/{identifier:str}": trace_page.page,
        "/playground": playground.page,
        "/pool": pool_page.page,
        "/keys": keys_page.page,
    }
    actions = {
        "/playground": playground.ask,
        "/keys": keys_page.create,
        "/keys/revoke": keys_page.revoke,
        "/logout": _logout,
    }
    return [
        *(Route(path, show(desk, page), methods=["GET"]) for path, page in pages.items()),
        *(Route(path, act(desk, action), methods=["POST"]) for path, action in actions.items()),
        *_login(desk),
        Mount("/static", _Static(directory=STATIC)),
    ]


def _login(desk: Desk) -> list[BaseRoute]:
    def form(request: Request) -> Response:
        return _form(desk, request, request.query_params.get("next", "/"))

    async def check(request: Request) -> Response:
        """Take the admin key; where it is wrong, say so, and after some tries take none."""
        place = request.client.host if request.client else ""
        try:
            fields = await read_form(request)
        except FormError as error:
            return _form(desk, request, "/", error.status, str(error))
        after = fields.get("next", "/")
        if not desk.sessions.may_try(place):
            trouble = "too many wrong keys from this address: wait a minute"
            return await run_in_threadpool(_form, desk, request, after, 429, trouble)
        if not desk.gateway.is_admin_key(fields.get("key", "").strip()):
            desk.sessions.failed(place)
            return await run_in_threadpool(_form, desk, request, after, 401, "not the admin key")
        response = go(_own(after))
        keep_session(response, desk.sessions.begin(), secure=request.url.scheme == "https")
        return response

    return [
        Route("/login", form, methods=["GET"]),
        Route("/login", check, methods=["POST"]),
    ]


def _form(
    desk: Desk, request: Request, after: str, status: int = 200, trouble: str = ""
) -> Response:
    return desk.page(
        request,
        "login.html",
        status=status,
        trouble=trouble,
        after=_own(after),
        has_admin_key=desk.gateway.admin_key is not None,
    )


async def _logout(desk: Desk, request: Request, form: object) -> Response:
    session = desk.session(request)
    if session is not None:
        desk.sessions.end(session)
    response = go("/login")
    response.delete_cookie(COOKIE, path="/")
    return response


def _own(where: str) -> str:
    """Return a path of this site, whatever a link said; not one that a browser takes for another.

    Browsers read a backslash as a slash and skip tabs and line breaks.
    """
    is_path = where.startswith("/") and not where.startswith(("//", "/\\"))
    return where if is_path and where.isprintable() and "\\" not in where else "/"


class _Static(StaticFiles):
    """Files of the package, with the same headers as pages; their addresses name their content."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = HEADERS | (
                    {"cache-control": NEVER_CHANGES} if scope["query_string"] else {}
                )
                message["headers"] += [(k.encode(), v.encode()) for k, v in added.items()]
            await send(message)

        await super().__call__(scope, receive, with_headers)
