"""What keys have spent and hold, in the database: read, changed and written in one transaction.

`KeyBooks` is made for each transaction of the ledger's writer. It reads a counter when it is first
asked for, changes it in memory, and writes all at the end, so that a hundred calls of a key cost
one statement. Nobody else changes what it read: SQLite's writers come one after the other, and on
PostgreSQL the keys are locked first, in the order of their ids, so that two never wait for each
other.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, Row, bindparam, delete, insert, select, update

from r2reasoner.budget import MOST_PICO
from r2reasoner.database import Statement, insertion
from r2reasoner.errors import DataError
from r2reasoner.tables import COUNTERS, ENTRIES, HOLDS, KEYS, REQUESTS, clean
from r2reasoner.types import CallOutcome, Pico

SETTLED_LATE_S: Final = 30.0
"""A hold whose entry was closed so long ago is one that its own process will not settle."""
NEVER_SENT_S: Final = 3600.0
DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key, without its secret. Limits in pico-dollars; None is no limit. Times: Unix seconds.

    `models` are the names that it may ask for; empty: all.
    """

    id: str
    name: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    per_day: Pico | None = None
    per_month: Pico | None = None
    per_minute: int | None = None
    models: tuple[str, ...] = ()

    @property
    def has_budget(self) -> bool:
        """True when there is a limit on what it may spend."""
        return self.per_day is not None or self.per_month is not None

    def why_not(self, now: float) -> str | None:
        """Return why it is no longer taken, or None."""
        if self.revoked_at is not None:
            return "was revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "has expired"
        return None


class Spending(NamedTuple):
    """What a key has spent and holds for calls in flight, in pico-dollars (UTC day and month)."""

    day_spent: Pico
    day_held: Pico
    month_spent: Pico
    month_held: Pico

    def left(self, key: Key) -> Pico | None:
        """Return what may still be held; None without a limit."""
        rests = []
        if key.per_day is not None:
            rests.append(key.per_day - self.day_spent - self.day_held)
        if key.per_month is not None:
            rests.append(key.per_month - self.month_spent - self.month_held)
        return min(rests, default=None)


class Hold(NamedTuple):
    """Money held on a key for one call."""

    id: str
    key_id: str
    day: str
    amount: Pico


def to_key(row: Row[Any]) -> Key:
    """Return the key of a row of `api_keys`."""
    return Key(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        per_day=row.per_day,
        per_month=row.per_month,
        per_minute=row.per_minute,
        models=tuple(json.loads(row.models)),
    )


def today() -> str:
    """Return the day that it is (UTC), as counters have it."""
    return _day(int(time.time() // DAY_S))


@lru_cache(maxsize=2)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_S, UTC).strftime("%Y-%m-%d")


class Statements:
    """What the books say to one database."""

    def __init__(self, engine: Engine) -> None:
        of = ("of_key", "of_period")
        here = (COUNTERS.c.key_id == bindparam("of_key")) & (
            COUNTERS.c.period == bindparam("of_period")
        )
        amounts = ("spent", "held", "requests")
        self.is_sqlite = engine.dialect.name == "sqlite"
        self.read = Statement(
            select(COUNTERS.c.spent, COUNTERS.c.held, COUNTERS.c.requests).where(here), of, engine
        )
        self.change = Statement(
            update(COUNTERS).where(here).values({name: bindparam(name) for name in amounts}),
            (*amounts, *of),
            engine,
        )
        self.begin = Statement(insert(COUNTERS), COUNTERS.columns.keys(), engine)
        self.place = Statement(insert(HOLDS), HOLDS.columns.keys(), engine)
        self.remove = Statement(
            delete(HOLDS).where(HOLDS.c.id == bindparam("hold")), ("hold",), engine
        )
        new = insertion(engine.dialect.name, REQUESTS).on_conflict_do_nothing()
        self.record = Statement(new, REQUESTS.columns.keys(), engine)


@dataclass(slots=True)
class _Counter:
    """What a key spent, holds and asked in one day, month or minute."""

    spent: Pico = 0
    held: Pico = 0
    requests: int = 0
    is_new: bool = True
    is_changed: bool = False


class Wish(NamedTuple):
    """Something to be done with the books. `key_id` is whose counters it reads or changes."""

    do: "Callable[[KeyBooks], Any]"
    key_id: str | None = None


class KeyBooks:
    """What the keys of one transaction spend. Give `keys` all whose counters will be asked for."""

    def __init__(self, connection: Connection, say: Statements, keys: Iterable[str]) -> None:
        self.connection = connection
        self._say = say
        self._counters: dict[tuple[str, str], _Counter] = {}
        self._placed: dict[str, tuple[Any, ...]] = {}
        self._recorded: dict[str, tuple[Any, ...]] = {}
        self._lock(keys)

    def place(self, key: Key, hold: Hold, trace_id: str | None = None) -> Pico | None:
        """Hold money; return what is left where it does not fit, and hold nothing.

        With a trace, note that it is the key's.
        """
        if trace_id is not None:
            self.record(trace_id, key.id, time.time())
        if hold.id in self._placed:
            raise DataError(f"the hold {hold.id} was placed before")
        counters = self._of(hold)
        limits = (key.per_day, key.per_month)
        for counter, limit in zip(counters, limits, strict=True):
            if limit is not None and counter.spent + counter.held + hold.amount > limit:
                return self.spending(key.id, hold.day).left(key)
        for counter in counters:
            counter.held = min(counter.held + hold.amount, MOST_PICO)
            counter.is_changed = True
        self._placed[hold.id] = (*hold, time.time())
        return None

    def settle(self, hold: Hold, cost: Pico) -> None:
        """Charge what a call cost, unless that was done: then the hold is gone."""
        if self._placed.pop(hold.id, None) is None:
            removed = self._say.remove.one(self.connection, (hold.id,))
            if not removed.rowcount:
                return
        for counter in self._of(hold):
            counter.held = max(counter.held - hold.amount, 0)
            counter.spent = min(counter.spent + cost, MOST_PICO)
            counter.is_changed = True

    def count(self, key_id: str, minute: str, limit: int) -> bool:
        """Count a request of this minute; return False, and count nothing, above the limit."""
        counter = self._counter(key_id, minute)
        if counter.requests >= limit:
            return False
        counter.requests += 1
        counter.is_changed = True
        return True

    def spending(self, key_id: str, day: str | None = None) -> Spending:
        """Return what a key spent and holds on a day, and in its month."""
        counters = [self._counter(key_id, period) for period in _periods(day or today())]
        return Spending(*(sum_ for c in counters for sum_ in (c.spent, c.held)))

    def record(self, trace_id: str, key_id: str, at: float) -> None:
        """Note that a trace is a key's; again: nothing happens."""
        self._recorded[trace_id] = (trace_id, key_id, at)

    def owner(self, trace_id: str) -> str | None:
        """Return the id of the key that a trace is of, or None."""
        chosen = select(REQUESTS.c.key_id).where(REQUESTS.c.trace_id == clean(trace_id))
        if trace_id in self._recorded:
            return str(self._recorded[trace_id][1])
        found: str | None = self.connection.execute(chosen).scalar()
        return found

    def write(self) -> None:
        """Write what was changed."""
        counters = [(of, c) for of, c in self._counters.items() if c.is_changed]
        self._say.begin.run(
            self.connection,
            [(*of, c.spent, c.held, c.requests) for of, c in counters if c.is_new],
        )
        self._say.change.run(
            self.connection,
            [(c.spent, c.held, c.requests, *of) for of, c in counters if not c.is_new],
        )
        self._say.place.run(self.connection, list(self._placed.values()))
        self._say.record.run(self.connection, list(self._recorded.values()))

    def _of(self, hold: Hold) -> list[_Counter]:
        return [self._counter(hold.key_id, period) for period in _periods(hold.day)]

    def _counter(self, key_id: str, period: str) -> _Counter:
        of = (key_id, period)
        counter = self._counters.get(of)
        if counter is None:
            row = self._say.read.one(self.connection, of).first()
            counter = (
                _Counter()
                if row is None
                else _Counter(row.spent, row.held, row.requests, is_new=False)
            )
            self._counters[of] = counter
        return counter

    def _lock(self, key_ids: Iterable[str]) -> None:
        """Keep others from changing what these keys spent, until this transaction ends."""
        if not self._say.is_sqlite and (wanted := set(key_ids)):
            chosen = select(KEYS.c.id).where(KEYS.c.id.in_(wanted)).order_by(KEYS.c.id)
            self.connection.execute(chosen.with_for_update())


def ended_holds(connection: Connection) -> dict[Hold, Pico]:
    """Return the holds that no process will settle any more, and what the ledger says they cost."""
    now = time.time()
    joined = select(HOLDS, ENTRIES.c.outcome, ENTRIES.c.cost, ENTRIES.c.latency_s).select_from(
        HOLDS.outerjoin(ENTRIES, HOLDS.c.id == ENTRIES.c.id)
    )
    late = connection.execute(joined.where(HOLDS.c.held_at < now - SETTLED_LATE_S))
    return {
        Hold(row.id, row.key_id, row.day, row.amount): cost
        for row in late
        if (cost := _cost_of_ended(row, now)) is not None
    }


def _cost_of_ended(row: Row[Any], now: float) -> Pico | None:
    """Return what a late hold is settled at, or None while its process may yet do it."""
    if row.outcome is None:
        return 0 if row.held_at < now - NEVER_SENT_S else None
    if row.outcome == CallOutcome.OPEN:
        return None
    if row.outcome != CallOutcome.UNKNOWN and row.held_at + row.latency_s >= now - SETTLED_LATE_S:
        return None
    cost: Pico = row.amount if row.cost is None else row.cost
    return cost


def _periods(day: str) -> tuple[str, str]:
    """Return the day and its month."""
    return day, day[:7]
