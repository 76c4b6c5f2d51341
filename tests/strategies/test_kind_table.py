from math import inf, log
from pathlib import Path

import pytest

from measured_files import write
from pools import answers, plan_json
from r2reasoner.strategies import open_strategy
from r2reasoner.strategies.kind_table import KindTable, Tried, kind_of
from strategy_contexts import asking


def test_a_kind_is_a_text_with_every_digit_the_same() -> None:
    assert kind_of("34 * 5 + # [ 12 ]") == kind_of("99 * 1 + # [ 70 ]") == "99 * 9 + # [ 99 ]"
    assert kind_of("34 * 5") != kind_of("34 * 50")


def test_the_best_of_a_kind_by_hand() -> None:
    weak = [Tried(1, 1), Tried(0, 1), Tried(1, 1), Tried(0, 3)]  # (2 + 1) / 6 = .5, cost 1.5
    strong = [Tried(1, 10)] * 4  # (4 + 1) / 6 = .833, cost 10
    table = KindTable({"9 + 9": [weak, strong]}, ["weak", "strong"])
    assert table.by_kind["9 + 9"] == ((0.5, 1.5), (5 / 6, 10.0))
    even = (log(5 / 6) - log(0.5)) / 8.5
    assert table.best("3 + 4", even - 0.001) == "strong"
    assert table.best("3 + 4", even + 0.001) == "weak"
    assert table.best("3 + 4", inf) == "weak"
    assert table.best("30 + 4", inf) == "strong", "an unknown kind"


def test_a_kind_that_some_model_was_never_tried_on_is_unknown() -> None:
    assert KindTable({"9": [[Tried(1, 1)], []]}, ["weak", "strong"]).best("7", inf) == "strong"


@pytest.mark.parametrize(
    ("dial", "takes"),
    [
        # P of sums: 11/12 for all; of products: small 1/12, medium 9/12, large 11/12.
        # Relative costs .01, .1 and 1. At .5 mu is .125: medium -.288 - .013, large -.087 - .125;
        # at .7 it is .408: medium -.288 - .041, large -.087 - .408.
        ("0", ["small", "large"]),
        ("0.5", ["small", "large"]),
        ("0.7", ["small", "medium"]),
        ("1", ["small", "small"]),
    ],
)
async def test_subtasks_of_r2s_plan_by_kind(dial: str, takes: list[str], tmp_path: Path) -> None:
    right = {"+": {"small": 10, "medium": 10, "large": 10}, "*": {"medium": 8, "large": 10}}
    write(
        tmp_path / "o.jsonl",
        (
            {"text": f"1{n} {sign} 2", "model": model, "right": n < share.get(model, 0), "cost": c}
            for sign, share in right.items()
            for model, c in (("small", 1), ("medium", 10), ("large", 100))
            for n in range(10)
        ),
    )
    plan = plan_json("34 + 5", "71 * 3")
    async with asking(answers(plan), outcomes=tmp_path / "o.npz") as (context, _):
        trace = await open_strategy(f"kind-table@{dial}", context).trace("a sum and a product")
    assert [step.model for step in trace.steps] == takes
