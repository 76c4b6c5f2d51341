"""Results of one benchmark put together: files that go into one table, seeds, and averages.

Files go together when benchmark, split, number of items, pool and items are the same; so a curve of
the dial joins the baselines it belongs to. Where a strategy stands in two of them, they stay
apart, unless only the seed differs: then figures are means over seeds. Intervals of such means
are the means of their ends, which is right or too wide, as seeds share items or do not.
"""

import itertools
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean
from typing import NamedTuple

from r2reasoner.evaluation.results import BOUND, pareto_front
from r2reasoner.report.results import ComparisonRow, Evaluated, StrategyRow

Ends = tuple[float, float]


class Span(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    ends: Ends | None


@dataclass(frozen=True, slots=True)
class Group:
    """One benchmark's strategies. `sources` are numbers of files in the provenance, from 1.

    `seeds` are those that the figures are means over; `spread` is the accuracy's lowest and highest
    over several of them, by strategy.
    """

    name: str
    rows: tuple[StrategyRow, ...]
    comparisons: tuple[ComparisonRow, ...]
    sources: tuple[int, ...]
    seeds: tuple[int | None, ...]
    spread: Mapping[str, Ends]
    results: tuple[Evaluated, ...]

    @property
    def items(self) -> int:
        """The most items that a strategy was asked."""
        return max(row.n for row in self.rows)

    @property
    def ours(self) -> StrategyRow | None:
        """Our router: `r2` itself, else the first setting of its dial."""
        mine = [row for row in self.rows if row.ours]
        return next((row for row in mine if row.strategy == "r2"), mine[0] if mine else None)

    @property
    def others(self) -> tuple[StrategyRow, ...]:
        """Every strategy that is not ours and that somebody could run."""
        return tuple(row for row in self.rows if not row.ours and row.strategy != BOUND)

    @property
    def front(self) -> frozenset[str]:
        """The strategies that no other beats in accuracy and net cost together."""
        return pareto_front((row.strategy, row.accuracy, row.net_cost) for row in self.rows)

    def against(self, other: StrategyRow) -> ComparisonRow | None:
        """Return how ours compares with another, item by item."""
        mine = self.ours
        wanted = (mine.strategy if mine else "", other.strategy)
        found = (c for c in self.comparisons if (c.strategy, c.against) == wanted)
        return next(found, None)


class _Part(NamedTuple):
    """A file's rows of one benchmark and split."""

    result: Evaluated
    source: int
    rows: tuple[StrategyRow, ...]
    comparisons: tuple[ComparisonRow, ...]

    def key(self) -> tuple[object, ...]:
        first, origin = self.rows[0], self.result.provenance
        pool = origin.pool.sha256 if origin.pool else ""
        return (first.benchmark, first.split, first.n, pool, *_items(origin.command))


def group(results: Sequence[Evaluated]) -> list[Group]:
    """Return the groups, in the order of their first file."""
    parts: dict[tuple[object, ...], list[list[_Part]]] = {}
    for source, result in enumerate(results, 1):
        for part in _parts(result, source):
            piles = parts.setdefault(part.key(), [])
            home = next((pile for pile in piles if _fits(part, pile)), None)
            if home is None:
                piles.append([part])
            else:
                home.append(part)
    piles = sorted((p for found in parts.values() for p in found), key=lambda p: p[0].source)
    made = [_together(pile) for pile in piles]
    return [_told_apart(one, made) for one in made]


def _parts(result: Evaluated, source: int) -> Iterable[_Part]:
    for name in dict.fromkeys((r.benchmark, r.split) for r in result.rows):
        yield _Part(
            result,
            source,
            tuple(r for r in result.rows if (r.benchmark, r.split) == name),
            tuple(c for c in result.comparisons if (c.benchmark, c.split) == name),
        )


def _items(command: str) -> tuple[str, ...]:
    """Return what a command says of its items, so that different ones are not mixed."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    options = ("--items", "--limit", "--scorer")
    said = [word.partition("=") for word in words if word.startswith("--") and "=" in word]
    found = {name: value for name, _, value in said if name in options}
    found |= {a: b for a, b in itertools.pairwise(words) if a in options}
    return tuple(found.get(name, "") for name in options)


def _fits(part: _Part, pile: Sequence[_Part]) -> bool:
    names = {row.strategy for row in part.rows}
    seed = part.result.provenance.seed
    return all(
        other.result.provenance.seed != seed or not names & {row.strategy for row in other.rows}
        for other in pile
    )


def _together(pile: Sequence[_Part]) -> Group:
    rows: dict[str, list[StrategyRow]] = {}
    compared: dict[tuple[str, str], list[ComparisonRow]] = {}
    for part in pile:
        for row in part.rows:
            rows.setdefault(row.strategy, []).append(row)
        for one in part.comparisons:
            compared.setdefault((one.strategy, one.against), []).append(one)
    accuracies = {name: _by_seed(same) for name, same in rows.items() if _is_mean(same)}
    first = pile[0].rows[0]
    return Group(
        name=f"{first.benchmark} {first.split}",
        rows=tuple(_mean_row(same) for same in rows.values()),
        comparisons=tuple(_mean_comparison(same) for same in compared.values()),
        sources=tuple(part.source for part in pile),
        seeds=_seeds(pile),
        spread={name: (min(a), max(a)) for name, a in accuracies.items() if a},
        results=tuple(part.result for part in pile),
    )


def _is_mean(rows: Sequence[StrategyRow]) -> bool:
    return len(rows) > 1 or len(rows[0].accuracy_by_seed) > 1


def _by_seed(rows: Sequence[StrategyRow]) -> list[float]:
    each = rows[0].accuracy_by_seed if len(rows) == 1 else [row.accuracy for row in rows]
    return [accuracy for accuracy in each if accuracy is not None]


def _seeds(pile: Sequence[_Part]) -> tuple[int | None, ...]:
    """Return the seeds of files and of means inside them."""
    inside = [seed for part in pile for row in part.rows for seed in row.seeds]
    return tuple(dict.fromkeys([*(part.result.provenance.seed for part in pile), *inside]))


def _told_apart(one: Group, all_groups: Sequence[Group]) -> Group:
    """Add the file to a name that several groups have."""
    alike = [other for other in all_groups if other.name == one.name]
    if len(alike) == 1:
        return one
    stem = one.results[0].file.stem
    unique = sum(other.results[0].file.stem == stem for other in alike) == 1
    mark = stem if unique else f"{stem}, source {one.sources[0]}"
    return replace(one, name=f"{one.name} ({mark})")


def _mean_row(rows: Sequence[StrategyRow]) -> StrategyRow:
    """Return the mean over seeds; counts of items are summed with the items."""
    if len(rows) == 1:
        return rows[0]
    models = sorted({m for row in rows for m in row.model_share})
    means: dict[str, object] = {
        name: _mean([getattr(row, name) for row in rows])
        for name in (
            *("accuracy", "score", "workers_cost", "net_cost", "calls", "latency_s"),
            *("critical_path_s", "decomposed_share", "subtasks", "coverage"),
        )
    }
    counts = ("plan_failures", "unscored", "failed", "fell_back", "n")
    means |= {name: sum(getattr(row, name) for row in rows) for name in counts}
    means["ci95"] = _mean_ends([row.ci95 for row in rows])
    means["model_share"] = {m: fmean(r.model_share.get(m, 0.0) for r in rows) for m in models}
    return rows[0].model_copy(update=means)


def _mean_comparison(rows: Sequence[ComparisonRow]) -> ComparisonRow:
    if len(rows) == 1:
        return rows[0]
    return rows[0].model_copy(
        update={
            "n": sum(row.n for row in rows),
            "accuracy_difference": _mean([row.accuracy_difference for row in rows]),
            "net_cost_ratio": _mean([row.net_cost_ratio for row in rows]),
            "accuracy_difference_ci95": _mean_ends([r.accuracy_difference_ci95 for r in rows]),
            "net_cost_ratio_ci95": _mean_ends([r.net_cost_ratio_ci95 for r in rows]),
        }
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _mean_ends(spans: Sequence[Ends | None]) -> Ends | None:
    known = [span for span in spans if span is not None]
    if not known or len(known) < len(spans):
        return None
    return fmean(low for low, _ in known), fmean(high for _, high in known)


def average(spans: Sequence[Span]) -> Span:
    """Return the mean of figures of different benchmarks, and its interval.

    Benchmarks have no items in common, so their errors are independent and add as squares.
    """
    mean = fmean(span.value for span in spans)
    known = [(span.value, span.ends) for span in spans if span.ends is not None]
    if len(known) < len(spans):
        return Span(mean, None)

    def reach(distance: Callable[[float, Ends], float]) -> float:
        return sqrt(sum(distance(value, ends) ** 2 for value, ends in known)) / len(known)

    low = mean - reach(lambda value, ends: value - ends[0])
    high = mean + reach(lambda value, ends: ends[1] - value)
    return Span(mean, (low, high))


def averaged(groups: Sequence[Group]) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Return the groups to average over, and the strategies that stand in all of them.

    Of all ways to choose, the one with the most figures in it. Empty where fewer than two groups
    have our router and another strategy in common.
    """
    best: tuple[tuple[Group, ...], tuple[str, ...]] = ((), ())
    comparable = [g for g in groups if g.ours is not None and g.others]
    for one in comparable:
        names = tuple(row.strategy for row in one.rows)
        having = tuple(g for g in comparable if set(names) <= {r.strategy for r in g.rows})
        common = tuple(
            name for name in names if all(any(r.strategy == name for r in g.rows) for g in having)
        )
        if len(having) > 1 and len(having) * len(common) > len(best[0]) * len(best[1]):
            best = (having, common)
    return best
