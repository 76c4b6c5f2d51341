"""Figures of routing, as pure functions of scores, prices and what a router prefers.

Between a weak and a strong model, by RouteLLM's definitions (arXiv 2406.18665): items go to the
strong model in the order of a router's preference for it; the share of the gap between the two
that is recovered, averaged over all shares of strong calls, is APGR, and the smallest share that
recovers half (80 %) of it is CPT50 (CPT80). Items that a router prefers equally are a lottery,
counted at its expectation, so that a router that knows nothing has an APGR of exactly one half.
RouteLLM takes the mean over ten shares; here it is the whole curve, which is the limit of that.

Over many models, by RouterBench's definitions (arXiv 2403.12031): operating points of a router,
(mean price, mean score) each, have a non-decreasing convex hull, for two points can be mixed by a
lottery; AIQ is the mean height of that hull between two prices.

What ends in `s` or takes `weights` works on many resamples at once: `weights` (draws x items) say
how often each item stands in each resample. What was not recorded (NaN) is never guessed.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from r2reasoner.outcomes.sets import Floats

Bools = npt.NDArray[np.bool_]
TIE: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class GapCurve:
    """How much of the gap between weak and strong is recovered at which share of strong calls.

    `shares` and `gains` (draws x points) both start at 0; `gains` is the mean score above the weak
    model's, and ends at the whole gap.
    """

    shares: Floats
    gains: Floats

    @property
    def gap(self) -> Floats:
        """Return how much better the strong model is, for each draw."""
        found: Floats = self.gains[:, -1]
        return found

    def apgr(self) -> Floats:
        """Return the average share of the gap recovered; NaN where there is no gap to recover."""
        widths = np.diff(self.shares, axis=1)
        area = np.sum(widths * (self.gains[:, 1:] + self.gains[:, :-1]) / 2, axis=1)
        return _over_gap(area, self.gap)

    def cpt(self, level: float) -> Floats:
        """Return the smallest share of strong calls that recovers `level` (0 to 1) of the gap."""
        wanted = (level * self.gap)[:, None]
        at = np.argmax(self.gains >= wanted - TIE, axis=1)[:, None]
        before = np.maximum(at - 1, 0)
        low, high = (np.take_along_axis(self.gains, i, axis=1) for i in (before, at))
        start, end = (np.take_along_axis(self.shares, i, axis=1) for i in (before, at))
        step = np.where(high > low, high - low, 1.0)
        share = start + (end - start) * np.clip((wanted - low) / step, 0, 1)
        return np.where(self.gap > TIE, share[:, 0], np.nan)


def gap_curve(
    weak: Floats, strong: Floats, preference: Floats, weights: Floats | None = None
) -> GapCurve:
    """Return the curve of a preference for the strong model over items scored for both.

    Items that lack a score of either are left out.
    """
    known = ~np.isnan(weak) & ~np.isnan(strong)
    order = np.flatnonzero(known)[np.argsort(-preference[known], kind="stable")]
    counts = np.ones((1, len(order))) if weights is None else weights[:, order]
    total = np.maximum(counts.sum(axis=1, keepdims=True), TIE)
    ties = _first_of_ties(preference[order])
    calls = np.add.reduceat(counts, ties, axis=1)
    gained = np.add.reduceat(counts * (strong - weak)[order], ties, axis=1)
    return GapCurve(_from_zero(calls / total), _from_zero(gained / total))


def within(preference: Floats, parts: Floats) -> Floats:
    """Return each preference's rank among those of its part, from 0 to 1, ties sharing theirs.

    What a router learnt on different folds is not on one scale; the share of calls is.
    """
    found = np.empty(len(preference))
    for part in np.unique(parts):
        inside = parts == part
        _, place, sizes = np.unique(preference[inside], return_inverse=True, return_counts=True)
        middle = np.cumsum(sizes) - (sizes - 1) / 2
        found[inside] = middle[place] / (inside.sum() + 1)
    return found


class Points(NamedTuple):
    """The operating points of a router that the hull is made of: ascending in both."""

    prices: Floats
    scores: Floats


def hull(prices: Floats, scores: Floats) -> Points:
    """Return the non-decreasing convex hull of operating points, up to the best score."""
    kept: list[tuple[float, float]] = []
    for price, score in sorted(zip(prices.tolist(), scores.tolist(), strict=True)):
        if kept and score <= kept[-1][1]:
            continue  # dearer and no better
        if kept and price == kept[-1][0]:
            kept.pop()
        while len(kept) > 1 and _below(kept[-2], kept[-1], (price, score)):
            kept.pop()
        kept.append((price, score))
    return Points(*(np.array(side) for side in zip(*kept, strict=True)))


def aiq(found: Points, low: float, high: float) -> float:
    """Return the mean height of a hull between two prices (dollars); NaN where they are one.

    Below its cheapest point a router has nothing to give; above its best point it stays there.
    """
    if not high > low:
        return float("nan")
    inside = found.prices[(found.prices > low) & (found.prices < high)]
    at = np.concatenate([[max(low, min(found.prices[0], high))], inside, [high]])
    heights = np.interp(at, found.prices, found.scores)
    return float(np.trapezoid(heights, at) / (high - low))


def price_at_score(found: Points, score: float) -> float:
    """Return a hull's lowest mean price (dollars) with a mean score; NaN if never reached."""
    if score > found.scores[-1] + TIE:
        return float("nan")
    return float(np.interp(score, found.scores, found.prices))


def regret(scores: Floats, chosen: Floats) -> float:
    """Return how much better the best recorded choice is on average than what was chosen.

    `scores` is items x models, `chosen` the score of each item's chosen model; items where that
    was not recorded are left out.
    """
    covered = ~np.isnan(chosen)
    return float(np.mean(best(scores[covered]) - chosen[covered]))


def best(scores: Floats) -> Floats:
    """Return the best recorded score of each item, NaN where nothing was recorded."""
    found = np.where(np.isnan(scores), -np.inf, scores).max(axis=1)
    return np.where(np.isinf(found), np.nan, found)


def means(values: Floats, weights: Floats) -> Floats:
    """Return the weighted mean of items' values for each draw; NaN items are left out.

    `values` is one column, or items x columns; so is what comes.
    """
    known = ~np.isnan(values)
    totals = weights @ known.astype(float)
    return _quotients(weights @ np.where(known, values, 0.0), totals, totals > 0)


def _first_of_ties(ordered: Floats) -> npt.NDArray[np.intp]:
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return np.flatnonzero(new)


def _from_zero(steps: Floats) -> Floats:
    return np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)


def _over_gap(values: Floats, gap: Floats) -> Floats:
    return _quotients(values, gap, gap > TIE)


def _quotients(over: Floats, under: Floats, where: Bools) -> Floats:
    """Return quotients where they are wanted, NaN elsewhere."""
    found: Floats = np.divide(over, under, out=np.full(under.shape, np.nan), where=where)
    return found


def _below(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Return whether b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])
