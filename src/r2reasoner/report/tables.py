"""Tables of strategies: a benchmark's own, and the average over benchmarks."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from r2reasoner.report.groups import Group, Span, average
from r2reasoner.report.headline import Standing
from r2reasoner.report.numbers import (
    aligned,
    common_unit,
    in_unit,
    percent,
    percent_range,
    points,
    points_range,
    significant,
)
from r2reasoner.report.page import Cell, Column, Line, Table, number, word
from r2reasoner.report.results import StrategyRow


def ranked(rows: Iterable[StrategyRow]) -> list[StrategyRow]:
    """Return rows by accuracy, then by net cost; what is not known last."""

    def key(row: StrategyRow) -> tuple[float, float]:
        cost = row.net_cost
        return (-1.0 if row.accuracy is None else row.accuracy, -(cost or 0.0))

    return sorted(rows, key=key, reverse=True)


def strategy_table(group: Group) -> Table:
    """Return a benchmark's table, best first."""
    rows = ranked(group.rows)
    title = f"All strategies, {group.items:,} items"
    seeds = [str(s) for s in group.seeds if s is not None]
    notes = ["● on the Pareto front of accuracy and net cost. Costs are for one item."]
    if len(seeds) > 1 and group.spread:
        told = ", ".join(
            f"{name} {percent(low)} to {percent(high)}"
            for name, (low, high) in group.spread.items()
        )
        notes.append(f"Means over seeds {', '.join(seeds)}; accuracy by seed: {told}.")
    return _table(title, rows, group.front, lambda row: row.ci95, notes, group.sources)


def average_table(groups: Sequence[Group], names: Sequence[str]) -> Table:
    """Return the means over benchmarks of the strategies that stand in all of them."""
    means, ends = [], {}
    for name in names:
        same = [next(r for r in g.rows if r.strategy == name) for g in groups]
        row, ends[name] = _mean(same)
        means.append(row)
    counted = Group("average", tuple(means), (), (), (), {}, ())
    told = ", ".join(group.name for group in groups)
    notes = [
        f"Plain means over {told}. Intervals: the benchmarks' own, taken as independent.",
        "● on the Pareto front of these means.",
    ]
    sources = tuple(sorted({s for g in groups for s in g.sources}))
    title = f"Average over {len(groups)} benchmarks"
    return _table(title, ranked(means), counted.front, lambda r: ends[r.strategy], notes, sources)


def _mean(same: Sequence[StrategyRow]) -> tuple[StrategyRow, tuple[float, float] | None]:
    known = [Span(r.accuracy, r.ci95) for r in same if r.accuracy is not None]
    accuracy = average(known) if len(known) == len(same) else Span(0.0, None)
    update: dict[str, object] = {
        name: _plain_mean([getattr(r, name) for r in same])
        for name in ("workers_cost", "net_cost", "calls", "latency_s", "subtasks")
    }
    update["accuracy"] = accuracy.value if len(known) == len(same) else None
    update["ci95"] = accuracy.ends
    update["n"] = sum(r.n for r in same)
    return same[0].model_copy(update=update), accuracy.ends


def _plain_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _table(
    title: str,
    rows: Sequence[StrategyRow],
    front: frozenset[str],
    ends: Callable[[StrategyRow], tuple[float, float] | None],
    notes: Sequence[str],
    sources: Sequence[int],
) -> Table:
    unit = common_unit(c for row in rows for c in (row.workers_cost, row.net_cost))
    workers = aligned([in_unit(row.workers_cost, unit) for row in rows])
    net = aligned([in_unit(row.net_cost, unit) for row in rows])
    calls = aligned([significant(row.calls) for row in rows])
    places = 2 if any(row.latency_s >= 1 for row in rows) else 3
    scored = any(row.score is not None for row in rows)
    columns = [
        Column("", number=False),
        Column("strategy", number=False),
        Column("right", "%"),
        *([Column("score", "%")] if scored else []),
        Column("workers cost", unit.name),
        Column("net cost", unit.name),
        Column("calls"),
        Column("latency", "s"),
    ]
    lines = []
    for i, row in enumerate(rows):
        cells = [
            word("●" if row.strategy in front else ""),
            word(row.strategy, strong=row.ours),
            number(percent(row.accuracy), row.accuracy, percent_range(ends(row))),
            *(
                [number(percent(row.score), row.score, percent_range(row.score_ci95))]
                if scored
                else []
            ),
            Cell(workers[i], row.workers_cost),
            Cell(net[i], row.net_cost),
            Cell(calls[i], row.calls),
            Cell(f"{row.latency_s:.{places}f}", row.latency_s),
        ]
        lines.append(Line(cells, row.ours))
    return Table(title, columns, lines, notes, sources)


def _score(row: StrategyRow) -> Cell:
    text = "" if row.score is None else percent(row.score)
    return number(text, row.score, percent_range(row.score_ci95))


def versus_tables(found: Sequence[Standing]) -> list[Table]:
    """Return ours against each kind of rival, benchmark by benchmark."""
    return [_versus(standing) for standing in found]


def _versus(standing: Standing) -> Table:
    columns = [
        Column("benchmark", number=False),
        Column("rival", number=False),
        Column("net cost of r2", "times theirs"),
        Column("accuracy of r2", "points"),
    ]
    times = aligned([significant(one.ratio.value) for one in standing.single])
    lines = []
    for i, one in enumerate(standing.single):
        ends = one.ratio.ends
        reach = "" if ends is None else " to ".join(significant(end) for end in ends)
        apart = one.difference
        cells = [
            word(one.group.name),
            word(one.rival),
            number(times[i], one.ratio.value, reach),
            number(points(apart.value), apart.value, points_range(apart.ends)),
        ]
        lines.append(Line(cells))
    notes = [
        "Item by item, by paired bootstrap; in the headline the geometric mean of the ratios and"
        " the plain mean of the differences."
    ]
    sources = tuple(sorted({s for v in standing.single for s in v.group.sources}))
    return Table(f"r2 against {standing.short}", columns, lines, notes, sources)
