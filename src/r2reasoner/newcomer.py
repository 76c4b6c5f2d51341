"""A model that comes to a measured pool: scored on a few recorded subtasks, and given its place.

No policy is trained again and no other model is asked for an estimate: the newcomer gets a row
of its own in the measured outcomes. It starts as the mix of its neighbours by price and moves from
there by what it got right, so a few dozen subtasks do. What it does better than its neighbours on a
kind of subtask that was not among them stays unknown.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final, NamedTuple

from r2reasoner.budget import Meter
from r2reasoner.calibrate import Calibration, Grade, together
from r2reasoner.client.base import Client
from r2reasoner.decomposer import Decomposer
from r2reasoner.errors import CallError, UnknownWords
from r2reasoner.estimate import Outcome, OutcomeModel
from r2reasoner.plan import in_context
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.references import Reference
from r2reasoner.types import Task

AT_ONCE: Final = 16
"""Items in flight; a model that answers nothing of the first so many is given up."""
PRIOR_SUBTASKS: Final = 20
"""For its rank, a newcomer's price weighs as much as so many answers: luck is large on a few."""


class Scored(NamedTuple):
    """One subtask that the newcomer was asked, and how it did."""

    reference: Reference
    number: int
    outcome: Outcome


class Scoring:
    """Asks a newcomer distinct subtasks whose right answers are known, `wanted` of them.

    Where only items are given, the pool is asked first, as calibration asks it: for a plan, and
    for a run that is right; the newcomer is the last that may give it. `scored`, `references` and
    `failed` (calls without an answer) hold what was found so far, also when `run` was stopped.
    """

    def __init__(
        self,
        pool: Pool,
        card: Card,
        client: Client,
        decomposer: Decomposer,
        meter: Meter,
        grade: Grade,
        wanted: int,
    ) -> None:
        among = replace(pool, workers=(card, *pool.workers))
        self._calibration = Calibration(among, client, decomposer, meter, grade)
        self._card = card
        self._wanted = wanted
        self._texts: set[str] = set()
        self._failure: CallError | UnknownWords | None = None
        self.scored: list[Scored] = []
        self.references: list[Reference] = []
        self.failed = 0

    @property
    def outcomes(self) -> list[Outcome]:
        """How the newcomer did."""
        return [scored.outcome for scored in self.scored]

    @property
    def asked(self) -> int:
        """How many subtasks it was asked, or is being asked."""
        return len(self._texts)

    async def run(
        self,
        items: Sequence[Task | Reference],
        seed: int,
        say: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Ask, item by item in an order by the seed, until `wanted` subtasks are asked.

        `say` hears how many are. Raises CallError or UnknownWords where the newcomer answers
        nothing of the first items, BudgetExceeded, CapReached and LedgerError.
        """
        order = list(items)
        random.Random(f"newcomer {seed}").shuffle(order)
        while order and self.asked < self._wanted:
            count = min(AT_ONCE, self._wanted - self.asked)
            chunk, order = order[:count], order[count:]
            solved = [r for r in await together(map(self._solved, chunk)) if r is not None]
            self.references += solved
            await together(self._ask(*place) for place in list(self._fresh(solved)))
            if self._failure is not None and not self.scored:
                raise self._failure
            say(self.asked)

    async def _solved(self, item: Task | Reference) -> Reference | None:
        return item if isinstance(item, Reference) else await self._calibration.solve(item)

    def _fresh(self, references: Sequence[Reference]) -> Iterator[tuple[Reference, int]]:
        """Yield the subtasks that were not asked yet, as many as are still wanted."""
        for reference in references:
            for number in reference.subtasks:
                text = in_context(reference.plan, number)
                if text not in self._texts and self.asked < self._wanted:
                    self._texts.add(text)
                    yield reference, number

    async def _ask(self, reference: Reference, number: int) -> None:
        try:
            outcome = await self._calibration.ask(reference, number, self._card)
        except (CallError, UnknownWords) as error:
            self.failed += 1
            self._failure = error
        else:
            self.scored.append(Scored(reference, number, outcome))


@dataclass(frozen=True, slots=True)
class Joined:
    """A pool with its newcomer, and what is now known of its workers.

    `prior` is the mix of workers that the newcomer was taken for. `right` is the share of right
    answers on the newcomer's subtasks: its own as measured, but for the weight of `prior`, the
    other measured workers' as the estimate has it.
    """

    pool: Pool
    estimate: OutcomeModel
    prior: Mapping[str, float]
    right: Mapping[str, float]


def join(pool: Pool, card: Card, measured: OutcomeModel, outcomes: Sequence[Outcome]) -> Joined:
    """Return the pool with a newcomer at its rank, and the estimate that knows it.

    Raises DataError where it has no outcomes.
    """
    known = [worker for worker in pool.workers if worker.name in measured.models]
    prior = taken_for(card, known)
    estimate = measured.with_model(outcomes, prior)
    found = [measured.p_right(text) for text in dict.fromkeys(o.text for o in outcomes)]
    right = {w.name: fmean(p[w.name] for p in found) for w in known}
    right[card.name] = _shrunk(outcomes, sum(share * right[n] for n, share in prior.items()))
    place = rank([worker.name for worker in pool.workers], right, card.name)
    workers = (*pool.workers[:place], card, *pool.workers[place:])
    return Joined(replace(pool, workers=workers), estimate, prior, right)


def taken_for(card: Card, workers: Sequence[Card]) -> dict[str, float]:
    """Return the mix of workers (name -> share) that a model is taken for by its price alone.

    It is the next cheaper and the next dearer one, by how near their prices' logarithms are; all
    alike where its price is not known, or none of theirs is.
    """
    prices = {w.name: price for w in workers if (price := _price(w)) is not None}
    own = _price(card)
    if own is None or not prices:
        return {w.name: 1 / len(workers) for w in workers}
    below = max((n for n in prices if prices[n] <= own), key=prices.__getitem__, default=None)
    above = min((n for n in prices if prices[n] > own), key=prices.__getitem__, default=None)
    if below is None or above is None:
        return {below or above or "": 1.0}
    if prices[below] in (0, own):
        return {below if prices[below] == own else above: 1.0}
    share = math.log(own / prices[below]) / math.log(prices[above] / prices[below])
    return {below: 1 - share, above: share}


def rank(order: Sequence[str], right: Mapping[str, float], name: str) -> int:
    """Return the place in an order (weakest first) that the fewest measured workers speak against.

    `right` is the share of right answers by name, of `name` too.
    """

    def against(place: int) -> int:
        stronger_below = sum(right.get(n, -1.0) > right[name] for n in order[:place])
        return stronger_below + sum(right.get(n, 2.0) < right[name] for n in order[place:])

    return min(range(len(order) + 1), key=against)


def _shrunk(outcomes: Sequence[Outcome], expected: float) -> float:
    """Return the share of right answers, pulled towards what was expected before the first."""
    right = sum(outcome.right for outcome in outcomes)
    return (right + PRIOR_SUBTASKS * expected) / (len(outcomes) + PRIOR_SUBTASKS)


def _price(card: Card) -> float | None:
    return None if card.price is None else float(card.price.input + card.price.output)
