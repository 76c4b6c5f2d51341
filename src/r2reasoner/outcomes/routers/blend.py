"""`blend`: our light router: linear models, nearest texts and the group's mean, averaged.

Each member sees something that the others do not: rare words, the surface of a text and its group
(ridge, at several strengths of regularisation), what the nearest texts scored (knn, near and wide),
what its task or domain scores (group). Their errors differ, so the mean has less of each. Weights
fitted on held-out predictions (stacked regression) were tried and gave nothing: docs/outcomes.md.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from r2reasoner.outcomes.routers.base import filled, mean_scores
from r2reasoner.outcomes.routers.features import TextFeatures, features_of
from r2reasoner.outcomes.routers.members import RidgesAndNeighbours
from r2reasoner.outcomes.routers.simple import group_means
from r2reasoner.outcomes.sets import Floats, OutcomeSet

ALPHAS: Final = (3.0, 10.0, 30.0, 100.0)
NEIGHBOURS: Final = (60, 150)


class Blend:
    """The models' means, and the mean of what the members add to them."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._features: TextFeatures | None = None
        self._means = np.empty(0)
        self._by_group: dict[str, Floats] = {}
        self._by_text = RidgesAndNeighbours(ALPHAS, NEIGHBOURS)

    def fit(self, train: OutcomeSet) -> None:
        """Fit all members. Raises DataError as `mean_scores`."""
        features = self._features = features_of(train, self._seed)
        self._means = mean_scores(train)
        deviations = filled(train) - self._means
        self._by_group = group_means(np.array(train.groups, dtype=object), deviations)
        views = self._views(features, features.fitted, train.texts, train.groups)
        self._by_text.fit(*views, deviations)

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        """Return expected scores, (texts, models)."""
        assert self._features is not None, "fit comes before predict"
        views = self._views(self._features, self._features.tfidf(texts), texts, groups)
        nothing = np.zeros(len(self._means))
        by_group = np.array([self._by_group.get(group, nothing) for group in groups])
        members = [*self._by_text.say(*views), by_group]
        rows: Floats = self._means + np.mean(members, axis=0)
        return rows

    @staticmethod
    def _views(
        features: TextFeatures, tfidf: Any, texts: Sequence[str], groups: Sequence[str]
    ) -> tuple[Any, Floats]:
        """Return texts as the linear models and the neighbours see them."""
        beside = [features.surface(texts), features.group(groups)]
        dense = np.hstack([features.dense(tfidf), *beside])
        return features.whole(tfidf, texts, groups), dense
