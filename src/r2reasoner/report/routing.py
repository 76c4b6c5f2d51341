"""How our router works on benchmarks: who answers what, what decomposing costs, what went wrong."""

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

from r2reasoner.report.evidence import EasyTax, Shares
from r2reasoner.report.groups import Group
from r2reasoner.report.numbers import (
    UNKNOWN,
    aligned,
    common_unit,
    in_unit,
    money,
    percent,
    seconds,
    significant,
)
from r2reasoner.report.page import Cell, Column, Figure, Line, Table, number, word
from r2reasoner.report.results import StrategyRow

MOST_KINDS: Final = 14
LABELLED_FROM: Final = 0.09


class Bar(NamedTuple):
    """One bar of shares; `ours` is drawn in our colour."""

    name: str
    shares: dict[str, float]
    ours: bool
    beside: str = ""


def models_of(groups: Sequence[Group]) -> list[str]:
    """Return all models that answered subtasks, weakest first where the single calls say so."""
    singles = [
        r.strategy.removeprefix("single:")
        for g in groups
        for r in g.rows
        if r.strategy.startswith("single:")
    ]
    answering = {m for g in groups for r in g.rows for m in r.model_share}
    costs = {
        r.strategy.removeprefix("single:"): r.net_cost or 0.0
        for g in groups
        for r in g.rows
        if r.strategy.startswith("single:")
    }
    ordered = sorted(dict.fromkeys(singles), key=lambda m: costs[m])
    return [m for m in ordered if m in answering] + sorted(answering - set(ordered))


def share_bars(group: Group, models: Sequence[str]) -> Figure | None:
    """Return who answered the subtasks, strategy by strategy; single calls need no bar."""
    rows = [r for r in group.rows if r.model_share and not r.strategy.startswith("single:")]
    bars = [Bar(r.strategy, dict(r.model_share), r.ours) for r in rows]
    bars = [bar for bar in bars if bar.ours or len(bar.shares) > 1]
    if not any(bar.ours for bar in bars):
        return None
    return _bars(f"Who answers the subtasks: {group.name}", bars, models, group.sources)


def kind_bars(group: Group, shares: Shares, models: Sequence[str], strategy: str) -> Figure:
    """Return who answered which kind of subtask under our router."""
    kinds = list(shares.items())[:MOST_KINDS]
    bars = [
        Bar(kind, {m: n / count.total() for m, n in count.items()}, True, f"{count.total():,}")
        for kind, count in kinds
    ]
    title = f"Which model for which kind of subtask: {strategy} on {group.name}"
    hidden = len(shares) - len(kinds)
    notes = [f"{hidden} rarer kinds are not drawn."] if hidden else []
    return _bars(title, bars, models, group.sources, notes)


def kind_table(group: Group, shares: Shares, models: Sequence[str], strategy: str) -> Table:
    """Return the same as numbers."""
    used = [m for m in models if any(count[m] for count in shares.values())]
    columns = [
        Column("kind of subtask", number=False),
        Column("subtasks"),
        *(Column(m, "%") for m in used),
    ]
    lines = []
    for kind, count in shares.items():
        cells = [word(kind), number(f"{count.total():,}", count.total())]
        cells += [_share_cell(count[m] / count.total()) for m in used]
        lines.append(Line(cells))
    return Table(f"{strategy} on {group.name}, by kind", columns, lines, (), group.sources)


def _bars(
    title: str,
    bars: Sequence[Bar],
    models: Sequence[str],
    sources: Sequence[int],
    notes: Sequence[str] = (),
) -> Figure:
    used = [m for m in models if any(bar.shares.get(m) for bar in bars)]
    tones = {m: _tone(i, len(used)) for i, m in enumerate(used)}
    rows = "".join(_bar(bar, used, tones) for bar in bars)
    keys = "".join(
        f'<span class="key"><i style="--tone:{tones[m]}%"></i>{escape(m)}</span>' for m in used
    )
    says = "; ".join(
        f"{bar.name}: " + ", ".join(f"{m} {percent(v, 0)} %" for m, v in _largest(bar))
        for bar in bars
    )
    legend = f'<div class="keys" aria-hidden="true">weak {keys} strong</div>'
    html = f'<div class="shares" role="img" aria-label="{escape(says)}">{rows}</div>{legend}'
    return Figure(title, html, says, notes, sources)


def _largest(bar: Bar) -> list[tuple[str, float]]:
    return sorted(bar.shares.items(), key=lambda pair: -pair[1])[:3]


def _tone(place: int, count: int) -> int:
    """Return how strongly a model is coloured, in percent: the stronger, the darker."""
    return 12 + round(76 * place / max(1, count - 1))


def _bar(bar: Bar, models: Sequence[str], tones: dict[str, int]) -> str:
    parts = []
    for model in models:
        share = bar.shares.get(model, 0.0)
        if not share:
            continue
        inside = f"{escape(model)}" if share >= LABELLED_FROM else ""
        dark = " dark" if tones[model] > 50 else ""
        parts.append(
            f'<span class="part{dark}" style="flex:{share:.4f};--tone:{tones[model]}%"'
            f' title="{escape(model)}: {percent(share)} %">{inside}</span>'
        )
    ours = " ours" if bar.ours else ""
    beside = f'<span class="count">{escape(bar.beside)}</span>' if bar.beside else ""
    return (
        f'<div class="row"><span class="name{ours}">{escape(bar.name)}{beside}</span>'
        f'<span class="whole">{"".join(parts)}</span></div>'
    )


def shares_table(groups: Sequence[Group], models: Sequence[str]) -> Table | None:
    """Return each model's share of the subtasks, for our router on every benchmark."""
    rows = [(g, r) for g in groups for r in g.rows if r.ours and r.model_share]
    used = [m for m in models if any(r.model_share.get(m) for _, r in rows)]
    if not rows:
        return None
    columns = [
        Column("benchmark", number=False),
        Column("strategy", number=False),
        *(Column(m, "%") for m in used),
    ]
    lines = [
        Line(
            [word(g.name), word(r.strategy), *(_share_cell(r.model_share.get(m, 0)) for m in used)]
        )
        for g, r in rows
    ]
    sources = tuple(sorted({s for g, _ in rows for s in g.sources}))
    return Table("Share of the subtasks by model", columns, lines, (), sources)


def _share_cell(share: float) -> Cell:
    return Cell(percent(share) if share else "", share, weight=share)


def tax_table(groups: Sequence[Group]) -> Table | None:
    """Return what decomposing and allocating cost beside the work, for every setting of ours."""
    rows = [(g, r) for g in groups for r in g.rows if r.ours]
    if not rows:
        return None
    unit = common_unit(r.net_cost for _, r in rows)
    over = [_over(r) for _, r in rows]
    net = aligned([in_unit(r.net_cost, unit) for _, r in rows])
    workers = aligned([in_unit(r.workers_cost, unit) for _, r in rows])
    taxes = aligned([in_unit(cost, unit) for cost in over])
    columns = [
        Column("benchmark", number=False),
        Column("strategy", number=False),
        Column("decomposed", "%"),
        Column("subtasks"),
        Column("calls"),
        Column("workers", unit.name),
        Column("net", unit.name),
        Column("routing", unit.name),
        Column("routing", "% of net"),
    ]
    lines = []
    for i, (group, row) in enumerate(rows):
        part = None if over[i] is None or not row.net_cost else (over[i] or 0.0) / row.net_cost
        cells = [
            word(group.name),
            word(row.strategy, strong=True),
            number(percent(row.decomposed_share), row.decomposed_share),
            number(_maybe(row.subtasks), row.subtasks),
            number(significant(row.calls), row.calls),
            number(workers[i], row.workers_cost),
            number(net[i], row.net_cost),
            number(taxes[i], over[i]),
            number(percent(part), part),
        ]
        lines.append(Line(cells))
    sources = tuple(sorted({s for g, _ in rows for s in g.sources}))
    notes = [
        "Routing: net less workers, the decomposer’s and allocator’s calls. Costs are for one item."
    ]
    return Table("The decomposition tax", columns, lines, notes, sources)


def _maybe(value: float | None) -> str:
    return UNKNOWN if value is None else significant(value)


def _over(row: StrategyRow) -> float | None:
    known = row.net_cost is not None and row.workers_cost is not None
    return (row.net_cost or 0.0) - (row.workers_cost or 0.0) if known else None


def easy_table(found: Sequence[tuple[Group, StrategyRow, EasyTax]]) -> Table | None:
    """Return what routing cost more on items that one call would have solved."""
    if not found:
        return None
    columns = [
        Column("benchmark", number=False),
        Column("one call to", number=False),
        Column("solves", "items"),
        Column("r2 right on those", "%"),
        Column("one call costs"),
        Column("r2 costs"),
        Column("times"),
        Column("one call takes"),
        Column("r2 takes"),
    ]
    lines = []
    for group, _, tax in found:
        times = tax.ours_cost / tax.single_cost if tax.single_cost else None
        cells = [
            word(group.name),
            word(tax.single.removeprefix("single:")),
            number(f"{tax.items:,} of {tax.of:,}", tax.items),
            number(percent(tax.still_right), tax.still_right),
            number(money(tax.single_cost), tax.single_cost),
            number(money(tax.ours_cost), tax.ours_cost),
            number(_maybe(times), times),
            number(seconds(tax.single_latency_s), tax.single_latency_s),
            number(seconds(tax.ours_latency_s), tax.ours_latency_s),
        ]
        lines.append(Line(cells))
    sources = tuple(sorted({s for g, _, _ in found for s in g.sources}))
    title = "The tax on items that one call to the best single model solves"
    return Table(title, columns, lines, (), sources)


def trouble_table(groups: Sequence[Group]) -> Table:
    """Return what was not scored, failed or fell back; strategies alike share a line."""
    columns = [
        Column("benchmark", number=False),
        Column("strategies", number=False),
        Column("items"),
        Column("unscored"),
        Column("no whole answer"),
        Column("no valid plan"),
        Column("fell back"),
    ]
    lines, clean = [], 0
    for group in groups:
        alike: dict[tuple[int, ...], list[StrategyRow]] = {}
        for row in group.rows:
            counts = (row.n, row.unscored, row.failed, row.plan_failures, row.fell_back)
            alike.setdefault(counts, []).append(row)
        for (n, *troubles), rows in alike.items():
            if not any(troubles):
                clean += len(rows)
                continue
            names = ", ".join(row.strategy for row in rows)
            cells = [word(group.name), word(names), number(f"{n:,}", n)]
            cells += [number(f"{count:,}" if count else "", count) for count in troubles]
            lines.append(Line(cells))
    notes = [
        f"{clean:,} other figures had none of these: every item answered whole and scored."
        " Unscored items count in no accuracy; items without a whole answer count as wrong."
    ]
    sources = tuple(sorted({s for g in groups for s in g.sources}))
    return Table("Unscored, failed, fallen back", columns, lines, notes, sources)
