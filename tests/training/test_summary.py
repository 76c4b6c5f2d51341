"""The summary: the bill is whole, trouble is said, and nothing is claimed that was not measured."""

import json
from typing import Any

from r2reasoner.training.metrics import Row
from r2reasoner.training.summary import markdown, summarise


def line(stage: str, step: int, **figures: Any) -> Row:
    return {"stage": stage, "step": step, "at": 1.0, **figures}


LINES = [
    line("build", 0, paid_pico=3_000_000, calls=10, seconds=1800.0),
    line("grpo-1", 1, paid_pico=1_000_000, calls=2, seconds=900.0, reward=0.1, plans=100),
    line("grpo-1", 2, paid_pico=1_000_000, calls=2, seconds=450.0, reward=0.2, plans=100,
         unparseable=3, faults={"unreadable": 2, "cycle": 1}, dropped=1, not_finite=1),
    line("grpo-1", 1, went_back=True),
    line("grpo-1", 2, paid_pico=500_000, calls=1, seconds=450.0, reward=0.3, plans=100,
         unparseable=1, faults={"cycle": 1}, shares={"small": 0.96, "large": 0.04, "x": None}),
]  # fmt: skip


def text(summary: dict[str, Any]) -> str:
    return "\n".join(markdown(summary))


def test_the_bill_counts_what_was_paid_for_repeated_steps() -> None:
    summary = summarise(LINES, {"build"})
    build, grpo = summary["stages"]
    assert (grpo["dollars"], grpo["calls"], grpo["hours"]) == (2.5e-6, 5, 0.5)
    assert (build["dollars"], build["hours"]) == (3e-6, 0.5)
    assert summary["total"] == {"dollars": 5.5e-6, "calls": 15, "unpriced": 0, "hours": 1.0}
    assert (build["done"], grpo["done"]) == (True, False)
    assert "| all | | | 5.50 µ$ | 15 | 1.000 |" in text(summary)


def test_figures_are_of_the_resolved_steps() -> None:
    grpo = summarise(LINES)["stages"][1]
    assert (grpo["step"], grpo["last"]) == (2, {"reward": 0.3})
    assert (grpo["plans"], grpo["unparseable"], grpo["faults"]) == (200, 1, {"cycle": 1})
    said = text(summarise(LINES))
    assert "| grpo-1 | 200 | 1 | 0.50% | cycle 1 |" in said
    assert "| reward | 0.3 |" in said


def test_one_model_for_all_is_an_alarm() -> None:
    summary = summarise(LINES)
    grpo = summary["stages"][1]
    assert grpo["shares"] == {"small": 0.96, "large": 0.04}
    assert "small takes 96.0%" in grpo["alarm"]
    assert "**Alarm** in grpo-1: small takes 96.0%" in text(summary)
    even = summarise([line("grpo-1", 1, shares={"small": 0.5, "large": 0.5})])
    assert even["stages"][0]["alarm"] is None
    assert "Alarm" not in text(even)


def test_trouble_is_said() -> None:
    lines = [*LINES, line("grpo-1", 3, dropped=2, calls=5, unpriced=4)]
    summary = summarise(lines)
    assert summary["stages"][1]["dropped"] == 2  # step 2 dropped none when it was run again
    assert summary["stages"][1]["not_finite"] == 1
    said = text(summary)
    assert "grpo-1: 2 groups of rollouts dropped; 1 figures that were not finite; 4 calls" in said
    assert "2.50 µ$ + unknown" in said
    assert "Trouble" not in text(summarise(LINES[:1]))


def test_a_run_that_did_nothing_has_an_empty_bill() -> None:
    summary = summarise([], {"build"})
    assert summary["total"] == {"dollars": 0, "calls": 0, "unpriced": 0, "hours": 0}
    assert [s["stage"] for s in summary["stages"]] == ["build"]
    assert "| build | yes | | $0.0000 | 0 | 0.000 |" in text(summary).replace("|  |", "| |")
    assert json.loads(json.dumps(summary)) == summary
