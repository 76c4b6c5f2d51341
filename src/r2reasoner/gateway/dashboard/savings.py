"""What the strongest single model would have cost for the queries that were asked (an estimate).

Estimating reads a whole trace, so each is estimated once and kept, and one request never spends
more than moments on it: what it did not come to, the next one does.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

from r2reasoner.bill import bill
from r2reasoner.errors import DataError
from r2reasoner.gateway.dashboard.books import Books, day_of
from r2reasoner.pool.cards import Pool
from r2reasoner.types import Pico

MOST: Final = 20_000
PATIENCE_S: Final = 1.0


class Estimate(NamedTuple):
    """One query: what it cost, and what the strongest model alone would have (pico-dollars)."""

    day: date
    cost: Pico
    alone: Pico


@dataclass(frozen=True, slots=True)
class Saved:
    """Sums over the queries that can be estimated, in pico-dollars.

    `estimated` of the `queries` looked at could be; `left` were not looked at yet.
    """

    estimated: int
    queries: int
    left: int
    cost: Pico
    alone: Pico

    @property
    def share(self) -> float | None:
        """Share of the strongest model's cost that was not paid (negative: paid more)."""
        return 1 - self.cost / self.alone if self.alone else None


class Savings:
    """Estimates for the traces of one ledger; may be asked from several threads.

    `pool_called` returns the pool that a trace names.
    """

    def __init__(self, books: Books, pool_called: Callable[[str], Pool]) -> None:
        self._books = books
        self._pool_called = pool_called
        self._known: dict[str, Estimate | None] = {}
        self._turn = threading.Lock()

    def since(self, day: date) -> tuple[Saved, dict[date, Pico]]:
        """Return the sums since a day, and what was saved on each. Raises LedgerError."""
        ids = self._books.trace_ids(day, MOST)
        with self._turn:
            left = self._learn(ids)
            found = [self._known[identifier] for identifier in ids if identifier in self._known]
        estimates = [estimate for estimate in found if estimate is not None]
        return _sums(estimates, len(ids), left), _by_day(estimates)

    def _learn(self, ids: list[str]) -> int:
        """Estimate what is new, newest first, while there is time; return how many are left."""
        wanted = set(ids)
        self._known = {i: e for i, e in self._known.items() if i in wanted}
        unknown = [identifier for identifier in ids if identifier not in self._known]
        until = time.monotonic() + PATIENCE_S
        for done, identifier in enumerate(unknown):
            if time.monotonic() > until:
                return len(unknown) - done
            self._known[identifier] = self._estimate(identifier)
        return 0

    def _estimate(self, identifier: str) -> Estimate | None:
        try:
            trace = self._books.ledger.trace(identifier)
        except DataError:
            return None  # gone meanwhile, or written by another version
        billed = bill(trace, self._pool_called(trace.pool))
        if billed.total is None or billed.strongest_alone is None:
            return None
        return Estimate(day_of(trace.started_at), billed.total, billed.strongest_alone)


def _sums(estimates: Iterable[Estimate], queries: int, left: int) -> Saved:
    estimates = list(estimates)
    return Saved(
        estimated=len(estimates),
        queries=queries,
        left=left,
        cost=sum(estimate.cost for estimate in estimates),
        alone=sum(estimate.alone for estimate in estimates),
    )


def _by_day(estimates: Iterable[Estimate]) -> dict[date, Pico]:
    saved: dict[date, Pico] = {}
    for estimate in estimates:
        saved[estimate.day] = saved.get(estimate.day, 0) + estimate.alone - estimate.cost
    return saved
