"""The figures of an evaluation as tables for a terminal: strategies, and r2 against the others."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from r2reasoner.bootstrap import Interval
from r2reasoner.results import Comparison, StrategyFigures, Summary

ITEMS: Final = 1000
BEST: Final = "●"
_UNITS: Final = (("$", 1.0), ("m$", 1e3), ("µ$", 1e6), ("n$", 1e9))


def print_summary(summary: Summary, console: Console) -> None:
    """Print both tables, best first, and what must be known to read them."""
    console.print(figures_table(summary.rows))
    if summary.comparisons:
        console.print(comparisons_table(summary.comparisons))
    for note in _notes(summary.rows):
        console.print(Text(note, style="yellow"))


def figures_table(rows: Sequence[StrategyFigures]) -> Table:
    """Return the table of strategies, by accuracy, then by net cost."""
    first = rows[0]
    unit, scale = _unit(cost for row in rows for cost in (row["workers_cost"], row["net_cost"]))
    table = Table(
        title=Text(f"{first['benchmark']} {first['split']}, {first['n']:,} items"),
        title_justify="left",
        caption=f"{BEST} no other strategy is as right for less; accuracy with its 95 % interval;"
        " net cost is everything that was paid, the router included",
        caption_justify="left",
    )
    table.add_column("")
    table.add_column("strategy", overflow="fold")
    for heading in (
        "accuracy %",
        "95 %",
        f"workers {unit} / {ITEMS:,}",
        f"net {unit} / {ITEMS:,}",
        "calls",
        "latency",
    ):
        table.add_column(heading, justify="right")
    for row in sorted(rows, key=_rank):
        table.add_row(
            Text(BEST if row["pareto"] else "", style="green"),
            Text(row["strategy"], style="bold" if row["pareto"] else ""),
            _percent(row["accuracy"]),
            _range(row["ci95"], 100, ".1f"),
            _cost(row["workers_cost"], scale),
            _cost(row["net_cost"], scale),
            f"{row['calls']:.2f}",
            _seconds(row["latency_s"]),
        )
    return table


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the table of our strategies against each other one."""
    ours = {c["strategy"] for c in comparisons}
    title = f"{ours.pop()} against" if len(ours) == 1 else "against each other strategy"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("strategy", overflow="fold")
    for heading in ("accuracy points", "95 %", "net cost ratio", "95 %"):
        table.add_column(heading, justify="right")
    for c in comparisons:
        name = c["against"] if title.endswith(" against") else f"{c['strategy']} : {c['against']}"
        table.add_row(
            Text(name),
            _points(c["accuracy_difference"]),
            _range(c["accuracy_difference_ci95"], 100, "+.1f"),
            _significant(c["net_cost_ratio"]),
            _range(c["net_cost_ratio_ci95"], 1, ".3g"),
        )
    return table


def _rank(row: StrategyFigures) -> tuple[float, float]:
    return (-(row["accuracy"] or 0.0), float("inf") if row["net_cost"] is None else row["net_cost"])


def _notes(rows: Sequence[StrategyFigures]) -> list[str]:
    notes = []
    for row in rows:
        counted = {
            "plans that failed": row["plan_failures"],
            "without a whole answer": row["failed"],
            "not scored": row["unscored"],
            "fell back to another model": row["fell_back"],
        }
        told = ", ".join(f"{count:,} {what}" for what, count in counted.items() if count)
        if told:
            notes.append(f"{row['strategy']}: of {row['n']:,} items {told}")
    return notes


def _unit(costs: Iterable[float | None]) -> tuple[str, float]:
    """Return the unit in which the dearest cost of `ITEMS` items is 1 or more, and its scale."""
    dearest = max((cost for cost in costs if cost is not None), default=0.0) * ITEMS
    fitting = (unit for unit in _UNITS if dearest * unit[1] >= 1 or dearest == 0)
    return next(fitting, _UNITS[-1])


def _cost(dollars: float | None, scale: float) -> str:
    return "unknown" if dollars is None else _significant(dollars * ITEMS * scale)


def _significant(value: float | None) -> str:
    """Write three significant digits without an exponent."""
    if value is None:
        return "unknown"
    if value >= 100:
        return f"{value:,.0f}"
    digits = 2 if value >= 1 else 3
    return f"{value:.{digits}f}" if value >= 0.1 or value == 0 else f"{float(f'{value:.2g}'):.6g}"


def _percent(share: float | None) -> str:
    return "unscored" if share is None else f"{share * 100:.1f}"


def _points(difference: float | None) -> str:
    return "unscored" if difference is None else f"{difference * 100:+.1f}"


def _range(ci95: Interval | None, scale: float, form: str) -> str:
    if ci95 is None:
        return ""
    low, high = (format(end * scale, form) for end in ci95)
    return f"{low} to {high}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
