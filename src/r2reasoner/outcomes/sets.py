"""Recorded outcomes as tables: one set of items, each judged for several models.

What light routers learn from and are judged on. A set is made of the whole-query outcomes of a
store that share a source; an answer that was never recorded stays a hole (NaN), and is never
guessed. Leaves out outcomes of single subtasks and of plans.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from r2reasoner.errors import DataError
from r2reasoner.outcomes.records import Answered, Outcome
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.types import to_dollars

Floats = npt.NDArray[np.float64]
Cells: TypeAlias = dict[tuple[str, str], list[tuple[float, float]]]


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeSet:
    """Items, models, and how each model did on each item.

    `scores` (items x models; 1 is right, 0 wrong) and `prices` (dollars a query) hold NaN where
    nothing was recorded or no price is known. `groups` are the items' known tasks or domains, ""
    where none is known. Models stand from the cheapest mean price to the dearest.
    """

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    groups: tuple[str, ...]
    models: tuple[str, ...]
    scores: Floats
    prices: Floats

    def __len__(self) -> int:
        """Return how many items it has."""
        return len(self.ids)

    def rows(self, numbers: Sequence[int] | npt.NDArray[np.int_]) -> Self:
        """Return some of the items, in the order given."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in numbers),
            texts=tuple(self.texts[i] for i in numbers),
            groups=tuple(self.groups[i] for i in numbers),
            scores=self.scores[numbers],
            prices=self.prices[numbers],
        )

    def with_models(self, models: Sequence[str]) -> Self:
        """Return the same items with some of the models, in the order given.

        Raises DataError where the set has no outcomes of one.
        """
        missing = [model for model in models if model not in self.models]
        if missing:
            raise DataError(
                f"{self.name}: no outcomes of {', '.join(missing)}; it has {', '.join(self.models)}"
            )
        columns = [self.models.index(model) for model in models]
        return replace(
            self,
            models=tuple(models),
            scores=self.scores[:, columns],
            prices=self.prices[:, columns],
        )

    @property
    def mean_prices(self) -> Floats:
        """Return each model's mean price in dollars, NaN where none is known."""
        there = ~np.isnan(self.prices)
        sums = np.where(there, self.prices, 0.0).sum(axis=0)
        means: Floats = np.where(there.any(axis=0), sums / np.maximum(there.sum(axis=0), 1), np.nan)
        return means

    @property
    def coverage(self) -> float:
        """Return the share of (item, model) pairs that were recorded and judged."""
        return float(np.mean(~np.isnan(self.scores)))


def outcome_sets(store: OutcomeStore) -> dict[str, OutcomeSet]:
    """Return a store's sets by name (the source of their outcomes), whole queries alone.

    Several outcomes of one model on one item (samples) count as their mean. Raises DataError
    where an outcome's answer is missing from the store.
    """
    by_source: dict[str, list[Outcome]] = {}
    for outcome in store.outcomes():
        if outcome.plan is None and outcome.subtask is None and outcome.score is not None:
            by_source.setdefault(outcome.source, []).append(outcome)
    return {name: _set(name, found, store) for name, found in sorted(by_source.items())}


def _set(name: str, outcomes: Sequence[Outcome], store: OutcomeStore) -> OutcomeSet:
    items: dict[str, tuple[str, str]] = {}
    cells: Cells = {}
    for outcome in outcomes:
        answer = store.get(outcome.key)
        if answer is None or outcome.score is None:
            raise DataError(f"{store.folder}: {name}: no answer {outcome.key} in the store")
        items.setdefault(outcome.item, (asked(answer), outcome.group or ""))
        price = float("nan") if answer.cost is None else float(to_dollars(answer.cost))
        cells.setdefault((outcome.item, outcome.model), []).append((outcome.score, price))
    return table(name, items, cells)


def table(name: str, items: Mapping[str, tuple[str, str]], cells: Cells) -> OutcomeSet:
    """Return the set of items (id -> text and group) and of what was found of each with models.

    `cells`: (id, model) -> scores with their prices in dollars, of which the mean counts.
    """
    models = sorted({model for _, model in cells})
    scores = np.full((len(items), len(models)), np.nan)
    prices = np.full((len(items), len(models)), np.nan)
    rows = {item: i for i, item in enumerate(items)}
    columns = {model: m for m, model in enumerate(models)}
    for (item, model), found in cells.items():
        i, m = rows[item], columns[model]
        scores[i, m], prices[i, m] = np.mean(found, axis=0)
    texts, groups = zip(*items.values(), strict=True)
    whole = OutcomeSet(name, tuple(items), texts, groups, tuple(models), scores, prices)
    return whole.with_models([models[m] for m in _cheapest_first(models, prices)])


def _cheapest_first(models: Sequence[str], prices: Floats) -> Iterable[int]:
    means = [
        float(np.nanmean(column)) if not np.isnan(column).all() else float("inf")
        for column in prices.T
    ]
    return sorted(range(len(models)), key=lambda m: (means[m], models[m]))


def asked(answer: Answered) -> str:
    """Return what an answer's model was asked: its user's messages as one text."""
    messages = json.loads(answer.prompt)
    return "\n".join(m["content"] for m in messages if m["role"] == "user")
