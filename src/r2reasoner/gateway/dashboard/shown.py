"""Values as pages show them: money, times, dates, long texts. Pure text; templates escape it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from r2reasoner.report import numbers
from r2reasoner.types import PICO_PER_DOLLAR, Pico, to_dollars

LONGEST: Final = 20_000
"""Most characters of one text on a page; the whole stands in the trace's JSON."""


def money(pico: Pico | float | None) -> str:
    """Write an amount in the unit that fits it."""
    return numbers.money(None if pico is None else pico / PICO_PER_DOLLAR)


def exact_money(pico: Pico | None) -> str:
    """Write an amount in dollars, with every digit."""
    return numbers.UNKNOWN if pico is None else f"{to_dollars(pico):f} dollars"


def limit(pico: Pico) -> str:
    """Write an amount that somebody set, as it was set."""
    return f"${to_dollars(pico).normalize():,f}"


def share(value: float | None, digits: int = 0) -> str:
    """Write a share with its sign of percent."""
    return numbers.UNKNOWN if value is None else f"{numbers.percent(value, digits)}\u00a0%"


def count(value: int) -> str:
    """Write a number of things."""
    return f"{value:,}"


def seconds(value: float | None) -> str:
    """Write a duration."""
    if value is None or value < 1:
        return numbers.seconds(value)
    return f"{numbers.significant(value)}\u00a0s"


def moment(when: float) -> str:
    """Write a Unix time, in UTC."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S")


def day(when: float) -> str:
    """Write the day of a Unix time, in UTC."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d")


def one_line(text: str, most: int = 160) -> str:
    """Return a text on one line, cut where it is longer."""
    line = " ".join(text[: most * 4].split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def whole(text: str) -> str:
    """Return a text with its end cut off where a page cannot hold it."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n… {len(text) - LONGEST:,} more characters: see the JSON"


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "money": money,
    "exact_money": exact_money,
    "limit": limit,
    "share": share,
    "count": count,
    "seconds": seconds,
    "moment": moment,
    "day": day,
    "one_line": one_line,
    "whole": whole,
}
