"""Metrics: whole lines, whatever was killed; repeated steps resolved; nothing billed is lost."""

import json
import math
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.training.metrics import (
    BILL,
    Row,
    append,
    billed,
    last_figures,
    mend,
    read,
    read_lines,
    resolve,
    series,
    went_back,
)

STEPS = st.lists(st.tuples(st.sampled_from(["sft", "grpo"]), st.integers(0, 5)), max_size=20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def line(stage: str, step: int, **figures: Any) -> Row:
    return {"stage": stage, "step": step, **figures}


def test_figures_are_read_back(file: Path) -> None:
    assert read(file) == []
    append(file, "sft", 1, {"loss": 2.5, "val_loss": None, "note": "first", "done": True})
    append(file, "sft", 2, {"shares": {"small": 0.25, "large": 0.75}, "path": [1, 2.5]})
    first, second = read(file)
    assert {"stage": "sft", "step": 1, "loss": 2.5, "note": "first"}.items() <= first.items()
    assert first["val_loss"] is None
    assert second["shares"] == {"small": 0.25, "large": 0.75}
    assert abs(json.loads(file.read_text().splitlines()[0])["at"] - 1.7e9) < 1e9


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf")]
)
def test_what_is_not_finite_is_null_and_counted(file: Path, bad: Any) -> None:
    lost = append(file, "grpo", 1, {"kl": bad, "reward": 0.5, "shares": {"a": bad, "b": 1.0}})
    (row,) = read(file)
    assert lost == 2
    assert row["not_finite"] == 2
    assert (row["kl"], row["reward"]) == (None, 0.5)
    assert row["shares"] == {"a": None, "b": 1.0}
    assert "NaN" not in file.read_text()


class OneElement:
    """A tensor of one element, as torch has it, without the seconds that importing it takes."""

    def __init__(self, value: float) -> None:
        self.value = value

    def item(self) -> float:
        return self.value


def test_numbers_of_numpy_and_tensors_are_numbers(file: Path) -> None:
    append(file, "sft", 1, {"n": np.int64(3), "loss": np.float32(0.5), "one": np.array([2.0])})
    (row,) = read(file)
    assert (row["n"], row["loss"], row["one"]) == (3, 0.5, 2.0)
    append(file, "sft", 1, {"loss": OneElement(0.25), "kl": OneElement(math.nan)})
    (row,) = read(file)
    assert (row["loss"], row["kl"]) == (0.25, None)


def test_what_is_no_figure_is_refused_and_nothing_is_written(file: Path) -> None:
    with pytest.raises(TypeError, match="figure loss: expected a number, got object"):
        append(file, "sft", 1, {"loss": object()})
    for name in ("at", "not_finite"):
        with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
            append(file, "sft", 1, {name: 1})
    assert not file.exists()


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_last_line_is_dropped_and_the_next_stands_alone(file: Path, cut: int) -> None:
    append(file, "sft", 1, {"loss": 2.0})
    append(file, "sft", 2, {"loss": 1.0})
    file.write_bytes(file.read_bytes()[:-cut])
    assert [row["step"] for row in read(file)] == [1]
    mend(file)
    append(file, "sft", 2, {"loss": 3.0})
    assert [row["loss"] for row in read(file)] == [2.0, 3.0]
    mend(file)
    assert len(read_lines(file)) == 2


@pytest.mark.parametrize(
    "bad", [b"", b"{}", b"[1]", b"\x00" * 40, b'{"stage": "sft", "step": "1"}']
)
def test_a_damaged_line_is_named(file: Path, bad: bytes) -> None:
    append(file, "sft", 1, {"loss": 2.0})
    file.write_bytes(file.read_bytes() + bad + b"\n")
    append(file, "sft", 2, {"loss": 2.0})
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: expected an object .* put back a copy"):
        read(file)


def test_a_full_disk_leaves_no_part_of_a_line(file: Path) -> None:
    append(file, "sft", 1, {"loss": 2.0})
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
        with pytest.raises(ConfigError, match="cannot be written"):
            append(file, "sft", 2, {"loss": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert file.read_bytes() == before


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    for act in (lambda: append(tmp_path, "sft", 1, {}), lambda: mend(tmp_path)):
        with pytest.raises(ConfigError, match="cannot be written"):
            act()
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)


def test_of_a_repeated_step_the_last_value_of_each_figure_wins() -> None:
    rows = resolve(
        [
            line("sft", 1, loss=3.0),
            line("sft", 2, loss=2.0),
            line("sft", 2, val_loss=2.5),
            line("grpo", 1, reward=0.1),
            line("sft", 2, loss=1.0),
        ]
    )
    assert rows == [
        line("sft", 1, loss=3.0),
        line("sft", 2, loss=1.0, val_loss=2.5),
        line("grpo", 1, reward=0.1),
    ]


def test_going_back_voids_later_figures_of_that_stage_and_no_bill(file: Path) -> None:
    for step in (1, 2, 3):
        append(file, "sft", step, {"loss": 1.0, "paid_pico": 5, "calls": 1, "seconds": 2.5})
    append(file, "grpo", 9, {"reward": 1.0})
    went_back(file, "sft", 1)
    append(file, "sft", 2, {"loss": 0.5, "paid_pico": 7, "calls": 1, "unpriced": 1})
    assert [(r["stage"], r["step"]) for r in read(file)] == [("sft", 1), ("sft", 2), ("grpo", 9)]
    assert billed(read_lines(file))["sft"] == dict(zip(BILL, (22, 4, 1, 7.5), strict=True))


def test_series_and_last_figures() -> None:
    rows = [
        line("sft", 1, loss=3.0, val_loss=None, plans=4),
        line("sft", 2, loss=2.0),
        line("grpo", 1, reward=0.5, at=1.0, dropped=1),
    ]
    assert series(rows, "loss") == {"sft": [(1, 3.0), (2, 2.0)]}
    assert series(rows, "val_loss") == {"sft": [(1, None)]}
    assert last_figures(rows) == {
        "sft": {"step": 2, "loss": 2.0, "val_loss": None},
        "grpo": {"step": 1, "reward": 0.5},
    }


@given(STEPS)
def test_resolved_rows_are_one_a_step_in_order_and_the_bill_is_whole(
    steps: list[tuple[str, int]],
) -> None:
    lines = [line(stage, step, loss=n, paid_pico=1) for n, (stage, step) in enumerate(steps)]
    rows = resolve(lines)
    assert {(r["stage"], r["step"]): r["loss"] for r in rows} == {
        key: n for n, key in enumerate(steps)
    }
    for stage in {s for s, _ in steps}:
        of_stage = [r["step"] for r in rows if r["stage"] == stage]
        assert of_stage == sorted(set(of_stage))
    assert resolve(rows) == rows
    assert sum(b["paid_pico"] for b in billed(lines).values()) == len(steps)
