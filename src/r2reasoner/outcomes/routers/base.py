"""What a light router is: learned from recorded outcomes, it tells what each model would score.

It costs no token and runs in about a millisecond. What to make of its figures (which model for
which price) is left to whoever asks: a threshold in a judge, the dial in an allocator.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from r2reasoner.errors import DataError
from r2reasoner.outcomes.sets import Floats, OutcomeSet


class LightRouter(Protocol):
    """Learns from one outcome set, then estimates scores of the same models on other texts."""

    def fit(self, train: OutcomeSet) -> None:
        """Learn. Raises DataError where the set has too few outcomes to learn from."""
        ...

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        """Return expected scores, (texts, models of the training set).

        `groups` are the texts' known tasks or domains, "" where none is known.
        """
        ...


def mean_scores(train: OutcomeSet) -> Floats:
    """Return each model's mean score over what was recorded. Raises DataError for a hole."""
    for model, column in zip(train.models, train.scores.T, strict=True):
        if np.isnan(column).all():
            raise DataError(f"{train.name}: no outcome of {model} to learn from")
    means: Floats = np.nanmean(train.scores, axis=0)
    return means


def filled(train: OutcomeSet) -> Floats:
    """Return the scores with each model's mean in the holes, for methods that need a whole table.

    That teaches nothing about the item and leaves the model's mean as it is.
    """
    return np.where(np.isnan(train.scores), mean_scores(train), train.scores)
