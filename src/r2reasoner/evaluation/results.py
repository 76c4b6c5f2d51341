"""From rows to figures: one line per strategy, and r2 against each other strategy, item by item.

Costs are summed as whole pico-dollars and become floats only as dollars per item in the result.
An item that could not be scored counts in no accuracy; a cost that is not known makes the mean
unknown (null), never smaller. A strategy may have been run with several seeds: its figures are
means over them, and its interval is that of the mean, drawn over the items with all their seeds.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple, NotRequired, TypedDict

import numpy as np

from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.bootstrap import Floats, Interval, Ratio, intervals
from r2reasoner.evaluation.rows import ItemRow
from r2reasoner.files import write_whole
from r2reasoner.types import PICO_PER_DOLLAR, AnswerStatus, Pico

OURS: Final = "r2"
BOUND: Final = "oracle"
WHOLE: Final = frozenset({AnswerStatus.COMPLETE, AnswerStatus.CHEAP_FINISH})


class StrategyFigures(TypedDict):
    """A strategy over all `n` items. Costs are dollars per item, times seconds per item.

    `accuracy` is over the scored items, with its 95 % interval. `calls` and `subtasks` are means
    per item; `plan_failures`, `unscored`, `failed` (no whole answer) and `fell_back` count items;
    `model_share` is each model's share of the subtasks answered. `pareto`: no other strategy is at
    least as right for at most the net cost, and better in one of the two.

    `score` is the mean of the benchmark's own score, where it has one. `seeds` and
    `accuracy_by_seed` are there where it was run with several; then items are counted anew for
    each seed.
    """

    benchmark: str
    split: str
    strategy: str
    n: int
    accuracy: float | None
    ci95: Interval | None
    workers_cost: float | None
    net_cost: float | None
    calls: float
    latency_s: float
    critical_path_s: float
    plan_failures: int
    model_share: dict[str, float]
    unscored: int
    failed: int
    fell_back: int
    decomposed_share: float
    subtasks: float
    pareto: bool
    score: NotRequired[float | None]
    score_ci95: NotRequired[Interval | None]
    seeds: NotRequired[list[int]]
    accuracy_by_seed: NotRequired[list[float | None]]


class Comparison(TypedDict):
    """A strategy of ours against another over the same items, by paired bootstrap.

    `accuracy_difference` (over items scored in both) and `net_cost_ratio` are ours against theirs.
    """

    benchmark: str
    split: str
    strategy: str
    against: str
    n: int
    accuracy_difference: float | None
    accuracy_difference_ci95: Interval | None
    net_cost_ratio: float | None
    net_cost_ratio_ci95: Interval | None


class Summary(NamedTuple):
    """The figures of a result: `rows` and `comparisons` of a result file."""

    rows: list[StrategyFigures]
    comparisons: list[Comparison]


def summarise(results: Sequence[Sequence[ItemRow]], seed: int) -> Summary:
    """Return the figures of strategies, and each of ours (`r2`, `r2@...`) against each other one.

    `results` holds the rows of one strategy after the other, in one order of items for all, and
    seed after seed where there are several.
    """
    ours = [rows for rows in results if _is_ours(rows[0].strategy)]
    others = [rows for rows in results if not _is_ours(rows[0].strategy)]
    versus = list(product(ours, others))
    ratios = [_accuracy(rows) for rows in results]
    for pair in versus:
        ratios += [_accuracy_difference(*pair), _cost_ratio(*pair)]
    ci95 = iter(intervals(ratios, seed))
    figures = [_figures(rows, next(ci95)) for rows in results]
    front = pareto_front((f["strategy"], f["accuracy"], f["net_cost"]) for f in figures)
    for line, rows in zip(figures, results, strict=True):
        line["pareto"] = line["strategy"] in front
        _add_score(line, rows, seed)
        _add_seeds(line, rows)
    return Summary(figures, [_comparison(a, b, next(ci95), next(ci95)) for a, b in versus])


def pareto_front(figures: Iterable[tuple[str, float | None, float | None]]) -> frozenset[str]:
    """Return the strategies that no other beats in accuracy and net cost together.

    `figures` are name, accuracy and net cost. The oracle is left out: it is a bound, and nobody can
    run it.
    """
    points = [
        (name, right, cost)
        for name, right, cost in figures
        if right is not None and cost is not None and name != BOUND
    ]
    return frozenset(
        name
        for name, right, cost in points
        if not any(r >= right and c <= cost and (r > right or c < cost) for _, r, c in points)
    )


def write_result(path: Path, document: Mapping[str, Any]) -> None:
    """Write a result as JSON, whole or not at all. Raises ConfigError where it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    write_whole(path, json.dumps(document, indent=2, allow_nan=False) + "\n", replace=True)


def _figures(rows: Sequence[ItemRow], ci95: Interval | None) -> StrategyFigures:
    n, first = len(rows), rows[0]
    seeds = len(_seeds(rows))
    answered = Counter[str]()
    for row in rows:
        answered.update(row.models)
    return StrategyFigures(
        benchmark=first.benchmark,
        split=first.split,
        strategy=first.strategy,
        n=n // seeds,
        accuracy=_quotient(_accuracy(rows)),
        ci95=ci95,
        workers_cost=_dollars_per_item([row.workers_cost for row in rows]),
        net_cost=_dollars_per_item([row.net_cost for row in rows]),
        calls=sum(row.calls for row in rows) / n,
        latency_s=sum(row.latency_s for row in rows) / n,
        critical_path_s=sum(row.critical_path_s for row in rows) / n,
        plan_failures=sum(row.plan_failed for row in rows),
        model_share={m: count / answered.total() for m, count in sorted(answered.items())},
        unscored=sum(not row.scored for row in rows),
        failed=sum(row.status not in WHOLE for row in rows),
        fell_back=sum(row.fell_back for row in rows),
        decomposed_share=sum(row.decomposed for row in rows) / n,
        subtasks=sum(row.subtasks for row in rows) / n,
        pareto=False,
    )


def _add_score(line: StrategyFigures, rows: Sequence[ItemRow], seed: int) -> None:
    if any(row.score is not None for row in rows):
        ratio = _score(rows)
        line["score"] = _quotient(ratio)
        (line["score_ci95"],) = intervals([ratio], seed)


def _add_seeds(line: StrategyFigures, rows: Sequence[ItemRow]) -> None:
    seeds = _seeds(rows)
    if len(seeds) > 1:
        line["seeds"] = seeds
        each = (_accuracy([row for row in rows if row.seed == seed]) for seed in seeds)
        line["accuracy_by_seed"] = [_quotient(ratio) for ratio in each]


def _comparison(
    ours: Sequence[ItemRow],
    theirs: Sequence[ItemRow],
    accuracy_ci95: Interval | None,
    cost_ci95: Interval | None,
) -> Comparison:
    costs, their_costs = _net_costs(ours), _net_costs(theirs)
    # times the other's rows: either may be a sum over more seeds
    spent = None if costs is None else sum(costs) * len(theirs)
    their_spent = None if their_costs is None else sum(their_costs) * len(ours)
    return Comparison(
        benchmark=ours[0].benchmark,
        split=ours[0].split,
        strategy=ours[0].strategy,
        against=theirs[0].strategy,
        n=len(ours) // len(_seeds(ours)),
        accuracy_difference=_quotient(_accuracy_difference(ours, theirs)),
        accuracy_difference_ci95=accuracy_ci95,
        net_cost_ratio=None if spent is None or not their_spent else spent / their_spent,
        net_cost_ratio_ci95=cost_ci95,
    )


def _accuracy(rows: Sequence[ItemRow]) -> Ratio:
    right, scored = _right(rows)
    return Ratio(right.sum(axis=0), scored.sum(axis=0))


def _score(rows: Sequence[ItemRow]) -> Ratio:
    scores = _by_seed(rows, [row.score or 0.0 for row in rows])
    judged = _by_seed(rows, [row.score is not None for row in rows])
    return Ratio(scores.sum(axis=0), judged.sum(axis=0))


def _accuracy_difference(ours: Sequence[ItemRow], theirs: Sequence[ItemRow]) -> Ratio:
    """Return the difference over every pair of our seeds and theirs."""
    right, scored = (each[:, None] for each in _right(ours))
    their_right, their_scored = (each[None] for each in _right(theirs))
    both = scored * their_scored
    return Ratio(((right - their_right) * both).sum(axis=(0, 1)), both.sum(axis=(0, 1)))


def _cost_ratio(ours: Sequence[ItemRow], theirs: Sequence[ItemRow]) -> Ratio:
    costs, their_costs = _net_costs(ours), _net_costs(theirs)
    if costs is None or their_costs is None:
        nothing = np.zeros(len(ours) // len(_seeds(ours)))
        return Ratio(nothing, nothing)
    return Ratio(
        _by_seed(ours, costs).mean(axis=0),
        _by_seed(theirs, their_costs).mean(axis=0),
    )


def _right(rows: Sequence[ItemRow]) -> tuple[Floats, Floats]:
    """Return which items are right and which are scored, a line for each seed."""
    scored = _by_seed(rows, [row.scored for row in rows])
    return _by_seed(rows, [row.right for row in rows]) * scored, scored


def _by_seed(rows: Sequence[ItemRow], values: Sequence[float]) -> Floats:
    return np.array(values, float).reshape(len(_seeds(rows)), -1)


def _seeds(rows: Sequence[ItemRow]) -> list[int]:
    return list(dict.fromkeys(row.seed for row in rows))


def _is_ours(strategy: str) -> bool:
    return strategy == OURS or strategy.startswith(f"{OURS}@")


def _net_costs(rows: Sequence[ItemRow]) -> list[Pico] | None:
    """Return the net costs, or None where any is not known."""
    known = [row.net_cost for row in rows if row.net_cost is not None]
    return known if len(known) == len(rows) else None


def _dollars_per_item(costs: Sequence[Pico | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return None
    return float(Fraction(sum(known), len(known) * PICO_PER_DOLLAR))


def _quotient(ratio: Ratio) -> float | None:
    whole = float(ratio.denominator.sum())
    return float(ratio.numerator.sum()) / whole if whole else None
