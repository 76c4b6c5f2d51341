"""Numbers as people read them: money, shares, points, intervals. Pure text, no markup.

A figure that is not known reads "unknown", never 0.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

UNKNOWN: Final = "unknown"
MINUS: Final = "−"
FIGURE_SPACE: Final = "\u2007"
POINT_SPACE: Final = "\u2008"

Interval = tuple[float, float]


class Unit(NamedTuple):
    """A unit of money, and how many of it a dollar is."""

    name: str
    scale: float


UNITS: Final = (Unit("$", 1.0), Unit("m$", 1e3), Unit("µ$", 1e6), Unit("n$", 1e9))


def unit_for(dollars: float) -> Unit:
    """Return the largest unit in which an amount is 1 or more."""
    return next((unit for unit in UNITS if abs(dollars) * unit.scale >= 1), UNITS[-1])


def common_unit(costs: Iterable[float | None]) -> Unit:
    """Return one unit for a column of amounts: the one that fits its dearest."""
    dearest = max((abs(cost) for cost in costs if cost is not None), default=0.0)
    return unit_for(dearest) if dearest else UNITS[0]


def money(dollars: float | None) -> str:
    """Write an amount in its own unit, e.g. `$1.20` or `6.05 µ$`."""
    if dollars is None:
        return UNKNOWN
    if not dollars:
        return "$0"
    unit = unit_for(dollars)
    shown = signed_minus(significant(dollars * unit.scale))
    return f"${shown}" if unit.name == "$" else f"{shown}\u00a0{unit.name}"


def in_unit(dollars: float | None, unit: Unit) -> str:
    """Write an amount as a bare number of a unit."""
    return UNKNOWN if dollars is None else signed_minus(significant(dollars * unit.scale))


def significant(value: float, digits: int = 3) -> str:
    """Write a number with at least so many significant digits, without an exponent."""
    if value == 0:
        return "0"
    whole = float(f"{value:.{digits}g}")
    if abs(whole) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    places = 0
    while places < 12 and abs(whole) < 10 ** (digits - 1 - places):
        places += 1
    return f"{whole:,.{places}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share as percent, without the sign."""
    return UNKNOWN if share is None else signed_minus(f"{share * 100:.{digits}f}")


def points(difference: float | None) -> str:
    """Write a difference of shares in percentage points, always signed."""
    return UNKNOWN if difference is None else signed_minus(f"{difference * 100:+.1f}")


def percent_range(ends: Interval | None, digits: int = 1) -> str:
    """Write an interval of shares as percent; empty where there is none."""
    if ends is None:
        return ""
    return " to ".join(signed_minus(f"{end * 100:.{digits}f}") for end in ends)


def points_range(ends: Interval | None) -> str:
    """Write an interval of differences in points; empty where there is none."""
    return "" if ends is None else " to ".join(points(end) for end in ends)


def plain_range(ends: Interval | None) -> str:
    """Write an interval of bare numbers; empty where there is none."""
    return "" if ends is None else " to ".join(signed_minus(f"{end:.3f}") for end in ends)


def seconds(duration: float | None) -> str:
    """Write a time."""
    if duration is None:
        return UNKNOWN
    return f"{duration * 1000:.0f}\u00a0ms" if duration < 10 else f"{duration:.1f}\u00a0s"


def signed_minus(text: str) -> str:
    """Put a real minus sign for a hyphen, and none before a zero."""
    if text.startswith("-") and not text.strip("-0.,"):
        text = text[1:]
    return text.replace("-", MINUS)


def aligned(texts: Sequence[str]) -> list[str]:
    """Pad numbers of a column on the right, so that their decimal points stand below each other.

    Padding is spaces of the width of a digit and of a point; texts that are no numbers stay.
    """
    places = [_places(text) for text in texts]
    most = max((count for count in places if count is not None), default=0)
    padded = []
    for text, count in zip(texts, places, strict=True):
        if count is None or count == most:
            padded.append(text)
        else:
            point = POINT_SPACE if count == 0 else ""
            padded.append(text + point + FIGURE_SPACE * (most - count))
    return padded


def _places(text: str) -> int | None:
    bare = text.replace(",", "").replace(MINUS, "").lstrip("+")
    whole, point, fraction = bare.partition(".")
    if not whole.isdigit() or (point and not fraction.isdigit()):
        return None
    return len(fraction)
