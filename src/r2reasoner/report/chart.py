"""Charts as SVG by hand: scales, readable ticks, and labels that keep clear of each other.

Colours are CSS classes of the page, so that one drawing serves light, dark and print. Each chart is
drawn twice, for a wide and for a narrow page, because scaled text is not readable text.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Final, NamedTuple

from r2reasoner.report.numbers import UNITS

GLYPH: Final = 0.56
"""Mean width of a character, in font sizes: what a label takes."""
BOLD_GLYPH: Final = 0.64
LEADER_FROM: Final = 15.0
MARGIN: Final = 3.0


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether two rectangles overlap."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: "Box") -> bool:
        """Whether it lies inside another."""
        across = self.left >= other.left and self.right <= other.right
        return across and self.top >= other.top and self.bottom <= other.bottom


@dataclass(frozen=True, slots=True)
class Log:
    """A logarithmic scale of money (dollars) onto pixels."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> "Log":
        """Return a scale that has room beside its values; they are above 0."""
        known = list(values)
        low, high = log10(min(known)), log10(max(known))
        room = max(0.12, (high - low) * 0.06)
        return cls(10 ** (low - room), 10 ** (high + room), start, end)

    def __call__(self, value: float) -> float:
        """Return where a value stands."""
        share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Return readable amounts and their texts: 1, 2, 5 in a narrow range, else powers of 10."""
        first, last = floor(log10(self.low)), ceil(log10(self.high))
        for steps, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
            values = [s * 10.0**p for p in range(first, last + 1, every) for s in steps]
            inside = [v for v in values if self.low <= v <= self.high]
            if len(inside) <= most:
                break
        return [(value, tick_money(value)) for value in inside]


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear scale onto pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return where a value stands."""
        wide = self.high - self.low or 1.0
        return self.start + (value - self.low) / wide * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Return round numbers on the scale, at most so many."""
        wide = self.high - self.low
        if wide <= 0:
            return [self.low]
        power = floor(log10(wide)) - 1
        steps = [m * 10.0**p for p in range(power, power + 4) for m in (1, 2, 2.5, 5)]
        step = next(s for s in steps if wide / s <= most)
        first = ceil(self.low / step - 1e-9)
        last = floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def tick_money(dollars: float) -> str:
    """Write a round amount: `10 µ$`, `0.5 $`, without digits that say nothing."""
    for unit in UNITS:
        value = dollars * unit.scale
        if value >= 0.999 or unit is UNITS[-1]:
            text = f"{value:,.6g}" if value < 1000 else f"{value:,.0f}"
            return f"${text}" if unit.name == "$" else f"{text} {unit.name}"
    raise AssertionError("the last unit takes all")


@dataclass(frozen=True, slots=True)
class Dot:
    """A point to be labelled, in pixels. `kind` is its CSS class, `rank` who is labelled first."""

    x: float
    y: float
    label: str
    kind: str
    says: str
    rank: int
    radius: float = 4.0

    @property
    def box(self) -> Box:
        """What it covers."""
        r = self.radius + 1
        return Box(self.x - r, self.y - r, self.x + r, self.y + r)


class Placed(NamedTuple):
    """A label where it found room; `anchor` is SVG's text-anchor, (x, y) its baseline."""

    dot: Dot
    text: str
    x: float
    y: float
    anchor: str
    far: bool


_DIRECTIONS: Final = (
    *((1.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (0.0, 1.0)),
    *((0.8, -0.8), (0.8, 0.8), (-0.8, -0.8), (-0.8, 0.8)),
)
_DISTANCES: Final = (8.0, 16.0, 26.0, 38.0, 52.0)


def place_labels(
    dots: Sequence[Dot], frame: Box, size: float, busy: Sequence[Box] = ()
) -> list[Placed]:
    """Return a place for each label that has room: near its dot, clear of dots and other labels.

    `busy` are places that labels avoid if they can. Dots on one spot share a label. A label
    without room is left out: its dot still says what it is.
    """
    placed: list[Placed] = []
    taken = [dot.box for dot in dots]
    for dot, text in sorted(_shared(dots), key=lambda pair: pair[0].rank):
        options = list(_options(dot, text, size))
        fit = [
            (far + 12.0 * sum(box.meets(b) for b in busy), place, box)
            for far, place, box in options
            if box.within(frame) and not any(box.meets(other) for other in taken)
        ]
        if fit:
            _, place, box = min(fit, key=lambda option: option[0])
            placed.append(place)
            taken.append(box)
    return placed


def _shared(dots: Sequence[Dot]) -> list[tuple[Dot, str]]:
    """Put the names of dots on one spot together."""
    spots: list[list[Dot]] = []
    for dot in sorted(dots, key=lambda d: d.rank):
        for spot in spots:
            same = abs(spot[0].x - dot.x) < 4 and abs(spot[0].y - dot.y) < 4
            if same and spot[0].kind == dot.kind:
                spot.append(dot)
                break
        else:
            spots.append([dot])
    return [(spot[0], ", ".join(dot.label for dot in spot)) for spot in spots]


def _options(dot: Dot, text: str, size: float) -> Iterator[tuple[float, Placed, Box]]:
    wide = (BOLD_GLYPH if dot.kind == "ours" else GLYPH) * size * len(text)
    for order, distance in enumerate(_DISTANCES):
        for turn, (dx, dy) in enumerate(_DIRECTIONS):
            reach = dot.radius + distance - 4
            x, middle = dot.x + dx * reach, dot.y + dy * (reach + size * 0.45)
            anchor = "start" if dx > 0 else "end" if dx < 0 else "middle"
            left = x if dx > 0 else x - wide if dx < 0 else x - wide / 2
            box = Box(left, middle - size * 0.55, left + wide, middle + size * 0.55)
            baseline = middle + size * 0.35
            far = distance >= LEADER_FROM
            yield order * 10 + turn, Placed(dot, text, x, baseline, anchor, far), box


def text(x: float, y: float, words: str, kind: str, anchor: str = "start", extra: str = "") -> str:
    """Return SVG text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"{extra}>'
        f"{escape(words)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return an SVG line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def path(points: Iterable[tuple[float, float]], kind: str) -> str:
    """Return an SVG polyline."""
    shape = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{shape}" class="{kind}"/>'


def mark(dot: Dot) -> str:
    """Return a dot with what it says when pointed at."""
    return (
        f'<circle cx="{dot.x:.1f}" cy="{dot.y:.1f}" r="{dot.radius:g}" class="dot {dot.kind}">'
        f"<title>{escape(dot.says)}</title></circle>"
    )


def along(points: Sequence[tuple[float, float]], step: float = 12.0) -> Iterator[Box]:
    """Yield small boxes along a line, for labels to avoid."""
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        count = max(1, int(max(abs(x2 - x1), abs(y2 - y1)) / step))
        for i in range(count + 1):
            x, y = x1 + (x2 - x1) * i / count, y1 + (y2 - y1) * i / count
            yield Box(x - MARGIN, y - MARGIN, x + MARGIN, y + MARGIN)


def svg(width: int, height: int, parts: Iterable[str], says: str, kind: str) -> str:
    """Return a drawing with a text for those who do not see it."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="{escape(says)}">{"".join(parts)}</svg>'
    )
