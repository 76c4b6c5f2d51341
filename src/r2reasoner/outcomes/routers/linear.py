"""`ridge`, `logistic` and `mf`: a linear function of the text for each model.

Ridge regression of the scores on word and character TF-IDF; logistic regression on the same, a
score between 0 and 1 taken as that share of a right answer; and matrix factorisation, the ridge
regression cut to a few directions that all models share (reduced-rank regression), which is the
closed form of learning an embedding of texts and one of models whose product is the score.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from r2reasoner.outcomes.routers.base import filled, mean_scores
from r2reasoner.outcomes.routers.features import TextFeatures, features_of
from r2reasoner.outcomes.sets import Floats, OutcomeSet

ALPHA: Final = 3.0
INVERSE_PENALTY: Final = 1.0
DENSE_ALPHA: Final = 1.0
RANK: Final = 4


class RidgeRegression:
    """Scores as a linear function of TF-IDF."""

    def __init__(self, seed: int = 0, alpha: float = ALPHA) -> None:
        self._seed = seed
        self._alpha = alpha
        self._features: TextFeatures | None = None
        self._model: Any = None

    def fit(self, train: OutcomeSet) -> None:
        """Fit. Raises DataError as `mean_scores`."""
        from sklearn.linear_model import Ridge

        self._features = features_of(train, self._seed)
        self._model = Ridge(alpha=self._alpha).fit(self._features.fitted, filled(train))

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        """Return expected scores, (texts, models); they may leave 0..1 a little."""
        assert self._features is not None, "fit comes before predict"
        rows: Floats = self._model.predict(self._features.tfidf(texts)).reshape(len(texts), -1)
        return rows


class LogisticRegressions:
    """The chance of a right answer, one logistic regression for each model."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._features: TextFeatures | None = None
        self._means = np.empty(0)
        self._models: list[Any] = []

    def fit(self, train: OutcomeSet) -> None:
        """Fit. Raises DataError as `mean_scores`."""
        self._features = features_of(train, self._seed)
        self._means = mean_scores(train)
        self._models = [self._one(self._features.fitted, column) for column in train.scores.T]

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        """Return probabilities, (texts, models)."""
        assert self._features is not None, "fit comes before predict"
        tfidf = self._features.tfidf(texts)
        columns = [
            np.full(len(texts), mean) if model is None else model.predict_proba(tfidf)[:, 1]
            for model, mean in zip(self._models, self._means, strict=True)
        ]
        return np.column_stack(columns)

    @staticmethod
    def _one(tfidf: Any, scores: Floats) -> Any:
        """Return a model of one column; None where all its scores are the same extreme."""
        from scipy import sparse
        from sklearn.linear_model import LogisticRegression

        there = ~np.isnan(scores)
        share = np.clip(scores[there], 0, 1)
        if share.min() == share.max() and share[0] in (0, 1):
            return None
        # each text twice, as right and as wrong, with its score and the rest as weights
        rows = sparse.vstack([tfidf[there], tfidf[there]])
        labels = np.repeat([1, 0], len(share))
        weights = np.concatenate([share, 1 - share])
        kept = weights > 0
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=300)
        return model.fit(rows[kept], labels[kept], sample_weight=weights[kept])


class MatrixFactorisation:
    """Ridge regression on the SVD features, of at most RANK directions that all models share."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._features: TextFeatures | None = None
        self._mean = np.empty(0)
        self._weights = np.empty((0, 0))

    def fit(self, train: OutcomeSet) -> None:
        """Fit. Raises DataError as `mean_scores`."""
        from sklearn.linear_model import Ridge

        self._features = features_of(train, self._seed)
        self._mean = mean_scores(train)
        dense = self._features.dense(self._features.fitted)
        centred = filled(train) - self._mean
        weights = Ridge(alpha=DENSE_ALPHA, fit_intercept=False).fit(dense, centred).coef_.T
        weights = weights.reshape(dense.shape[1], -1)
        *_, directions = np.linalg.svd(dense @ weights, full_matrices=False)
        shared = directions[:RANK]
        self._weights = weights @ shared.T @ shared

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        """Return expected scores, (texts, models)."""
        assert self._features is not None, "fit comes before predict"
        dense = self._features.dense(self._features.tfidf(texts))
        rows: Floats = self._mean + dense @ self._weights
        return rows
