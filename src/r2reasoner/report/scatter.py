"""Accuracy against net cost: every strategy a labelled point, the front, the dial's curve."""

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

from r2reasoner.report import chart
from r2reasoner.report.chart import Box, Dot, Linear, Log
from r2reasoner.report.groups import Group
from r2reasoner.report.numbers import money, percent, percent_range
from r2reasoner.report.page import Figure
from r2reasoner.report.results import StrategyRow

WIDE: Final = (1040, 470, 12.5)
NARROW: Final = (350, 400, 11.0)


class Point(NamedTuple):
    """A strategy in the plane: dollars an item and share of right answers."""

    name: str
    cost: float
    accuracy: float
    ends: tuple[float, float] | None
    ours: bool
    dial: float | None
    front: bool


def points_of(group: Group) -> list[Point]:
    """Return the points of a benchmark; what has no known cost or accuracy cannot be drawn."""
    return [_point(row, row.strategy in group.front) for row in group.rows if _drawable(row)]


def _drawable(row: StrategyRow) -> bool:
    return row.accuracy is not None and row.net_cost is not None and row.net_cost > 0


def _point(row: StrategyRow, front: bool) -> Point:
    assert row.net_cost is not None
    assert row.accuracy is not None
    return Point(row.strategy, row.net_cost, row.accuracy, row.ci95, row.ours, row.dial, front)


def figure(title: str, points: Sequence[Point], left_out: int, sources: Sequence[int]) -> Figure:
    """Return the plot, wide and narrow; `left_out` strategies had no cost or accuracy to draw."""
    says = _says(points)
    wide = _draw(points, *WIDE, says=says, kind="wide")
    narrow = _draw(points, *NARROW, says=says, kind="narrow")
    notes = [
        "Dashed: the Pareto front, strategies that no other beats in accuracy and net cost"
        " together. Vertical bars: 95 % intervals."
    ]
    if any(p.dial is not None for p in points):
        notes.append("Blue line: r2 at several settings of its dial, from quality to cheapest.")
    if left_out:
        notes.append(f"{left_out} without a known accuracy, or a net cost above 0, not drawn.")
    return Figure(title, wide + narrow, says, notes, sources)


def _says(points: Sequence[Point]) -> str:
    best = sorted((p for p in points if p.front), key=lambda p: p.cost)
    told = "; ".join(f"{p.name} {percent(p.accuracy)} % at {money(p.cost)}" for p in best)
    return f"Accuracy against net cost of {len(points)} strategies. Pareto front: {told}."


def _draw(
    points: Sequence[Point], width: int, height: int, size: float, *, says: str, kind: str
) -> str:
    narrow = kind == "narrow"
    frame = Box(34, 30, width - 10, height - 46)
    x = Log.over([p.cost for p in points], frame.left + 6, frame.right - 6)
    y = _accuracy_scale(points, frame)
    dots = [_dot(p, x(p.cost), y(p.accuracy), narrow=narrow) for p in points]
    front = _steps([(x(p.cost), y(p.accuracy)) for p in points if p.front], frame)
    dial = _dial(points, x, y)
    busy = [*chart.along(front), *chart.along(dial)]
    for p in points:
        if p.ends is not None:
            at = x(p.cost)
            busy.append(Box(at - 2, y(p.ends[1]), at + 2, y(p.ends[0])))
    labels = chart.place_labels(
        dots, Box(frame.left + 2, 18, width - 2, frame.bottom - 2), size, busy
    )
    parts = [*_grid(frame, x, y, 4 if narrow else 9, width)]
    parts.append(chart.path(front, "front"))
    parts.append(chart.path(dial, "dial"))
    for p in points:
        if p.ends is not None and y(p.ends[0]) - y(p.ends[1]) > 2:
            at = x(p.cost)
            tone = "bar ours" if p.ours else "bar"
            parts.append(chart.line(at, y(p.ends[0]), at, y(p.ends[1]), tone))
    parts += [_leader(place, size) for place in labels if place.far]
    parts += [chart.mark(dot) for dot in sorted(dots, key=lambda d: -d.rank)]
    for place in labels:
        words = f"label {place.dot.kind}"
        parts.append(chart.text(place.x, place.y, place.text, words, place.anchor))
    return chart.svg(width, height, parts, says, kind)


def _accuracy_scale(points: Sequence[Point], frame: Box) -> Linear:
    low = min(p.ends[0] if p.ends else p.accuracy for p in points)
    high = max(p.ends[1] if p.ends else p.accuracy for p in points)
    if low > 0.3:
        span = max(high - low, 0.04)
        low = max(0.0, low - 0.12 * span)
        high = min(1.0, high + 0.12 * span)
    else:
        low, high = 0.0, min(1.0, max(high + 0.05, 0.1))
    return Linear(low, high, frame.bottom - 8, frame.top + 8)


def _dot(point: Point, x: float, y: float, *, narrow: bool) -> Dot:
    kind = "ours" if point.ours else "single" if point.name.startswith("single:") else "other"
    rank = 0 if point.name == "r2" else 1 if point.ours else 2 if point.front else 3
    if kind == "single" and not point.front:
        rank = 4
    within = percent_range(point.ends)
    says = f"{point.name}: {percent(point.accuracy)} % right" + (f" ({within})" if within else "")
    radius = 6.5 if point.name == "r2" else 4.5 if point.ours else 4.0
    label = _label(point, narrow=narrow)
    return Dot(x, y, label, kind, f"{says}, {money(point.cost)} an item", rank, radius)


def _label(point: Point, *, narrow: bool) -> str:
    if point.dial is not None and narrow:
        return f"@{point.dial:g}"
    return point.name.removeprefix("single:")


def _steps(corners: list[tuple[float, float]], frame: Box) -> list[tuple[float, float]]:
    """Return the staircase through the front: what can be had for at most so much."""
    if not corners:
        return []
    corners = sorted(corners)
    walk = [(corners[0][0], frame.bottom)]
    for (x1, y1), (x2, _) in itertools.pairwise(corners):
        walk += [(x1, y1), (x2, y1)]
    return [*walk, corners[-1], (frame.right, corners[-1][1])]


def _dial(points: Sequence[Point], x: Log, y: Linear) -> list[tuple[float, float]]:
    at = sorted((p.dial, p.cost, p.accuracy) for p in points if p.dial is not None)
    return [(x(cost), y(accuracy)) for _, cost, accuracy in at] if len(at) > 1 else []


def _grid(frame: Box, x: Log, y: Linear, most: int, width: int) -> list[str]:
    parts = []
    for value in y.ticks(5):
        at = y(value)
        parts.append(chart.line(frame.left, at, frame.right, at, "grid"))
        parts.append(chart.text(frame.left - 6, at + 4, f"{value * 100:g}", "tick", "end"))
    for value, words in x.ticks(most):
        at = x(value)
        parts.append(chart.line(at, frame.bottom, at, frame.bottom + 5, "axis"))
        parts.append(chart.text(at, frame.bottom + 18, words, "tick", "middle"))
    parts.append(chart.line(frame.left, frame.bottom, frame.right, frame.bottom, "axis"))
    parts.append(chart.text(2, 12, "Right answers, %", "title"))
    below = frame.bottom + 38
    parts.append(chart.text(width - 10, below, "net cost an item, log scale →", "title", "end"))
    return parts


def _leader(place: chart.Placed, size: float) -> str:
    """Return the thin line from a dot to a label that stands apart."""
    return chart.line(place.dot.x, place.dot.y, place.x, place.y - size * 0.35, "leader")
