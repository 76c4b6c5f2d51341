"""The list of traces: search, filters, pages; and one trace as JSON."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from r2reasoner.errors import ConfigError
from r2reasoner.gateway.dashboard.books import MOST_PAGES, Search
from r2reasoner.gateway.dashboard.web import HEADERS, Desk
from r2reasoner.types import AnswerStatus, Pico, to_pico

MOST_WORDS: Final = 200
MOST_DOLLARS: Final = Decimal(10**6)


def page(desk: Desk, request: Request) -> Response:
    """Return one page of the traces that are searched for."""
    fields = {name: value for name, value in request.query_params.items() if value.strip()}
    try:
        wanted, number = read_search(fields), _page(fields.get("page", "1"))
        trouble = ""
    except ConfigError as error:
        wanted, number, trouble = Search(), 1, str(error)
    found = desk.books.search(wanted, number)
    asked = {name: value for name, value in fields.items() if name != "page"}
    return desk.page(
        request,
        "traces.html",
        status=400 if trouble else 200,
        trouble=trouble,
        traces=found.traces,
        fields=fields,
        is_filtered=not wanted.is_empty,
        statuses=[status.value for status in AnswerStatus],
        models=desk.books.models(),
        scores=desk.scores.all(),
        page_number=number,
        newer=_link(asked, number - 1) if number > 1 else "",
        older=_link(asked, number + 1) if found.more and number < MOST_PAGES else "",
    )


def json(desk: Desk, request: Request) -> Response:
    """Return one trace as it was saved."""
    identifier = request.path_params["identifier"]
    text = desk.gateway.ledger.trace_json(identifier)
    disposition = {"content-disposition": 'attachment; filename="trace.json"'}
    return Response(text, 200, HEADERS | disposition, "application/json")


def read_search(fields: Mapping[str, str]) -> Search:
    """Return what a query string asks for. Raises ConfigError for what is no status or amount."""
    status = fields.get("status", "")
    if status and status not in set(AnswerStatus):
        raise ConfigError(f"no status {status[:40]!r}; there are {', '.join(AnswerStatus)}")
    return Search(
        words=fields.get("q", "")[:MOST_WORDS],
        status=AnswerStatus(status) if status else None,
        model=fields.get("model", "")[:MOST_WORDS],
        least=_dollars(fields.get("least", ""), "least"),
        most=_dollars(fields.get("most", ""), "most"),
    )


def _dollars(text: str, name: str) -> Pico | None:
    if not text.strip():
        return None
    try:
        amount = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not (amount.is_finite() and 0 <= amount <= MOST_DOLLARS):
        raise ConfigError(f"{name}: expected dollars, e.g. 0.002, not {text[:40]!r}")
    return to_pico(amount)


def _page(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_PAGES):
        raise ConfigError(f"page: expected a number from 1 to {MOST_PAGES}, not {text[:40]!r}")
    return int(text)


def _link(fields: Mapping[str, str], page: int) -> str:
    return "?" + urlencode({**fields, "page": page} if page > 1 else dict(fields))
