"""The figures of an evaluation as tables for a terminal: strategies, and r2 against the others."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from r2reasoner.evaluation.bootstrap import Interval
from r2reasoner.evaluation.results import Comparison, StrategyFigures, Summary

ITEMS: Final = 1000
BEST: Final = "●"
CAPTION: Final = (
    f"{BEST} no other strategy is as right for less; [95 % interval over items]\n"
    "workers: the subtasks' calls; net: all that was paid, the router included\n"
    "latency: with many queries in flight at once"
)
_UNITS: Final = (("$", 1.0), ("m$", 1e3), ("µ$", 1e6), ("n$", 1e9))


def print_summary(summary: Summary, console: Console) -> None:
    """Print both tables, best first, and what must be known to read them."""
    console.print(figures_table(summary.rows))
    console.print(CAPTION, style="dim", markup=False, highlight=False)
    if summary.comparisons:
        console.print()
        console.print(comparisons_table(summary.comparisons))
    for note in _notes(summary.rows):
        console.print(Text(note, style="yellow"))


def figures_table(rows: Sequence[StrategyFigures]) -> Table:
    """Return the table of strategies, by accuracy, then by net cost."""
    first = rows[0]
    unit, scale = _unit(cost for row in rows for cost in (row["workers_cost"], row["net_cost"]))
    per = f"{unit}/{ITEMS:,}"
    scored = any("score" in row for row in rows)
    table = _table(f"{first['benchmark']} {first['split']}, {first['n']:,} items")
    table.add_column("", width=1)
    table.add_column("strategy", overflow="fold", min_width=11)
    accuracy = ("accuracy %", "score %") if scored else ("accuracy %",)
    for heading in (*accuracy, f"workers\n{per}", f"net\n{per}", "calls", "latency"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in sorted(rows, key=_rank):
        table.add_row(
            Text(BEST if row["pareto"] else "", style="green"),
            Text(row["strategy"], style="bold" if row["pareto"] else ""),
            f"{_percent(row['accuracy'])}{_range(row['ci95'], 100, '.1f')}",
            *([_percent(row.get("score"))] if scored else []),
            _cost(row["workers_cost"], scale),
            _cost(row["net_cost"], scale),
            f"{row['calls']:.2f}",
            _seconds(row["latency_s"]),
        )
    return table


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the table of our strategies against each other one."""
    ours = sorted({c["strategy"] for c in comparisons})
    table = _table(f"{', '.join(ours)} against the others, item by item")
    table.add_column("" if len(ours) == 1 else "strategy and other", overflow="fold")
    table.add_column("accuracy, points", justify="right", no_wrap=True)
    table.add_column("net cost, times", justify="right", no_wrap=True)
    for c in comparisons:
        other = c["against"] if len(ours) == 1 else f"{c['strategy']} and {c['against']}"
        table.add_row(
            Text(other),
            f"{_points(c['accuracy_difference'])}"
            f"{_range(c['accuracy_difference_ci95'], 100, '+.1f')}",
            f"{_significant(c['net_cost_ratio'])}{_range(c['net_cost_ratio_ci95'], 1, '.3g')}",
        )
    return table


def _table(title: str) -> Table:
    return Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD)


def _rank(row: StrategyFigures) -> tuple[float, float]:
    return (-(row["accuracy"] or 0.0), float("inf") if row["net_cost"] is None else row["net_cost"])


def _notes(rows: Sequence[StrategyFigures]) -> list[str]:
    """Say what went wrong on the way, the same of several strategies once."""
    strategies: dict[str, list[str]] = {}
    for row in rows:
        counted = {
            "without a valid plan": row["plan_failures"],
            "without a whole answer": row["failed"],
            "not scored": row["unscored"],
            "fell back to another model": row["fell_back"],
        }
        told = ", ".join(f"{count:,} {what}" for what, count in counted.items() if count)
        if told:
            strategies.setdefault(told, []).append(row["strategy"])
    return [f"{', '.join(names)}: {told}" for told, names in strategies.items()]


def _unit(costs: Iterable[float | None]) -> tuple[str, float]:
    """Return the unit in which the dearest cost of `ITEMS` items is 1 or more, and its scale."""
    dearest = max((cost for cost in costs if cost is not None), default=0.0) * ITEMS
    fitting = (unit for unit in _UNITS if dearest * unit[1] >= 1 or dearest == 0)
    return next(fitting, _UNITS[-1])


def _cost(dollars: float | None, scale: float) -> str:
    return "unknown" if dollars is None else _significant(dollars * ITEMS * scale)


def _significant(value: float | None) -> str:
    """Write about three significant digits, without an exponent."""
    if value is None:
        return "unknown"
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 1:
        return f"{value:.2f}"
    return f"{float(f'{value:.3g}'):.6f}".rstrip("0").rstrip(".") or "0"


def _percent(share: float | None) -> str:
    return "unscored" if share is None else f"{share * 100:.1f}"


def _points(difference: float | None) -> str:
    return "unscored" if difference is None else f"{difference * 100:+.1f}"


def _range(ci95: Interval | None, scale: float, form: str) -> str:
    if ci95 is None:
        return ""
    low, high = (format(end * scale, form) for end in ci95)
    return f" [{low}, {high}]"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
