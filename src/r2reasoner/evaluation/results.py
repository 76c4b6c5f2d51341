"""From rows to figures: one line per strategy, and r2 against each other strategy, item by item.

Costs are summed as whole pico-dollars and become floats only as dollars per item in the result.
An item that could not be scored counts in no accuracy; a cost that is not known makes the mean
unknown (null), never smaller.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple, TypedDict

import numpy as np

from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.bootstrap import Interval, Ratio, intervals
from r2reasoner.evaluation.rows import ItemRow
from r2reasoner.files import write_whole
from r2reasoner.types import PICO_PER_DOLLAR, AnswerStatus, Pico

OURS: Final = "r2"
WHOLE: Final = frozenset({AnswerStatus.COMPLETE, AnswerStatus.CHEAP_FINISH})


class StrategyFigures(TypedDict):
    """A strategy over all items. Costs are dollars per item, times seconds per item.

    `accuracy` is over the scored items, with its 95 % interval. `calls` and `subtasks` are means
    per item; `plan_failures`, `unscored`, `failed` (no whole answer) and `fell_back` count items;
    `model_share` is each model's share of the subtasks answered. `pareto`: no other strategy is at
    least as right for at most the net cost, and better in one of the two.
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

    `results` holds the rows of one strategy after the other, in one order of items for all.
    """
    ours = [rows for rows in results if _is_ours(rows[0].strategy)]
    others = [rows for rows in results if not _is_ours(rows[0].strategy)]
    versus = list(product(ours, others))
    ratios = [_accuracy(rows) for rows in results]
    for pair in versus:
        ratios += [_accuracy_difference(*pair), _cost_ratio(*pair)]
    ci95 = iter(intervals(ratios, seed))
    figures = [_figures(rows, next(ci95)) for rows in results]
    front = pareto_front(figures)
    for line in figures:
        line["pareto"] = line["strategy"] in front
    return Summary(figures, [_comparison(a, b, next(ci95), next(ci95)) for a, b in versus])


def pareto_front(figures: Sequence[StrategyFigures]) -> frozenset[str]:
    """Return the strategies that no other beats in accuracy and net cost together."""
    points = [
        (f["strategy"], f["accuracy"], f["net_cost"])
        for f in figures
        if f["accuracy"] is not None and f["net_cost"] is not None
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
    answered = Counter[str]()
    for row in rows:
        answered.update(row.models)
    return StrategyFigures(
        benchmark=first.benchmark,
        split=first.split,
        strategy=first.strategy,
        n=n,
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


def _comparison(
    ours: Sequence[ItemRow],
    theirs: Sequence[ItemRow],
    accuracy_ci95: Interval | None,
    cost_ci95: Interval | None,
) -> Comparison:
    costs = [_net_costs(ours), _net_costs(theirs)]
    spent, their_spent = (None if c is None else sum(c) for c in costs)
    return Comparison(
        benchmark=ours[0].benchmark,
        split=ours[0].split,
        strategy=ours[0].strategy,
        against=theirs[0].strategy,
        n=len(ours),
        accuracy_difference=_quotient(_accuracy_difference(ours, theirs)),
        accuracy_difference_ci95=accuracy_ci95,
        net_cost_ratio=None if spent is None or not their_spent else spent / their_spent,
        net_cost_ratio_ci95=cost_ci95,
    )


def _accuracy(rows: Sequence[ItemRow]) -> Ratio:
    scored = np.array([row.scored for row in rows], float)
    return Ratio(np.array([row.right for row in rows], float) * scored, scored)


def _accuracy_difference(ours: Sequence[ItemRow], theirs: Sequence[ItemRow]) -> Ratio:
    right, scored = _accuracy(ours)
    their_right, their_scored = _accuracy(theirs)
    both = scored * their_scored
    return Ratio((right - their_right) * both, both)


def _cost_ratio(ours: Sequence[ItemRow], theirs: Sequence[ItemRow]) -> Ratio:
    costs, their_costs = _net_costs(ours), _net_costs(theirs)
    if costs is None or their_costs is None:
        return Ratio(np.zeros(len(ours)), np.zeros(len(ours)))
    return Ratio(np.array(costs, float), np.array(their_costs, float))


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
