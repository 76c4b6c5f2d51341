"""Sum up what `recipes/ablation.py` judged: a JSON document, and Markdown tables on stdout.

    python recipes/ablation_table.py runs/ablation --out docs/results/ablation.json

Intervals are paired bootstrap over items within each seed. "At equal cost" compares a policy with
the fine-tuned one at the net cost that the first has: between two settings of the dial, the second
is taken as a mixture of both, drawn query by query.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DEFAULT: Final = 0.25
DIALS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
DRAWS: Final = 2000
TASKS: Final = ("arithmetic test", "scan length")
NAMES: Final = {
    "untrained": "untrained",
    "sft": "SFT",
    "sft+grpo-decomposer": "SFT, then GRPO of the decomposer only",
    "sft+grpo-allocator": "SFT, then GRPO of the allocator only",
    "alternating": "**SFT, then GRPO of both, alternating**",
    "without-sft": "alternating without SFT",
    "without-cost": "alternating without the cost term",
    "per-subtask-credit": "alternating with per-subtask credit",
    "shuffled-labels": "SFT on shuffled labels",
    "kind-table": "SFT decomposer, table by operators and digits",
}


HEAD: Final = """\
# The trainer, part by part

Made by `recipes/ablation.py` and `recipes/ablation_table.py` (recipe `nano`): data, fine-tuning and
every variant for seeds 0, 1 and 2, judged on 1,000 arithmetic items (seed 21) and 1,000 of SCAN's
length test: the greedy, converted policies, through the router, every call billed. Means over seeds
at the setting 0.25 of the dial, which the default stands for. Minutes are wall-clock on a busy
two-core machine, data and fine-tuning included, the workers' training not.

How to read it:
- **GRPO of the allocator is what pays.** On arithmetic alternating GRPO beats fine-tuning on every
  seed: at a net cost not above fine-tuning's by 4 to 8 points of accuracy, and at equal net cost by
  8 to 11 points (all intervals without 0).
- **GRPO of the decomposer brings nothing here**: fine-tuned, it writes a right plan nearly always,
  four of five groups of samples earn the same, and no other plan is cheaper. It does mend what
  fine-tuning got wrong: SCAN on seed 1, from 99.5 to 100.0 %.
- **On SCAN there was next to no room**: after fine-tuning the workers cost 0.18 of 0.87 µ$ net; the
  rest is the policies' own tokens. A table that costs no token and always chooses right saves 0.24.
- **Without the cost term** it takes the strongest model everywhere. **Per-subtask credit** rewards
  the cheapest model that happened to be right, which imitation had learned already. **Shuffled
  labels** fall to the majority choice: no plan, one model.
- **Without fine-tuning nothing is learned**: a random decomposer's samples are no plans, all of a
  group earn nothing, and there is no gradient; queries are then asked as they stand.
- **A table by operators and digits**, fitted on the same outcomes with every model asked for every
  subtask, is level with the policy below 4 µ$ and cheaper on SCAN; above, the policy is better: the
  text says more than the table sees.
"""


class Judged:
    """A variant of a seed: by task and setting, arrays over items in one order."""

    def __init__(self, document: dict[str, Any], base: dict[str, float]) -> None:
        self.seed: int = document["seed"]
        self.variant: str = document["variant"]
        self.minutes: float = document["minutes"] + base["hours"] * 60
        self.dollars: float = document["dollars"] + base["dollars"]
        self._rows: dict[tuple[str, float], list[dict[str, Any]]] = {}
        for row in document["rows"]:
            key = (f"{row['benchmark']} {row['split']}", float(row["strategy"].removeprefix("r2@")))
            self._rows.setdefault(key, []).append(row)
        for rows in self._rows.values():
            rows.sort(key=lambda row: row["item"])

    def column(self, task: str, dial: float, name: str) -> Floats:
        """Return one column over items, as numbers."""
        return np.array([float(row[name]) for row in self._rows[task, dial]])

    def figures(self, task: str, dial: float) -> dict[str, Any]:
        """Return the means of a task at a setting; costs in dollars an item."""
        column = lambda name: self.column(task, dial, name)  # noqa: E731
        models: dict[str, int] = {}
        for row in self._rows[task, dial]:
            for model, count in row["models"].items():
                models[model] = models.get(model, 0) + count
        total = sum(models.values())
        return {
            "accuracy": column("right").mean(),
            "workers_cost": column("workers_cost").mean() / 1e12,
            "net_cost": column("net_cost").mean() / 1e12,
            "subtasks": column("subtasks").mean(),
            "direct": 1 - column("decomposed").mean(),
            "unparseable": int(column("plan_failed").sum()),
            "most_used": max(models.values(), default=0) / total if total else None,
        }


def main() -> None:
    """Read what was judged, write the document, print the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--out", type=Path, required=True)
    chosen = options.parse_args()
    found = [judged(file) for file in sorted(chosen.folder.glob("*/judged.json"))]
    document = summary(found)
    chosen.out.write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(markdown(document)))


def judged(file: Path) -> Judged:
    """Read what was judged, with the bill of the base run that it began with."""
    document = json.loads(file.read_text())
    base = file.parents[1] / f"{document['seed']}-base" / "summary.json"
    bill = json.loads(base.read_text())["total"]
    if document["variant"] == "untrained":
        bill = {"hours": 0.0, "dollars": 0.0}
    return Judged(document, bill)


def summary(found: list[Judged]) -> dict[str, Any]:
    """Return all figures: by variant and task, and the comparisons with fine-tuning alone."""
    variants = [v for v in NAMES if any(j.variant == v for j in found)]
    rows = []
    for variant in variants:
        mine = [j for j in found if j.variant == variant]
        for task in TASKS:
            by_dial = {d: [j.figures(task, d) for j in mine] for d in DIALS}
            rows.append(
                {
                    "variant": variant,
                    "task": task,
                    "seeds": [j.seed for j in mine],
                    "minutes": fmean(j.minutes for j in mine),
                    "dollars": fmean(j.dollars for j in mine),
                    "mean": _mean(by_dial[DEFAULT]),
                    "by_seed": by_dial[DEFAULT],
                    "dial": {str(d): _mean(figures) for d, figures in by_dial.items()},
                }
            )
    base = {j.seed: j for j in found if j.variant == "sft"}
    compared = [
        {"variant": j.variant, "seed": j.seed, "task": task, **_against(j, base[j.seed], task)}
        for j in found
        if j.variant != "sft" and j.seed in base
        for task in TASKS
    ]
    tax = [
        {"seed": j.seed, **j.figures("arithmetic test:2", DEFAULT)}
        for j in found
        if j.variant == "alternating"
    ]
    return {"rows": rows, "against_sft": compared, "one_step_queries": tax}


def _mean(figures: list[dict[str, Any]]) -> dict[str, float | None]:
    return {
        name: None if any(f[name] is None for f in figures) else fmean(f[name] for f in figures)
        for name in figures[0]
    }


def _against(mine: Judged, base: Judged, task: str) -> dict[str, Any]:
    """Compare with fine-tuning alone: at the default setting, and at equal net cost."""
    a, b = (j.column(task, DEFAULT, "right") for j in (mine, base))
    c, d = (j.column(task, DEFAULT, "net_cost") for j in (mine, base))
    draws = _draws(len(a))
    return {
        "accuracy_difference": (a - b).mean(),
        "accuracy_difference_ci95": _ci(_means(draws, a) - _means(draws, b)),
        "net_cost_ratio": c.sum() / d.sum(),
        "net_cost_ratio_ci95": _ci(_means(draws, c) / _means(draws, d)),
        "at_equal_cost": _equal_cost(mine, base, task, draws),
        "no_dearer": _no_dearer(mine, base, task, draws),
    }


def _no_dearer(mine: Judged, base: Judged, task: str, draws: Floats) -> dict[str, Any] | None:
    """Compare the dearest setting that costs no more than the base's default one, with that one."""
    limit = base.column(task, DEFAULT, "net_cost")
    fitting = [d for d in DIALS if mine.column(task, d, "net_cost").sum() <= limit.sum()]
    if not fitting:
        return None
    dial = min(fitting)
    right, cost = (mine.column(task, dial, name) for name in ("right", "net_cost"))
    theirs = base.column(task, DEFAULT, "right")
    return {
        "setting": dial,
        "accuracy_difference": (right - theirs).mean(),
        "accuracy_difference_ci95": _ci(_means(draws, right) - _means(draws, theirs)),
        "net_cost_ratio": cost.sum() / limit.sum(),
        "net_cost_ratio_ci95": _ci(_means(draws, cost) / _means(draws, limit)),
    }


def _equal_cost(mine: Judged, base: Judged, task: str, draws: Floats) -> dict[str, Any] | None:
    right, cost = (mine.column(task, DEFAULT, name) for name in ("right", "net_cost"))
    theirs = [[base.column(task, d, n) for n in ("right", "net_cost")] for d in DIALS]
    point = _mixture(cost.mean(), [(r.mean(), c.mean()) for r, c in theirs])
    if point is None:
        return None
    samples = []
    for weights in draws:
        total = weights.sum()
        of_base = [((weights @ r) / total, (weights @ c) / total) for r, c in theirs]
        at = _mixture((weights @ cost) / total, of_base)
        if at is not None:
            samples.append((weights @ right) / total - at)
    return {
        "accuracy_difference": right.mean() - point,
        "accuracy_difference_ci95": _ci(np.array(samples)),
    }


def _mixture(cost: float, points: list[tuple[float, float]]) -> float | None:
    """Return the best accuracy at a mean cost of mixtures of two points (accuracy, cost)."""
    best = [a for a, c in points if c <= cost]
    for a, c in points:
        for other, dearer in points:
            if c < cost < dearer:
                best.append(a + (other - a) * (cost - c) / (dearer - c))
    return max(best, default=None)


def _draws(items: int) -> Floats:
    rng = np.random.default_rng(0)
    return np.array(
        [np.bincount(rng.integers(0, items, items), minlength=items) for _ in range(DRAWS)],
        dtype=np.float64,
    )


def _means(draws: Floats, column: Floats) -> Floats:
    return draws @ column / len(column)


def _ci(samples: Floats) -> list[float]:
    return [float(q) for q in np.quantile(samples, [0.025, 0.975])]


def markdown(document: dict[str, Any]) -> Iterator[str]:
    """Yield the tables."""
    yield HEAD
    for task in TASKS:
        yield f"## {task}\n"
        yield (
            "| trained | right | workers, µ$ | net, µ$ | subtasks | direct | unparseable"
            " | most used model's share | minutes | paid, $ |"
        )
        yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
        for row in (r for r in document["rows"] if r["task"] == task):
            m = row["mean"]
            yield (
                f"| {NAMES[row['variant']]} | {m['accuracy']:.1%} | {1e6 * m['workers_cost']:.2f}"
                f" | {1e6 * m['net_cost']:.2f} | {m['subtasks']:.2f} | {m['direct']:.0%}"
                f" | {m['unparseable']:.0f} | {_share(m['most_used'])} | {row['minutes']:.1f}"
                f" | {row['dollars']:.2f} |"
            )
        yield ""
        yield "Against SFT alone, seed by seed:\n"
        yield (
            "| variant | seed | points, same setting | net cost | points at equal net cost |"
            " its first setting that costs no more | points there | net cost there |"
        )
        yield "|---|---:|---|---|---|---:|---|---|"
        for c in (c for c in document["against_sft"] if c["task"] == task):
            at, there = c["at_equal_cost"], c["no_dearer"]
            equal = _points(at) if at else "cheaper than any setting"
            last = (
                f"{there['setting']:g} | {_points(there)} | {_ratio(there)}" if there else " | | "
            )
            yield (
                f"| {c['variant']} | {c['seed']} | {_points(c)} | {_ratio(c)} | {equal} | {last} |"
            )
        yield ""
        yield "The dial (right @ net µ$):\n"
        yield f"| | {' | '.join(f'{d:g}' for d in DIALS)} |"
        yield f"|---|{'---|' * len(DIALS)}"
        for row in (r for r in document["rows"] if r["task"] == task):
            cells = (row["dial"][str(d)] for d in DIALS)
            shown = (f"{c['accuracy']:.1%} @ {1e6 * c['net_cost']:.2f}" for c in cells)
            yield f"| {NAMES[row['variant']]} | {' | '.join(shown)} |"
        yield ""


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _points(c: dict[str, Any]) -> str:
    low, high = c["accuracy_difference_ci95"]
    return f"{100 * c['accuracy_difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _ratio(c: dict[str, Any]) -> str:
    low, high = c["net_cost_ratio_ci95"]
    return f"{c['net_cost_ratio']:.0%} [{low:.0%}, {high:.0%}]"


if __name__ == "__main__":
    main()
