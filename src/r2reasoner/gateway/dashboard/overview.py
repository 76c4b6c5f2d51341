"""The first page: what was spent and saved, on what, how many answers were right."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from r2reasoner.gateway.dashboard.books import (
    Books,
    Day,
    Search,
    Spent,
    last_days,
    today,
    total,
)
from r2reasoner.gateway.dashboard.days import DaySpent, draw_days
from r2reasoner.gateway.dashboard.savings import Saved, Savings
from r2reasoner.gateway.dashboard.scores import Score, Scores
from r2reasoner.gateway.dashboard.web import Desk
from r2reasoner.types import Pico, Role

DAYS: Final = 30
NEWEST: Final = 8
ROLE_WORDS: Final = {
    Role.DECOMPOSER: "planning",
    Role.ALLOCATOR: "allocating",
    Role.WORKER: "subtasks",
    Role.FINAL: "final subtasks",
    Role.CALIBRATION: "calibration",
    Role.CHECK: "checks",
}


class ShareOf(NamedTuple):
    """One line of a table of spending; `share` is of the dearest line, for its bar."""

    name: str
    spent: Spent
    share: float


class Accuracy(NamedTuple):
    """How many answers of one strategy on one benchmark were right."""

    name: str
    right: int
    of: int

    @property
    def share(self) -> float:
        """The share that was right."""
        return self.right / self.of


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page says. The month is the calendar's (UTC), as of budgets."""

    day: date
    today: Spent
    month: Spent
    queries_today: int
    queries_month: int
    saved: Saved
    chart: str
    by_model: list[ShareOf]
    by_role: list[ShareOf]
    accuracy: list[Accuracy]

    @property
    def right(self) -> int:
        """Answers that were judged right."""
        return sum(line.right for line in self.accuracy)

    @property
    def scored(self) -> int:
        """Answers that were judged."""
        return sum(line.of for line in self.accuracy)


def overview(books: Books, savings: Savings, scores: Scores, strongest: str) -> Overview:
    """Return what the first page says. Raises LedgerError."""
    day = today()
    first = day.replace(day=1)
    shown = last_days(DAYS)
    days = {d: books.day(d) for d in {*shown, *_days_from(first, day)}}
    month = [days[d] for d in _days_from(first, day)]
    saved, _ = savings.since(first)
    _, saved_by_day = savings.since(min(first, shown[0]))
    tomorrow = day + timedelta(days=1)
    return Overview(
        day=day,
        today=total([days[day]]),
        month=total(month),
        queries_today=books.queries(day, tomorrow),
        queries_month=books.queries(first, tomorrow),
        saved=saved,
        chart=_chart(shown, days, saved_by_day, strongest),
        by_model=_shares((source.model, s) for d in month for source, s in d.items()),
        by_role=_shares((ROLE_WORDS[source.role], s) for d in month for source, s in d.items()),
        accuracy=_accuracy(scores.all().values()),
    )


def page(desk: Desk, request: Request) -> Response:
    """Return the first page."""
    pool = desk.gateway.pool
    return desk.page(
        request,
        "overview.html",
        view=overview(desk.books, desk.savings, desk.scores, pool.strongest.name),
        strongest=pool.strongest.name,
        newest=desk.books.search(Search(), size=NEWEST).traces,
        scores=desk.scores.all(),
    )


def _days_from(first: date, last: date) -> list[date]:
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


def _chart(
    shown: list[date], days: Mapping[date, Day], saved: Mapping[date, Pico], strongest: str
) -> str:
    bars = [DaySpent(d, total([days[d]]).cost, saved.get(d, 0)) for d in shown]
    return draw_days(bars, strongest)


def _shares(parts: Iterable[tuple[str, Spent]]) -> list[ShareOf]:
    sums: dict[str, Spent] = {}
    for name, spent in parts:
        sums[name] = sums.get(name, Spent()) + spent
    dearest = max((spent.cost for spent in sums.values()), default=0)
    lines = [ShareOf(name, s, s.cost / dearest if dearest else 0.0) for name, s in sums.items()]
    return sorted(lines, key=lambda line: (-line.spent.cost, -line.spent.calls))


def _accuracy(scores: Iterable[Score]) -> list[Accuracy]:
    right: Counter[str] = Counter()
    of: Counter[str] = Counter()
    for score in scores:
        name = f"{score.strategy} on {score.benchmark}, {score.split}"
        of[name] += 1
        right[name] += score.right
    return [Accuracy(name, right[name], of[name]) for name in sorted(of)]
