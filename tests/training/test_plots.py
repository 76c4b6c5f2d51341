"""Plots: every figure that has values gets a picture, and odd values break none."""

import math
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError

pytest.importorskip("matplotlib", reason="plots need matplotlib")

from r2reasoner.training import plots
from r2reasoner.training.metrics import append, series
from r2reasoner.training.plots import PICTURES, SHARES, draw

ALL = {f"{picture.name}.png" for picture in (*PICTURES, SHARES)}


def size(png: Path) -> tuple[int, int]:
    """Return width and height in pixels."""
    raw = png.read_bytes()
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    assert raw.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", raw[16:24])
    return width, height


def log(run: Path, stage: str, step: int, **figures: Any) -> None:
    append(run / "metrics.jsonl", stage, step, figures)


def test_every_figure_gets_a_picture(tmp_path: Path) -> None:
    names = {name for picture in PICTURES for name, _ in picture.curves}
    for stage in ("sft", "grpo-1"):
        for step in range(50):
            figures = dict.fromkeys(names, (step + 1) * 1e-06)
            log(tmp_path, stage, step, **figures, shares={"small": 0.25, "large": 0.75})
    files = draw(tmp_path)
    assert {file.name for file in files} == ALL
    assert set((tmp_path / "plots").iterdir()) == set(files)
    for file in files:
        width, height = size(file)
        assert 800 <= width <= 1600
        assert 450 <= height <= 600
        assert file.stat().st_size > 10_000


def test_a_figure_without_values_gets_none_and_odd_ones_break_nothing(tmp_path: Path) -> None:
    log(tmp_path, "sft", 0, loss=math.nan)
    log(tmp_path, "sft", 1, loss=0.5, kl=math.inf)
    log(tmp_path, "grpo 1 of a very long name indeed", 0, shares={"a": math.nan, "b": 1.0})
    log(tmp_path, "empty", 0, shares={})
    assert {file.name for file in draw(tmp_path)} == {"loss.png", "model_share.png"}
    log(tmp_path, "sft", 2, loss=-1e30)
    first = (tmp_path / "plots" / "loss.png").read_bytes()
    draw(tmp_path)
    assert (tmp_path / "plots" / "loss.png").read_bytes() != first


def test_stages_keep_their_order_and_many_of_them_fit(tmp_path: Path) -> None:
    for number in range(12):
        log(tmp_path, f"grpo-{number}-decomposer", 100, reward=number / 12)
        log(tmp_path, f"grpo-{number}-decomposer", 200, reward=number / 12)
    (file,) = draw(tmp_path)
    width, _ = size(file)
    assert 1600 <= width <= 3200


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.jsonl: no figures in it yet"):
        draw(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("nothing\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:1"):
        draw(tmp_path)


@pytest.mark.parametrize(
    ("dollars", "unit", "shown"),
    [(2.0, "dollars", 2.0), (0.002, "m$", 2.0), (2e-6, "µ$", 2.0), (0.0, "µ$", 0.0)],
)
def test_costs_are_shown_in_a_unit_that_suits_them(dollars: float, unit: str, shown: float) -> None:
    rows = [{"stage": "sft", "step": 1, "cost": dollars}, {"stage": "sft", "step": 2, "cost": None}]
    name, factor = plots._money({"all": series(rows, "cost")})
    assert unit in name
    assert dollars * factor == pytest.approx(shown)


def test_a_running_mean_leaves_out_what_is_no_number() -> None:
    values = [1.0, math.nan, 3.0, 5.0]
    assert plots._running_mean(values) == [1.0, 2.0, 4.0, 4.0]
    assert math.isnan(plots._running_mean([math.nan])[0])


def test_drawing_leaves_no_global_state() -> None:
    assert "matplotlib.pyplot" not in sys.modules
