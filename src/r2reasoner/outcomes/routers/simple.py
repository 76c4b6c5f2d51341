"""`best` and `group`: what is known without reading the text."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from r2reasoner.outcomes.routers.base import mean_scores
from r2reasoner.outcomes.sets import Floats, OutcomeSet

PRIOR: Final = 10.0
"""So many items of no deviation are added to each group's."""


class BestSingle:
    """Each model's mean score, whatever is asked."""

    def __init__(self, seed: int = 0) -> None:
        self._means = np.empty(0)

    def fit(self, train: OutcomeSet) -> None:
        """Learn the means. Raises DataError as `mean_scores`."""
        self._means = mean_scores(train)

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        """Return the means for each text, (texts, models)."""
        return np.tile(self._means, (len(texts), 1))


class GroupMeans:
    """Each model's mean score in the text's known task or domain, drawn to its overall mean."""

    def __init__(self, seed: int = 0) -> None:
        self._means = np.empty(0)
        self._by_group: dict[str, Floats] = {}

    def fit(self, train: OutcomeSet) -> None:
        """Learn the means. Raises DataError as `mean_scores`."""
        self._means = mean_scores(train)
        deviations = train.scores - self._means
        self._by_group = group_means(np.array(train.groups, dtype=object), deviations)

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        """Return the group's means for each text, (texts, models)."""
        nothing = np.zeros_like(self._means)
        means: Floats = np.array([self._by_group.get(group, nothing) for group in groups])
        return self._means + means


def group_means(groups: npt.NDArray[np.object_], deviations: Floats) -> dict[str, Floats]:
    """Return each group's mean deviation, (models,), drawn to zero where there are few items."""

    def mean(rows: Floats) -> Floats:
        there = ~np.isnan(rows)
        means: Floats = np.where(there, rows, 0.0).sum(axis=0) / (there.sum(axis=0) + PRIOR)
        return means

    return {group: mean(deviations[groups == group]) for group in dict.fromkeys(groups)}
