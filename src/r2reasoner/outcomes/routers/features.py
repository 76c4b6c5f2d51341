"""Text as numbers: word and character TF-IDF, its SVD, the surface of a text, and its group.

Learned from training texts alone. No language is assumed beyond words that white space parts.
"""

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np

from r2reasoner.outcomes.sets import Floats, OutcomeSet

DIMENSIONS: Final = 128
MOST_CHARACTERS: Final = 60_000
"""Character n-grams kept."""
SURFACE_WEIGHT: Final = 0.1
GROUP_WEIGHT: Final = 0.5
WORD: Final = r"(?u)\w+|[^\w\s]"
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_FORMULA: Final = frozenset("^\\_{}=")


class TextFeatures:
    """Features of texts, fitted on some; TF-IDF rows of words and of characters have length 1."""

    def __init__(self, texts: Sequence[str], groups: Sequence[str], seed: int = 0) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        self.seed = seed
        rare = 2 if len(texts) > 100 else 1
        self._words = TfidfVectorizer(
            token_pattern=WORD, ngram_range=(1, 2), min_df=rare, sublinear_tf=True
        )
        self._characters = TfidfVectorizer(
            analyzer="char_wb",
            ngram_range=(3, 5),
            min_df=rare,
            sublinear_tf=True,
            max_features=MOST_CHARACTERS,
        )
        self._surface = StandardScaler().fit(surface(texts))
        self._groups = OneHotEncoder(handle_unknown="ignore").fit(_column(groups))
        self.fitted = self._stacked(self._words.fit_transform(texts), texts, fit=True)

    def tfidf(self, texts: Sequence[str]) -> Any:
        """Return TF-IDF of words and characters: a sparse matrix, (texts, terms)."""
        return self._stacked(self._words.transform(texts), texts)

    def whole(self, tfidf: Any, texts: Sequence[str], groups: Sequence[str]) -> Any:
        """Return TF-IDF with surface and group beside it, as a sparse matrix."""
        from scipy import sparse

        rest = np.hstack([self.surface(texts), self.group(groups)])
        return sparse.hstack([tfidf, sparse.csr_matrix(rest)]).tocsr()

    def dense(self, tfidf: Any) -> Floats:
        """Return the TF-IDF's SVD with rows of length 1, (texts, at most DIMENSIONS)."""
        from sklearn.preprocessing import normalize

        rows: Floats = normalize(self._svd.transform(tfidf))
        return rows

    def surface(self, texts: Sequence[str]) -> Floats:
        """Return the surface of texts, standardised and weighed."""
        rows: Floats = self._surface.transform(surface(texts)) * SURFACE_WEIGHT
        return rows

    def group(self, groups: Sequence[str]) -> Floats:
        """Return one column per known group, weighed; an unknown group is all zeros."""
        rows: Floats = self._groups.transform(_column(groups)).toarray() * GROUP_WEIGHT
        return rows

    @cached_property
    def _svd(self) -> Any:
        from sklearn.decomposition import TruncatedSVD

        most = min(DIMENSIONS, min(self.fitted.shape) - 1)
        return TruncatedSVD(max(1, most), n_iter=3, random_state=self.seed).fit(self.fitted)

    def _stacked(self, words: Any, texts: Sequence[str], *, fit: bool = False) -> Any:
        from scipy import sparse

        characters = self._characters
        beside = characters.fit_transform(texts) if fit else characters.transform(texts)
        return sparse.hstack([words, beside]).tocsr()


def surface(texts: Sequence[str]) -> Floats:
    """Return what a text looks like: its length, numbers, punctuation and formulas, (texts, 12)."""
    return np.array([_surface(text) for text in texts], dtype=np.float64)


def _surface(text: str) -> list[float]:
    words = text.split()
    numbers = [float(n) for n in _NUMBER.findall(text) if len(n) <= 8]
    counts = [
        len(text),
        len(words),
        len(numbers),
        max(numbers, default=0.0),
        len(re.findall(r"[.!?]", text)),
        sum(c in _FORMULA for c in text),
        text.count("\n"),
    ]
    shares = [
        len(set(words)) / max(1, len(words)),
        sum(map(len, words)) / max(1, len(words)) / 10,
        float("%" in text),
        float("?" in text),
        float("not" in words),
    ]
    return [*np.log1p(counts), *shares]


def _column(groups: Sequence[str]) -> Any:
    return np.array(groups, dtype=object)[:, None]


@lru_cache(maxsize=2)
def features_of(train: OutcomeSet, seed: int) -> TextFeatures:
    """Return features fitted on a training set, once for all routers that learn from it."""
    return TextFeatures(train.texts, train.groups, seed)
