"""What linear models and nearest texts say, for the routers that average over both."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from r2reasoner.outcomes.sets import Floats


class RidgesAndNeighbours:
    """Ridges at several strengths of regularisation, and means over several counts of neighbours.

    Each tells what to add to the models' mean scores for a text. The ridges may see texts as other
    rows than the neighbours do.
    """

    def __init__(self, alphas: Sequence[float], counts: Sequence[int]) -> None:
        self._alphas = alphas
        self._counts = counts
        self._deviations = np.empty((0, 0))
        self._ridges: list[Any] = []
        self._index: Any = None

    def fit(self, rows: Any, points: Floats, deviations: Floats) -> None:
        """Fit the ridges to `rows` and the neighbours to `points`, both (texts, features)."""
        from sklearn.linear_model import Ridge
        from sklearn.neighbors import NearestNeighbors

        self._deviations = deviations
        self._ridges = [Ridge(alpha=alpha).fit(rows, deviations) for alpha in self._alphas]
        most = min(max(self._counts), len(deviations))
        self._index = NearestNeighbors(n_neighbors=most).fit(points)

    def say(self, rows: Any, points: Floats) -> list[Floats]:
        """Return what each member says, (texts, models)."""
        shape = (len(points), self._deviations.shape[1])
        near = self._deviations[self._index.kneighbors(points, return_distance=False)]
        return [
            *(ridge.predict(rows).reshape(shape) for ridge in self._ridges),
            *(near[:, :count].mean(axis=1) for count in self._counts),
        ]
