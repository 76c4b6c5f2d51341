"""Requests and responses as every page has them: templates, headers, forms, who may come in.

A page is a plain function of a request, run in a thread, since it reads a database. The policy in
the headers lets a page load what this package serves and nothing else: no inline script, no inline
style. All text from people and models goes through Jinja2's escaping.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from r2reasoner.errors import ConfigError, DataError, LedgerError, R2Error
from r2reasoner.gateway.dashboard import shown
from r2reasoner.gateway.dashboard.books import Books
from r2reasoner.gateway.dashboard.savings import Savings
from r2reasoner.gateway.dashboard.scores import Scores
from r2reasoner.gateway.dashboard.session import COOKIE, LASTS_S, Session, Sessions
from r2reasoner.gateway.gateway import Gateway

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
MOST_FORM: Final = 2**20
MOST_FIELDS: Final = 100
TOKEN_HEADER: Final = "x-form-token"

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
        " object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class FormError(Exception):
    """A form cannot be taken. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Desk:
    """What the pages read: the gateway, its books, and who is logged in."""

    gateway: Gateway
    books: Books
    savings: Savings
    scores: Scores
    sessions: Sessions

    @classmethod
    def over(cls, gateway: Gateway) -> "Desk":
        """Return the desk of a gateway."""
        books = Books(gateway.ledger)
        return cls(
            gateway,
            books,
            Savings(books, gateway.pool_called),
            Scores.beside(gateway.ledger.where),
            Sessions(),
        )

    def session(self, request: Request) -> Session | None:
        """Return the session of a request, if it has one."""
        return self.sessions.find(request.cookies.get(COOKIE))

    def page(self, request: Request, name: str, *, status: int = 200, **context: Any) -> Response:
        """Return a template as a response."""
        session = self.session(request)
        text = (
            _templates()
            .get_template(name)
            .render(
                path=request.url.path,
                token=session.token if session else "",
                logged_in=session is not None,
                pool=self.gateway.pool.name,
                ledger=self.gateway.ledger.where,
                **context,
            )
        )
        # A lone surrogate, which models do write, must not fail the page.
        body = text.encode("utf-8", "replace")
        return Response(body, status, HEADERS, "text/html; charset=utf-8")

    def trouble(self, request: Request, status: int, message: str) -> Response:
        """Return a page that says what went wrong."""
        return self.page(
            request, "trouble.html", status=status, status_code=status, message=message
        )


Page = Callable[[Desk, Request], Response]
Action = Callable[[Desk, Request, Mapping[str, str]], Awaitable[Response]]


def show(desk: Desk, page: Page) -> Callable[[Request], Response]:
    """Return a page for those who are logged in; others are sent to the login."""

    def endpoint(request: Request) -> Response:
        _note_route(request)
        if desk.session(request) is None:
            return to_login(request)
        try:
            return page(desk, request)
        except R2Error as error:
            return desk.trouble(request, _status(error), str(error))

    return endpoint


def act(desk: Desk, action: Action) -> Callable[[Request], Awaitable[Response]]:
    """Return a change for those who are logged in and bring their session's form token."""

    async def endpoint(request: Request) -> Response:
        _note_route(request)
        session = desk.session(request)
        if session is None:
            return plain(401, "log in first: your session is over")
        try:
            form = await read_form(request)
            given = request.headers.get(TOKEN_HEADER) or form.get("token", "")
            if not desk.sessions.is_token(session, given):
                raise FormError(403, "this form is from another session: load the page again")
            return await action(desk, request, form)
        except FormError as error:
            return plain(error.status, str(error))
        except R2Error as error:
            return plain(_status(error), str(error))

    return endpoint


async def read_form(request: Request) -> dict[str, str]:
    """Return a form's fields, the last of each name. Raises FormError.

    A form that a browser says another site sent is refused.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise FormError(403, "a form of another site")
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise FormError(415, "expected a form (application/x-www-form-urlencoded)")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_FORM:
            raise FormError(413, f"a form has at most {MOST_FORM:,} bytes")
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=MOST_FIELDS,
            errors="strict",
        )
    except ValueError:
        raise FormError(400, "this is no form: expected UTF-8, URL-encoded") from None
    return dict(fields)


def to_login(request: Request) -> Response:
    """Send to the login, and back here after it."""
    query = f"?{request.url.query}" if request.url.query else ""
    back = quote(f"{request.url.path}{query}", safe="/")
    return RedirectResponse(f"/login?next={back}", 303, HEADERS)


def go(where: str) -> RedirectResponse:
    """Send to a page of ours after a change."""
    return RedirectResponse(where, 303, HEADERS)


def plain(status: int, message: str) -> Response:
    """Return an error that scripts and forms show."""
    return JSONResponse({"error": message}, status, HEADERS)


def keep_session(response: Response, session: Session, *, secure: bool) -> None:
    """Put a session's cookie into a response."""
    response.set_cookie(
        COOKIE,
        session.cookie,
        max_age=LASTS_S,
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def _note_route(request: Request) -> None:
    """Tell the gateway's figures what took the request."""
    request.scope.get("r2", {})["route"] = "dashboard"


def _status(error: R2Error) -> int:
    match error:
        case ConfigError():
            return 400
        case DataError():
            return 404
        case LedgerError():
            return 503
        case _:
            return 500


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown.FILTERS)
    environment.globals["asset"] = _asset
    return environment


@cache
def _asset(name: str) -> str:
    """Return the address of a static file, another one when its content is another."""
    digest = sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?{digest}"
