"""What days cost, as bars, with what the strongest model alone would have cost above them."""

from collections.abc import Iterator, Sequence
from datetime import date
from html import escape
from typing import Final, NamedTuple

from r2reasoner.gateway.dashboard.shown import money
from r2reasoner.report.chart import Linear, line, svg, text, tick_money
from r2reasoner.types import PICO_PER_DOLLAR, Pico

LEFT: Final = 58
TOP: Final = 14
BOTTOM: Final = 24
GAP: Final = 0.28
LEAST: Final = 1.5
"""Height in pixels of a day that cost something, so that it is seen."""


class DaySpent(NamedTuple):
    """One day: what was paid, and what was saved by estimate (negative: lost)."""

    day: date
    paid: Pico
    saved: Pico

    @property
    def instead(self) -> Pico:
        """What would have been paid."""
        return self.paid + self.saved


def draw_days(days: Sequence[DaySpent], strongest: str) -> str:
    """Return the chart as SVG, for wide and for narrow pages."""
    return "".join(
        _draw(days, strongest, width, height, every, kind)
        for width, height, every, kind in ((1040, 230, 5, "wide"), (358, 200, 10, "narrow"))
    )


def _draw(
    days: Sequence[DaySpent], strongest: str, width: int, height: int, every: int, kind: str
) -> str:
    most = max((max(d.paid, d.instead) for d in days), default=0) / PICO_PER_DOLLAR
    floor = height - BOTTOM
    scale = Linear(0.0, most or 1.0, floor, TOP)
    parts = list(_grid(scale, width, most, 4))
    step = (width - LEFT) / max(1, len(days))
    for i, day in enumerate(days):
        left = LEFT + i * step
        parts.append(_bar(day, left + step * GAP / 2, step * (1 - GAP), scale, strongest))
        if (len(days) - 1 - i) % every == 0:
            words = day.day.strftime("%d %b").lstrip("0")
            last = i == len(days) - 1
            x, anchor = (left + step, "end") if last else (left + step / 2, "middle")
            parts.append(text(x, height - 6, words, "tick", anchor))
    paid = sum(day.paid for day in days)
    says = f"{len(days)} days: {money(paid)} in all, most on a day {money(most * PICO_PER_DOLLAR)}"
    return svg(width, height, parts, says, kind)


def _grid(scale: Linear, width: int, most: float, ticks: int) -> Iterator[str]:
    for value in scale.ticks(ticks) if most else [0.0]:
        y = scale(value)
        yield line(LEFT, y, width, y, "axis" if value == 0 else "grid")
        yield text(LEFT - 8, y + 4, tick_money(value) if value else "0", "tick", "end")


def _bar(day: DaySpent, left: float, wide: float, scale: Linear, strongest: str) -> str:
    says = f"{day.day:%Y-%m-%d}: {money(day.paid)}"
    if day.saved:
        says += f"; {strongest} alone: about {money(day.instead)}"
    shapes = [f"<title>{escape(says)}</title>"]
    if day.saved > 0:
        shapes.append(_rect(left, wide, scale, day.instead, "instead"))
    shapes.append(_rect(left, wide, scale, day.paid, "paid"))
    return f"<g>{''.join(shapes)}</g>"


def _rect(left: float, wide: float, scale: Linear, pico: Pico, kind: str) -> str:
    top = scale(pico / PICO_PER_DOLLAR)
    high = max(LEAST, scale(0.0) - top) if pico else 0.0
    return (
        f'<rect x="{left:.1f}" y="{scale(0.0) - high:.1f}" width="{wide:.1f}"'
        f' height="{high:.1f}" class="{kind}"/>'
    )
