"""Training in figures: curves of runs, their bills, the ablation, and a nano pool's ladder."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, Final, NamedTuple

from r2reasoner.report import chart
from r2reasoner.report.chart import Linear
from r2reasoner.report.numbers import aligned, common_unit, in_unit, money, percent, significant
from r2reasoner.report.page import Cell, Column, Figure, Line, Table, number, word
from r2reasoner.report.results import Ablated, AblationRow, Laddered, Trained
from r2reasoner.training.metrics import series

WIDTH: Final = 344
HEIGHT: Final = 210
WINDOW: Final = 15
SMOOTHED_FROM: Final = 40


class Curve(NamedTuple):
    """What a small plot shows: (figure, CSS class) each, and how values are written."""

    title: str
    lines: tuple[tuple[str, str], ...]
    shown: Callable[[float], str]


def _percent(value: float) -> str:
    return f"{value * 100:g} %"


def _plain(value: float) -> str:
    return f"{value:g}"


CURVES: Final = (
    Curve("Mean reward", (("reward", "thin"), ("val_reward", "thick")), _plain),
    Curve(
        "Right answers",
        (("accuracy", "thin"), ("val_accuracy", "thick")),
        _percent,
    ),
    Curve(
        "Net cost a query",
        (("cost", "thin"), ("val_cost", "thick")),
        chart.tick_money,
    ),
    Curve(
        "Subtasks a plan",
        (("plan_length", "thin"), ("val_plan_length", "thick")),
        _plain,
    ),
    Curve("SFT loss, nats a token", (("loss", "thin"), ("val_loss", "thick")), _plain),
    Curve("KL from the reference, nats a token", (("kl", "thick"),), _plain),
)
_SFT_ONLY: Final = frozenset({"loss", "val_loss"})
Points = list[tuple[float, float]]


def curves(run: Trained, source: int) -> Figure | None:
    """Return a run's curves as small plots side by side, stages one after the other."""
    plots = [drawn for curve in CURVES if (drawn := _plot(run, curve)) is not None]
    if not plots:
        return None
    html = f'<div class="small">{"".join(plots)}</div>'
    name = _name(run)
    says = f"Training curves of {name}, stage by stage"
    notes = [
        "Thin: running means over training rollouts. Thick with dots: greedy, on held-out items."
    ]
    return Figure(f"Training curves: {name}", html, says, notes, (source,))


def _name(run: Trained) -> str:
    return run.file.resolve().parent.name if run.file.is_file() else run.file.name


def _plot(run: Trained, curve: Curve) -> str | None:
    steps = list(run.steps)
    found = {name: _clean(series(steps, name), name) for name, _ in curve.lines}
    stages = [s["stage"] for s in run.summary["stages"]]
    stages = [s for s in stages if any(len(found[name].get(s, ())) > 1 for name in found)]
    if not stages:
        return None
    lengths = [max(at[-1][0] for name in found if (at := found[name].get(s))) for s in stages]
    starts = [sum(lengths[:i]) for i in range(len(stages))]
    values = [v for name in found for s in stages for _, v in found[name].get(s, ())]
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1) * 0.08
    y = Linear(max(0, low - room) if low >= 0 else low - room, high + room, HEIGHT - 36, 26)
    x = Linear(0, sum(lengths) or 1, 52, WIDTH - 6)
    parts = [chart.text(0, 12, curve.title, "title strong")]
    for value in y.ticks(4):
        parts.append(chart.line(52, y(value), WIDTH - 6, y(value), "grid"))
        parts.append(chart.text(46, y(value) + 4, curve.shown(value), "tick", "end"))
    parts += _stage_marks(stages, starts, lengths, x)
    for name, kind in curve.lines:
        for stage, start in zip(stages, starts, strict=True):
            at = [(x(start + step), y(v)) for step, v in _smooth(found[name].get(stage, []), kind)]
            parts.append(chart.path(at, f"curve {kind}"))
            if kind == "thick":
                parts += [
                    f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.4" class="knot"/>' for a, b in at
                ]
    says = f"{curve.title}, stages {', '.join(stages)}"
    return chart.svg(WIDTH, HEIGHT, parts, says, "plot")


def _clean(found: dict[str, list[tuple[int, Any]]], name: str) -> dict[str, Points]:
    return {
        stage: [(step, float(v)) for step, v in at if isinstance(v, int | float)]
        for stage, at in found.items()
        if name not in _SFT_ONLY or "sft" in stage
    }


def _smooth(at: Points, kind: str) -> Points:
    if kind == "thick" or len(at) < SMOOTHED_FROM:
        return at
    return [
        (at[i][0], fmean(v for _, v in at[max(0, i - WINDOW) : i + WINDOW + 1]))
        for i in range(len(at))
    ]


def _stage_marks(
    stages: Sequence[str], starts: Sequence[float], lengths: Sequence[float], x: Linear
) -> list[str]:
    parts = [chart.line(52, HEIGHT - 30, WIDTH - 6, HEIGHT - 30, "axis")]
    for stage, start, length in zip(stages, starts, lengths, strict=True):
        left, right = x(start), x(start + length)
        parts.append(chart.line(left, 24, left, HEIGHT - 30, "stage"))
        name = stage.replace("decomposer", "dec").replace("allocator", "alloc")
        if len(name) * chart.GLYPH * 9 > right - left:
            name = name.replace("grpo-", "").replace("sft-", "s-")
        if len(name) * chart.GLYPH * 9 <= right - left + 4:
            parts.append(chart.text((left + right) / 2, HEIGHT - 16, name, "tick small", "middle"))
    return parts


def run_table(run: Trained, source: int) -> Table:
    """Return what a run's stages cost, and where they ended."""
    every = run.summary["stages"]
    stages = [s for s in every if s.get("step") or s["calls"] or s["hours"]]
    last = [stage.get("last") or {} for stage in stages]
    costs = aligned([money(s["dollars"]).replace("$0", "0") for s in stages])
    columns = [
        Column("stage", number=False),
        Column("steps"),
        Column("paid"),
        Column("calls"),
        Column("hours"),
        Column("right, held out", "%"),
        Column("cost, held out"),
        Column("unparseable plans"),
        Column("groups dropped"),
    ]
    lines = []
    for i, stage in enumerate(stages):
        right, cost = last[i].get("val_accuracy"), last[i].get("val_cost")
        cells = [
            word(stage["stage"] + ("" if stage.get("done", True) else " (unfinished)")),
            number(f"{stage['step']:,}" if stage.get("step") else "", stage.get("step")),
            number(costs[i], stage["dollars"], "+ unknown" if stage.get("unpriced") else ""),
            number(f"{stage['calls']:,}", stage["calls"]),
            number(f"{stage['hours']:.3f}", stage["hours"]),
            number("" if right is None else percent(right), right),
            number("" if cost is None else money(cost), cost),
            number(_of(stage.get("unparseable"), stage.get("plans")), stage.get("unparseable")),
            number(str(stage.get("dropped") or ""), stage.get("dropped")),
        ]
        lines.append(Line(cells))
    total = run.summary["total"]
    notes = [
        f"In all {money(total.get('dollars'))}, {total.get('calls', 0):,} calls,"
        f" {total.get('hours', 0):.3f} hours."
    ]
    idle = [s["stage"] for s in every if s not in stages]
    if idle:
        notes.append(f"Nothing was called or trained in: {', '.join(idle)}.")
    notes += [f"Alarm in {s['stage']}: {s['alarm']}." for s in stages if s.get("alarm")]
    return Table(f"Stages of {_name(run)}", columns, lines, notes, (source,))


def _of(count: int | None, whole: int | None) -> str:
    return f"{count or 0:,} of {whole:,}" if whole else ""


def ablation_tables(result: Ablated, source: int) -> list[Table]:
    """Return what each part of the training brings, a table for each task."""
    tables = []
    for task in dict.fromkeys(row.task for row in result.rows):
        rows = sorted((r for r in result.rows if r.task == task), key=lambda r: -r.mean.accuracy)
        tables.append(_ablation(task, rows, source))
    return tables


def _ablation(task: str, rows: Sequence[AblationRow], source: int) -> Table:
    unit = common_unit(row.mean.net_cost for row in rows)
    workers = aligned([in_unit(row.mean.workers_cost, unit) for row in rows])
    net = aligned([in_unit(row.mean.net_cost, unit) for row in rows])
    top = max(row.mean.accuracy for row in rows)
    columns = [
        Column("training", number=False),
        Column("right", "%"),
        Column("workers cost", unit.name),
        Column("net cost", unit.name),
        Column("subtasks"),
        Column("most used model", "%"),
        Column("minutes"),
        Column("seeds"),
    ]
    lines = []
    for i, row in enumerate(rows):
        of_seeds = [one.accuracy for one in row.by_seed]
        spread = f"{percent(min(of_seeds))} to {percent(max(of_seeds))}" if of_seeds[1:] else ""
        mean = row.mean
        cells = [
            word(row.variant),
            Cell(percent(mean.accuracy), mean.accuracy, spread, mean.accuracy == top),
            number(workers[i], mean.workers_cost),
            number(net[i], mean.net_cost),
            number("" if mean.subtasks is None else significant(mean.subtasks), mean.subtasks),
            number("" if mean.most_used is None else percent(mean.most_used), mean.most_used),
            number("" if row.minutes is None else f"{row.minutes:.1f}", row.minutes),
            number(str(len(row.seeds)), len(row.seeds)),
        ]
        lines.append(Line(cells))
    notes = ["Means over seeds, with the lowest and highest. Costs are for one item."]
    return Table(f"What the training brings: {task}", columns, lines, notes, (source,))


def ladder_table(result: Laddered, source: int) -> Table:
    """Return how often each model gets each kind of subtask right."""
    models = list(result.kinds[0].accuracy) if result.kinds else []
    columns = [
        Column("kind of subtask", number=False),
        Column("items"),
        *(Column(m, "%") for m in models),
    ]
    lines = []
    for kind in result.kinds:
        cells = [word(f"{kind.family}: {kind.kind}"), number(f"{kind.items:,}", kind.items)]
        for model in models:
            share = kind.accuracy.get(model)
            best = model == kind.cheapest and kind.reached
            text = "" if share is None else percent(share, 0)
            cells.append(Cell(text, share, strong=best, weight=share))
        lines.append(Line(cells))
    notes = ["Bold: the cheapest model that is right often enough."]
    return Table("The ladder: which model for which subtask", columns, lines, notes, (source,))
