"""`knn`: what the models scored on the training texts that are nearest.

Cosine distance in a 128-dimensional SVD of word and character TF-IDF, 60 neighbours, all alike:
the plain method that published comparisons of routers found hard to beat.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from r2reasoner.outcomes.routers.base import mean_scores
from r2reasoner.outcomes.routers.features import TextFeatures, features_of
from r2reasoner.outcomes.sets import Floats, OutcomeSet

NEIGHBOURS: Final = 60


class NearestNeighbours:
    """The mean score of the nearest training texts; the model's mean where none was recorded."""

    def __init__(self, seed: int = 0, neighbours: int = NEIGHBOURS) -> None:
        self._seed = seed
        self._neighbours = neighbours
        self._features: TextFeatures | None = None
        self._index: Any = None
        self._scores = np.empty((0, 0))
        self._means = np.empty(0)

    def fit(self, train: OutcomeSet) -> None:
        """Keep the training texts. Raises DataError as `mean_scores`."""
        from sklearn.neighbors import NearestNeighbors

        self._means = mean_scores(train)
        self._scores = train.scores
        self._features = features_of(train, self._seed)
        self._index = NearestNeighbors(n_neighbors=min(self._neighbours, len(train)))
        self._index.fit(self._features.dense(self._features.fitted))

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        """Return mean scores of the neighbours, (texts, models)."""
        assert self._features is not None, "fit comes before predict"
        dense = self._features.dense(self._features.tfidf(texts))
        numbers: Any = self._index.kneighbors(dense, return_distance=False)
        near = self._scores[numbers]
        there = ~np.isnan(near)
        counts = there.sum(axis=1)
        sums = np.where(there, near, 0.0).sum(axis=1)
        means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), self._means)
        return means
