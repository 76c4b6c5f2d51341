"""Routers run against what was recorded, at no cost; what never was, is counted and not guessed.

Two ways. `replay` asks any function from a text to a model's name, over a set of whole queries.
`RecordedOnly` is a Client for any strategy: with a `RecordedClient` before it, a strategy of the
engine runs over a store's answers, and every call that the store has no answer to fails, counted.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.errors import CallError, CallFault, DataError
from r2reasoner.outcomes import metrics
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.sets import OutcomeSet
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.pool.cards import Card

Choose: TypeAlias = Callable[[str, str], str]
"""(text, group) -> the name of a model."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a router would have done. Means are over covered items, None where there are none.

    `mean_price` is dollars a query, None where a price is not known; `regret` is to the best
    recorded choice; `shares` each model's share of all items.
    """

    items: int
    covered: int
    mean_score: float | None
    mean_price: float | None
    regret: float | None
    shares: Mapping[str, float]

    @property
    def coverage(self) -> float:
        """Return the share of items whose choice was recorded."""
        return self.covered / self.items


def replay(choose: Choose, outcomes: OutcomeSet) -> Replayed:
    """Return how a router does on recorded outcomes.

    Raises DataError for a model that the set does not have, and for a set without items.
    """
    if not len(outcomes):
        raise DataError(f"{outcomes.name}: no items to replay")
    names = [choose(*asked) for asked in zip(outcomes.texts, outcomes.groups, strict=True)]
    if unknown := sorted(set(names) - set(outcomes.models)):
        raise DataError(
            f"{outcomes.name}: the router chose {', '.join(unknown)}; recorded are"
            f" {', '.join(outcomes.models)}"
        )
    columns = [outcomes.models.index(name) for name in names]
    items = np.arange(len(outcomes))
    scores, prices = outcomes.scores[items, columns], outcomes.prices[items, columns]
    covered = ~np.isnan(scores)
    known = bool(covered.any())
    price = float(prices[covered].mean()) if known else float("nan")
    return Replayed(
        items=len(outcomes),
        covered=int(covered.sum()),
        mean_score=float(scores[covered].mean()) if known else None,
        mean_price=None if np.isnan(price) else price,
        regret=metrics.regret(outcomes.scores, scores) if known else None,
        shares={name: n / len(outcomes) for name, n in sorted(Counter(names).items())},
    )


class RecordedOnly:
    """A Client that has no model behind it: every call fails, and is counted as not covered."""

    def __init__(self) -> None:
        self.missed: Counter[str] = Counter()

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        """Raise CallError: what is asked was never recorded."""
        self.missed[card.name] += 1
        raise CallError(CallFault.NOT_FOUND, "no answer to this on record", model=card.name)

    async def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        """Raise CallError: what is asked was never recorded."""
        yield await self.complete(card, request, meter, deadline)

    async def close(self) -> None:
        """Close nothing."""


def recorded_only(store: OutcomeStore) -> tuple[RecordedClient, RecordedOnly]:
    """Return a client that answers from a store alone, and what counts the calls it could not."""
    behind = RecordedOnly()
    return RecordedClient(behind, store), behind
