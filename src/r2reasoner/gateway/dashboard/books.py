"""Questions about a ledger that go over many rows: what days cost, which queries match.

Days are those of UTC, as budgets have them. Ids of entries and traces sort by time, so a day is a
range of their primary key. What retention removed of a day is in its sums all the same.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from r2reasoner.ledger import Ledger, TraceSummary, id_at
from r2reasoner.tables import DAILY_CALLS, DAILY_TRACES, ENTRIES, TRACES, clean, cost_of, sums
from r2reasoner.types import AnswerStatus, CallOutcome, Pico, Role

KEPT_DAYS: Final = 400
SETTLED_DAYS: Final = 2
"""After so many days a day's calls are settled, and what it cost is not asked again."""
PAGE: Final = 50
MOST_PAGES: Final = 2000


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over calls; `cost` in pico-dollars, without the `unpriced` ones."""

    calls: int = 0
    failed: int = 0
    unknown: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Pico = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.calls + other.calls,
            self.failed + other.failed,
            self.unknown + other.unknown,
            self.unpriced + other.unpriced,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost + other.cost,
        )


class Source(NamedTuple):
    """Who spent it: a model in a role."""

    model: str
    role: Role


Day = dict[Source, Spent]


@dataclass(frozen=True, slots=True)
class Search:
    """Which traces are wanted; empty fields want all. Costs in pico-dollars, both included."""

    words: str = ""
    status: AnswerStatus | None = None
    model: str = ""
    least: Pico | None = None
    most: Pico | None = None

    @property
    def is_empty(self) -> bool:
        """True when it wants all."""
        return self == Search()


class Found(NamedTuple):
    """One page of traces, newest first, and whether there are older ones."""

    traces: list[TraceSummary]
    more: bool


class Books:
    """Answers from one ledger; may be asked from several threads. All raise LedgerError."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._days: OrderedDict[date, Day] = OrderedDict()
        self._turn = threading.Lock()

    def day(self, day: date) -> Day:
        """Return what a day cost, by model and role."""
        with self._turn:
            known = self._days.get(day)
        if known is not None:
            return known
        found = self._ask_day(day)
        if day <= today() - timedelta(days=SETTLED_DAYS):
            with self._turn:
                self._days[day] = found
                while len(self._days) > KEPT_DAYS:
                    self._days.popitem(last=False)
        return found

    def _ask_day(self, day: date) -> Day:
        within = ENTRIES.c.id >= id_from(day), ENTRIES.c.id < id_from(day + timedelta(days=1))
        chosen = sums(and_(*within), DAILY_CALLS.c.day == day.isoformat())
        with self.ledger.reading() as connection:
            rows = connection.execute(chosen).all()
        found: Day = {}
        for row in rows:
            source = Source(row.model, Role(row.role))
            spent = Spent(
                calls=row.calls,
                failed=row.calls if row.outcome == CallOutcome.FAILED else 0,
                unknown=row.calls if row.outcome == CallOutcome.UNKNOWN else 0,
                unpriced=row.unpriced,
                input_tokens=int(row.input_tokens),
                output_tokens=int(row.output_tokens),
                cost=cost_of(row),
            )
            found[source] = found.get(source, Spent()) + spent
        return found

    def queries(self, since: date, until: date) -> int:
        """Return how many traces began from one day up to, without, another."""
        within = TRACES.c.id >= id_from(since), TRACES.c.id < id_from(until)
        days = DAILY_TRACES.c.day >= since.isoformat(), DAILY_TRACES.c.day < until.isoformat()
        there = select(func.count()).where(*within).scalar_subquery()
        removed = select(func.coalesce(func.sum(DAILY_TRACES.c.traces), 0)).where(*days)
        with self.ledger.reading() as connection:
            return int(connection.execute(select(there + removed.scalar_subquery())).scalar_one())

    def trace_ids(self, since: date, most: int) -> list[str]:
        """Return the ids of the newest traces since a day, newest first."""
        chosen = (
            select(TRACES.c.id)
            .where(TRACES.c.id >= id_from(since))
            .order_by(TRACES.c.id.desc())
            .limit(most)
        )
        with self.ledger.reading() as connection:
            return list(connection.execute(chosen).scalars())

    def search(self, wanted: Search, page: int = 1, size: int = PAGE) -> Found:
        """Return one page (from 1) of the traces that match, newest first."""
        columns = [column for column in TRACES.columns if column.name != "body"]
        chosen = (
            select(*columns)
            .where(*_conditions(wanted))
            .order_by(TRACES.c.id.desc())
            .limit(size + 1)
            .offset((page - 1) * size)
        )
        with self.ledger.reading() as connection:
            rows = connection.execute(chosen).all()
        return Found([TraceSummary(*row) for row in rows[:size]], len(rows) > size)

    def models(self) -> list[str]:
        """Return the names of all models that were called in the last month."""
        return sorted({source.model for day in last_days(31) for source in self.day(day)})


def _conditions(wanted: Search) -> list[ColumnElement[bool]]:
    columns = TRACES.c
    conditions: list[ColumnElement[bool]] = [
        or_(
            columns.query.icontains(word, autoescape=True),
            columns.id.startswith(word.lower(), autoescape=True),
        )
        for word in (clean(wanted.words, None) or "").split()
    ]
    if wanted.status is not None:
        conditions.append(columns.status == wanted.status.value)
    if wanted.model:
        called = and_(ENTRIES.c.query_id == columns.id, ENTRIES.c.model == clean(wanted.model))
        conditions.append(exists().where(called))
    if wanted.least is not None:
        conditions.append(columns.cost >= wanted.least)
    if wanted.most is not None:
        conditions.append(columns.cost <= wanted.most)
    return conditions


def total(days: Iterable[Day]) -> Spent:
    """Return the sum of days."""
    return sum((spent for day in days for spent in day.values()), Spent())


def today() -> date:
    """Return the day that it is (UTC)."""
    return datetime.now(UTC).date()


def last_days(count: int) -> list[date]:
    """Return so many days up to today, oldest first."""
    last = today()
    return [last - timedelta(days=count - 1 - i) for i in range(count)]


def day_of(moment: float) -> date:
    """Return the day (UTC) of a Unix time."""
    return datetime.fromtimestamp(moment, UTC).date()


def id_from(day: date) -> str:
    """Return what is not above any id made on a day, and above all made before (`new_id`)."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return id_at(begin.timestamp())
