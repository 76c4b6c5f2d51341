"""Routers on recorded outcomes: their figures with intervals, and how far they are from the oracle.

Figures are those of RouteLLM and RouterBench: APGR is the mean recovered share of the gap between
the weak and the strong model over all budgets, CPT50 the share of calls to the strong one that
recovers half of it, AIQ the area under the accuracy-cost curve.
"""

from collections.abc import Sequence
from typing import Final

from r2reasoner.report.numbers import (
    aligned,
    money,
    percent,
    percent_range,
    plain_range,
    points,
    points_range,
    signed_minus,
)
from r2reasoner.report.page import Cell, Column, Line, Table, number, word
from r2reasoner.report.results import Judged, JudgeRow

FIGURES: Final = (
    ("apgr", "APGR", "", False),
    ("cpt50", "CPT50", "%", True),
    ("cpt80", "CPT80", "%", True),
    ("aiq", "AIQ", "", False),
    ("mean_score", "mean score", "%", True),
    ("mean_price", "mean price", "", False),
    ("price_at_best_single_score", "price at the best single score", "", False),
    ("oracle", "oracle", "%", True),
    ("coverage", "coverage", "%", True),
)
DIFFERENCES: Final = (
    ("apgr_difference", "APGR", "", False),
    ("aiq_difference", "AIQ", "", False),
    ("mean_score_difference", "mean score", "points", True),
)
OURS: Final = "r2-light"
REFERENCES: Final = frozenset({"oracle", "random", "best single"})
LOWER_IS_BETTER: Final = frozenset({"cpt50", "cpt80", "mean_price", "price_at_best_single_score"})
PRICES: Final = frozenset({"mean_price", "price_at_best_single_score"})
NOT_COMPARED: Final = frozenset({"oracle", "coverage", "mean_price", "mean_score"})
"""Alike for all routers, or to be read together only."""


def judged_tables(results: Sequence[Judged], first_source: int) -> list[Table]:
    """Return one table for each set of each file; figures that no router has are left out."""
    tables = []
    for source, result in enumerate(results, first_source):
        for name in dict.fromkeys(row.set for row in result.rows):
            rows = [row for row in result.rows if row.set == name]
            tables.append(_table(name, rows, source))
        tables += _comparison_tables(result, source)
    return tables


def _comparison_tables(result: Judged, source: int) -> list[Table]:
    """Return each router less kNN and ridge, by set; figures that no pair has are left out."""
    tables = []
    for name in dict.fromkeys(row.set for row in result.comparisons):
        rows = [row for row in result.comparisons if row.set == name]
        shown = [d for d in DIFFERENCES if any(getattr(r, d[0]) is not None for r in rows)]
        columns = [Column("router", number=False), Column("against", number=False)]
        columns += [Column(title, unit) for _, title, unit, _ in shown]
        lines = []
        for row in rows:
            cells = [word(row.router, strong=row.router.startswith(OURS)), word(row.against)]
            for key, _, _, share in shown:
                value, ends = getattr(row, key), getattr(row, f"{key}_ci95")
                cells.append(_difference(value, ends, as_points=share))
            lines.append(Line(cells, row.router.startswith(OURS)))
        note = "Paired: the same items and draws. Bold: the interval leaves out 0."
        title = f"{name}: differences"
        tables.append(Table(title, columns, lines, (note, *result.notes), (source,)))
    return tables


def _difference(value: float | None, ends: tuple[float, float] | None, *, as_points: bool) -> Cell:
    if value is None:
        return word("")
    apart = ends is not None and (ends[0] > 0 or ends[1] < 0)
    if as_points:
        return Cell(points(value), value, points_range(ends), apart)
    return Cell(signed_minus(f"{value:+.3f}"), value, plain_range(ends), apart)


def _table(name: str, rows: Sequence[JudgeRow], source: int) -> Table:
    rows = sorted(rows, key=lambda r: -_value(r, "apgr" if rows[0].apgr is not None else "aiq"))
    shown = [f for f in FIGURES if any(getattr(row, f[0]) is not None for row in rows)]
    columns = [Column("router", number=False)]
    columns += [Column(title, unit) for _, title, unit, _ in shown]
    best = {key: _best(key, rows) for key, *_ in shown}
    texts = {
        key: aligned([_text(getattr(row, key), key, as_percent=share) for row in rows])
        for key, _, _, share in shown
    }
    lines = []
    for i, row in enumerate(rows):
        cells = [word(row.router, strong=row.router.startswith(OURS))]
        for key, _, _, share in shown:
            value, ends = getattr(row, key), getattr(row, f"{key}_ci95")
            beside = _beside(key, ends, as_percent=share)
            strong = value is not None and value == best[key] and row.router not in REFERENCES
            cells.append(Cell(texts[key][i], value, beside, strong))
        lines.append(Line(cells, row.router.startswith(OURS)))
    sizes = sorted({row.n for row in rows})
    items = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    notes = ["Bold: the best of its column. What was never recorded counts as not covered."]
    return Table(f"{name}, {items} items", columns, lines, notes, (source,))


def _beside(key: str, ends: tuple[float, float] | None, *, as_percent: bool) -> str:
    if ends is not None and key in PRICES:
        return " to ".join(money(end) for end in ends)
    return percent_range(ends) if as_percent else plain_range(ends)


def _value(row: JudgeRow, key: str) -> float:
    value: float | None = getattr(row, key)
    return float("-inf") if value is None else float(value)


def _text(value: float | None, key: str, *, as_percent: bool) -> str:
    if value is None:
        return ""
    if key in PRICES:
        return money(value)
    if as_percent:
        return percent(value)
    return signed_minus(f"{value:.3f}")


def _best(key: str, rows: Sequence[JudgeRow]) -> float | None:
    real = [row for row in rows if row.router not in REFERENCES]
    known: list[float] = [v for row in real if (v := getattr(row, key)) is not None]
    if not known or key in NOT_COMPARED:
        return None
    return min(known) if key in LOWER_IS_BETTER else max(known)


def oracle_table(results: Sequence[Judged], first_source: int) -> Table | None:
    """Return for each set the best router, the plain ones, and what the oracle would reach."""
    lines, sources = [], []
    for source, result in enumerate(results, first_source):
        for name in dict.fromkeys(row.set for row in result.rows):
            rows = [
                r
                for r in result.rows
                if r.set == name and r.mean_score is not None and r.router not in REFERENCES
            ]
            if not rows or rows[0].oracle is None:
                continue
            top = max(rows, key=lambda r: r.mean_score or 0)
            gap = rows[0].oracle - (top.mean_score or 0)
            sources.append(source)
            cells = [
                word(name),
                word(top.router, strong=True),
                number(percent(top.mean_score), top.mean_score, percent_range(top.mean_score_ci95)),
                number(percent(rows[0].oracle), rows[0].oracle),
                number(percent(gap), gap),
            ]
            lines.append(Line(cells))
    if not lines:
        return None
    columns = [
        Column("set", number=False),
        Column("best router", number=False),
        Column("its mean score", "%"),
        Column("oracle", "%"),
        Column("left to gain", "points"),
    ]
    title = "How far from the oracle"
    return Table(title, columns, lines, (), tuple(dict.fromkeys(sources)))
