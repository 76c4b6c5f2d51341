"""What a page is made of: sections of tables and figures, before anyone writes them out.

HTML and Markdown are written from the same page, so both say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """One cell. `sort` is what it is sorted by, `beside` fainter text after it (an interval).

    `weight` (0 to 1) shades it; `strong` marks the best of its kind.
    """

    text: str
    sort: float | None = None
    beside: str = ""
    strong: bool = False
    weight: float | None = None


class Column(NamedTuple):
    """A column: its heading, a unit below it, and whether it holds numbers."""

    title: str
    unit: str = ""
    number: bool = True


class Line(NamedTuple):
    """One row of a table. `ours` is drawn in the colour of our router."""

    cells: Sequence[Cell]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table; `sources` are numbers of entries in the provenance."""

    title: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    sources: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture as HTML of our own making, and what it shows for those who do not see it."""

    title: str
    html: str
    says: str
    notes: Sequence[str] = ()
    sources: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page under one heading."""

    id: str
    title: str
    intro: str = ""
    blocks: Sequence[Table | Figure] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure of the headline. `saving` and `difference` are texts, with their intervals."""

    against: str
    saving: str
    saving_range: str
    saves: bool
    difference: str
    difference_range: str
    over: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the figures of a file come from; `facts` are (what, text) pairs."""

    number: int
    file: str
    command: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """The whole report."""

    title: str
    lead: str
    claims: Sequence[Claim]
    sections: Sequence[Section]
    origins: Sequence[Origin]
    made: str
    caution: str = ""


def number(text: str, value: float | None, beside: str = "", *, strong: bool = False) -> Cell:
    """Return a cell of a number."""
    return Cell(text, value, beside, strong)


def word(text: str, *, strong: bool = False) -> Cell:
    """Return a cell of a text."""
    return Cell(text, None, "", strong)
