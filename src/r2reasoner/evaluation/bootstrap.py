"""Confidence intervals by the paired bootstrap over items.

Every figure of one table is taken on the same draws of items, so that the interval of a difference
or a ratio between two strategies leaves out what both share: how hard the items are.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

DRAWS: Final = 2000
LEVEL: Final = 0.95
_CELLS: Final = 2**20

Floats = npt.NDArray[np.float64]
Interval = list[float]


class Ratio(NamedTuple):
    """A figure of the form sum(numerator) / sum(denominator), both given item by item."""

    numerator: Floats
    denominator: Floats


def intervals(ratios: Sequence[Ratio], seed: int, draws: int = DRAWS) -> list[Interval | None]:
    """Return the central 95 % of each ratio over samples of the items.

    A sample is drawn with replacement and as large as the whole. None where too many samples have
    nothing in the denominator.
    """
    columns = np.column_stack([column for ratio in ratios for column in ratio])
    sums = _resampled_sums(columns, seed, draws)
    return [_middle(sums[:, i], sums[:, i + 1]) for i in range(0, sums.shape[1], 2)]


def _resampled_sums(columns: Floats, seed: int, draws: int) -> Floats:
    items = len(columns)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // items)
    sums = []
    for start in range(0, draws, chunk):
        counts = np.empty((min(chunk, draws - start), items))
        for row in counts:
            row[:] = np.bincount(rng.integers(0, items, items), minlength=items)
        sums.append(counts @ columns)
    return np.concatenate(sums)


def _middle(numerator: Floats, denominator: Floats) -> Interval | None:
    usable = denominator != 0
    if usable.mean() < LEVEL:
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(numerator[usable] / denominator[usable], [tail, 1 - tail])
    return [float(low), float(high)]
