"""Pictures of a training run, made of its metrics alone: one PNG a question.

Every stage that has the figure stands side by side in the order of training, each with its own
steps below it. Noisy curves are drawn thin, with their running mean on top. Needs matplotlib.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.files import write_whole
from r2reasoner.training.metrics import Row, read, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI: Final = 120
TITLE_WIDTH: Final = 18
HEIGHT_IN: Final = 4.2
SMOOTHED_FROM: Final = 40
WINDOWS: Final = 20
COLOURS: Final = ("#1f5fa8", "#d1661f", "#2f8f5b")
GREY: Final = "#666666"

Points = Sequence[tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class Picture:
    """What a plot shows: curves are (figure, label); `shared`: all stages on one scale."""

    name: str
    title: str
    unit: str
    curves: tuple[tuple[str, str], ...]
    shared: bool = True
    limits: tuple[float | None, float | None] = (None, None)


PICTURES: Final = (
    Picture(
        "reward",
        "Reward: what the policy is trained to raise",
        "mean reward a query",
        (("reward", "training rollouts (sampled)"), ("val_reward", "validation (greedy)")),
    ),
    Picture(
        "accuracy",
        "Accuracy: how many final answers are right",
        "share of queries answered rightly",
        (("accuracy", "training rollouts (sampled)"), ("val_accuracy", "validation (greedy)")),
        limits=(0, 1.02),
    ),
    Picture(
        "cost",
        "Cost: what a query costs",
        "a query",
        (
            ("cost", "all calls, training rollouts"),
            ("val_cost", "all calls, validation"),
            ("workers_cost", "workers only, training rollouts"),
        ),
        limits=(0, None),
    ),
    Picture(
        "plan_length",
        "Plan length: how finely queries are decomposed (1: answered directly)",
        "subtasks a plan",
        (
            ("plan_length", "training rollouts (sampled)"),
            ("val_plan_length", "validation (greedy)"),
        ),
        limits=(0, None),
    ),
    Picture(
        "kl",
        "KL divergence: how far the policy has moved from its reference",
        "nats a token",
        (("kl", "policy against reference"),),
        limits=(0, None),
    ),
    Picture(
        "loss",
        "Loss: cross-entropy in SFT, the policy loss in GRPO (own scale for each stage)",
        "loss (SFT: nats a token)",
        (("loss", "training"), ("val_loss", "validation")),
        shared=False,
    ),
)
SHARES: Final = Picture(
    "model_share",
    "Model share: who answers the subtasks",
    "share of the subtasks",
    (("shares", ""),),
    limits=(0, 1),
)


def draw(run: Path) -> list[Path]:
    """Draw a run folder's metrics into `plots/`; return the files, a figure without values none.

    Raises ConfigError where matplotlib is missing or a file cannot be written, DataError where
    the metrics are damaged or there are none.
    """
    rows = read(run / "metrics.jsonl")
    if not rows:
        raise DataError(f"{run / 'metrics.jsonl'}: no figures in it yet, so nothing to draw")
    folder = run / "plots"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from error
    files = []
    for picture in (*PICTURES, SHARES):
        figure = _shares(rows) if picture is SHARES else _curves(picture, rows)
        if figure is not None:
            file = folder / f"{picture.name}.png"
            write_whole(file, _png(figure), replace=True)
            files.append(file)
    return files


def _curves(picture: Picture, rows: list[Row]) -> "Figure | None":
    curves = {label: _finite(series(rows, name)) for name, label in picture.curves}
    curves = {label: stages for label, stages in curves.items() if stages}
    if not curves:
        return None
    unit, factor = _money(curves) if picture.name == "cost" else (picture.unit, 1.0)
    stages = _in_order(rows, curves.values())
    figure, panels = _panels(picture, unit, [_last(rows, s) for s in stages], stages)
    for panel, stage in zip(panels, stages, strict=True):
        for colour, of_curve in zip(COLOURS, curves.values(), strict=False):
            _line(panel, of_curve.get(stage, ()), factor, colour)
    _limit(picture, panels)
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=c, lw=2, label=label)
        for c, label in zip(COLOURS, curves, strict=False)
    ]
    if any(len(points) >= SMOOTHED_FROM for of in curves.values() for points in of.values()):
        thin = "thin: every step, thick: running mean"
        handles.append(Line2D([], [], color=GREY, lw=0.6, label=thin))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9
    )
    return figure


def _shares(rows: list[Row]) -> "Figure | None":
    found = {
        stage: [(step, shares) for step, shares in points if shares]
        for stage, points in series(rows, "shares").items()
    }
    found = {stage: points for stage, points in found.items() if points}
    if not found:
        return None
    stages = _in_order(rows, [found])
    models = list(
        dict.fromkeys(m for points in found.values() for _, shares in points for m in shares)
    )
    import matplotlib

    ramp = matplotlib.colormaps["viridis"]
    colours = [ramp(0.05 + 0.9 * i / max(len(models) - 1, 1)) for i in range(len(models))]
    steps = [_last(rows, s) for s in stages]
    figure, panels = _panels(SHARES, SHARES.unit, steps, stages)
    for panel, stage in zip(panels, stages, strict=True):
        points = found[stage]
        if len(points) == 1:
            step, shares = points[0]
            points = [(0, shares), (max(step, 1), shares)]
        heights = [[shares.get(model) or 0.0 for _, shares in points] for model in models]
        areas = panel.stackplot(
            [step for step, _ in points], heights, colors=colours, labels=models, linewidth=0
        )
    _limit(SHARES, panels)
    figure.legend(
        handles=areas[::-1],
        loc="outside right center",
        frameon=False,
        fontsize=9,
        title="model\n(in the pool's order)",
        title_fontsize=9,
    )
    return figure


def _panels(
    picture: Picture, unit: str, last_steps: list[int], stages: list[str]
) -> tuple["Figure", list["Axes"]]:
    """Make one panel a stage, side by side; a long stage is wider, within reason."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'r2reasoner[training]'") from None
    mean = sum(last_steps) / len(last_steps) or 1
    widths = [min(max(steps / mean, 0.7), 1.6) for steps in last_steps]
    layout = ConstrainedLayoutEngine(wspace=0, w_pad=0.03)
    figure = Figure(figsize=(max(7.5, 1.7 * len(stages) + 2), HEIGHT_IN), layout=layout)
    grid = figure.subplots(
        1, len(stages), sharey=picture.shared, squeeze=False, width_ratios=widths
    )
    panels: list[Axes] = list(grid[0])
    for panel, stage, steps in zip(panels, stages, last_steps, strict=True):
        panel.set_title("\n".join(wrap(stage, TITLE_WIDTH)), fontsize=9)
        panel.set_xlabel("step", fontsize=8, color=GREY)
        panel.set_xlim(0, max(steps, 1))
        panel.xaxis.set_major_locator(MaxNLocator(3, integer=True, prune="lower"))
        panel.tick_params(labelsize=8, colors=GREY)
        panel.grid(axis="y", color="#dddddd", lw=0.6)
        panel.set_axisbelow(True)
        panel.spines["top"].set_visible(False)
        for spine in panel.spines.values():
            spine.set_color("#aaaaaa")
    for panel in panels[1:] if picture.shared else ():
        panel.tick_params(axis="y", length=0)
    panels[0].set_ylabel(unit, fontsize=9)
    figure.suptitle(picture.title, fontsize=11, fontweight="bold")
    return figure, panels


def _line(panel: "Axes", points: Points, factor: float, colour: str) -> None:
    if not points:
        return
    steps = [step for step, _ in points]
    values = [math.nan if value is None else value * factor for _, value in points]
    if len(points) < SMOOTHED_FROM:
        mark = "o" if len(points) <= SMOOTHED_FROM / 2 else None
        panel.plot(steps, values, color=colour, lw=1.6, marker=mark, ms=3.5)
    else:
        panel.plot(steps, values, color=colour, lw=0.6, alpha=0.35)
        panel.plot(steps, _running_mean(values), color=colour, lw=2)


def _running_mean(values: list[float]) -> list[float]:
    """Return the mean over a window around each value, without those that are no number."""
    half = max(len(values) // WINDOWS // 2, 1)
    means = []
    for i in range(len(values)):
        near = [v for v in values[max(i - half, 0) : i + half + 1] if not math.isnan(v)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means


def _finite(stages: dict[str, list[tuple[int, Any]]]) -> dict[str, list[tuple[int, Any]]]:
    """Leave out stages in which a figure never was a number."""
    return {s: points for s, points in stages.items() if any(v is not None for _, v in points)}


def _in_order(rows: list[Row], curves: Any) -> list[str]:
    wanted = {stage for stages in curves for stage in stages}
    return [stage for stage in dict.fromkeys(row["stage"] for row in rows) if stage in wanted]


def _last(rows: list[Row], stage: str) -> int:
    return max(int(row["step"]) for row in rows if row["stage"] == stage)


def _limit(picture: Picture, panels: list["Axes"]) -> None:
    low, high = picture.limits
    for panel in panels:
        if low is not None:
            panel.set_ylim(bottom=low)
        if high is not None:
            panel.set_ylim(top=high)


def _money(curves: dict[str, dict[str, list[tuple[int, Any]]]]) -> tuple[str, float]:
    """Return the unit of dollars that suits the values, and what to multiply them by."""
    largest = max(v or 0 for stages in curves.values() for p in stages.values() for _, v in p)
    if largest >= 0.1:
        return "dollars a query", 1.0
    if largest >= 1e-4:
        return "thousandths of a dollar a query (m$)", 1e3
    return "millionths of a dollar a query (µ$)", 1e6


def _png(figure: "Figure") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
