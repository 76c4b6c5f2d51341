"""What the report says first: what our router saves, at what accuracy, against what.

Against the paper's CoT, the best single call and the most accurate other strategy, each chosen anew
on every benchmark; where a saving is a loss, the words say so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Final, NamedTuple, TypeAlias

from r2reasoner.report.groups import Group, Span, average
from r2reasoner.report.numbers import percent, points, points_range, significant
from r2reasoner.report.page import Claim
from r2reasoner.report.results import StrategyRow

Rival: TypeAlias = Callable[[Group], StrategyRow | None]


class Versus(NamedTuple):
    """Ours against one rival on one benchmark."""

    group: Group
    rival: str
    ratio: Span
    difference: Span


@dataclass(frozen=True, slots=True)
class Standing:
    """Ours against one kind of rival: times its cost, difference in accuracy.

    Over several benchmarks: the geometric mean of the ratios, the plain mean of the differences.
    """

    against: str
    short: str
    ratio: Span
    difference: Span
    single: tuple[Versus, ...]


def _named(name: str) -> Rival:
    return lambda group: next((r for r in group.others if r.strategy == name), None)


def _best(group: Group, prefix: str = "") -> StrategyRow | None:
    """Return the most accurate rival, the cheapest where several are."""
    fit = [
        r
        for r in group.others
        if r.strategy.startswith(prefix) and r.accuracy is not None and r.net_cost is not None
    ]
    return max(fit, key=lambda r: (r.accuracy or 0, -(r.net_cost or 0)), default=None)


RIVALS: Final[tuple[tuple[str, str, Rival], ...]] = (
    ("the paper's CoT: decomposed, the strongest model throughout", "CoT", _named("cot")),
    (
        "the best single call: the most accurate model, asked once",
        "the best single call",
        lambda group: _best(group, "single:"),
    ),
    (
        "the most accurate of all other strategies, the cheapest such",
        "the most accurate alternative",
        _best,
    ),
)


def standings(groups: Sequence[Group]) -> list[Standing]:
    """Return ours against each kind of rival, averaged over the benchmarks that have it."""
    found = (_standing(against, short, rival, groups) for against, short, rival in RIVALS)
    return [standing for standing in found if standing is not None]


def _standing(against: str, short: str, rival: Rival, groups: Sequence[Group]) -> Standing | None:
    single = tuple(one for group in groups if (one := _versus(group, rival(group))) is not None)
    if not single:
        return None
    logs = average([_mapped(log, one.ratio) for one in single])
    differences = average([one.difference for one in single])
    return Standing(against, short, _mapped(exp, logs), differences, single)


def _versus(group: Group, other: StrategyRow | None) -> Versus | None:
    row = None if other is None else group.against(other)
    if row is None or not row.net_cost_ratio or row.accuracy_difference is None:
        return None
    return Versus(
        group,
        row.against,
        Span(row.net_cost_ratio, row.net_cost_ratio_ci95),
        Span(row.accuracy_difference, row.accuracy_difference_ci95),
    )


def _mapped(function: Callable[[float], float], span: Span) -> Span:
    ends = span.ends
    if ends is None or (function is log and ends[0] <= 0):
        return Span(function(span.value), None)
    return Span(function(span.value), (function(ends[0]), function(ends[1])))


def claims(found: Sequence[Standing]) -> list[Claim]:
    """Return the standings in words."""
    return [_claim(one) for one in found]


def _claim(one: Standing) -> Claim:
    text, shown = cost_words(one.ratio)
    return Claim(
        against=one.against,
        saving=text,
        saving_range=shown,
        saves=one.ratio.value <= 1,
        difference=f"{points(one.difference.value)} points",
        difference_range=points_range(one.difference.ends),
        over=_over(one),
    )


def cost_words(ratio: Span) -> tuple[str, str]:
    """Return what a ratio of costs saves, or how many times the cost it is, and the interval."""
    share, ends = ratio
    if share <= 1:
        shown = "" if ends is None else f"{percent(1 - ends[1])} to {percent(1 - ends[0])} %"
        return f"{percent(1 - share)} % less", shown
    shown = "" if ends is None else f"{significant(ends[0])} to {significant(ends[1])} times"
    return f"{significant(share)} times the cost", shown


def _over(one: Standing) -> str:
    names = list(dict.fromkeys(v.rival for v in one.single))
    told = f" ({', '.join(names)})" if names != ["cot"] and len(names) <= 4 else ""
    items = sum(v.group.items for v in one.single)
    if len(one.single) == 1:
        return f"{one.single[0].group.name}, {items:,} items{told}"
    worst = max(one.single, key=lambda v: v.ratio.value)
    words, _ = cost_words(worst.ratio)
    where = f"{worst.group.name}: {words}"
    return f"mean of {len(one.single)} benchmarks, {items:,} items{told}; dearest on {where}"


def title(found: Sequence[Standing]) -> str:
    """Return the headline; without a comparison, what the page is."""
    if not found:
        return "Route-and-Reason: results"
    first = found[0]
    ratio, difference = first.ratio.value, first.difference.value
    cost = (
        f"costs {percent(1 - ratio, 0)} % less than {first.short}"
        if ratio <= 1
        else f"costs {significant(ratio)} times as much as {first.short}"
    )
    return f"r2 {cost}, {_accuracy(difference)}"


def _accuracy(difference: float) -> str:
    size = f"{abs(difference) * 100:.1f}"
    if size == "0.0":
        return "and is as accurate"
    side = "more" if difference > 0 else "less"
    joined = "and is" if difference > 0 else "at"
    ending = f"{side} accurate" if difference > 0 else f"{side} accuracy"
    unit = "point" if size == "1.0" else "points"
    return f"{joined} {size} {unit} {ending}"
