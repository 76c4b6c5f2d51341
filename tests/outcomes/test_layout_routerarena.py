from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.types import Usage
from shared_rows import by_model, shared_lines, taken_in

MODEL = {"score": 0.5, "cost_usd": 1e-6, "input_tokens": 7, "output_tokens": 2}
ROW: dict[str, Any] = {
    "global_index": "MMLUPro_history_12",
    "question": "When?",
    "ground_truth": "then",
    "metric": "exact_match",
    "models": {"a": MODEL, "b": MODEL},
}


def test_a_row_by_hand(tmp_path: Path) -> None:
    found = by_model(taken_in(tmp_path, *shared_lines("routerarena_sub10", "outcomes.jsonl", 2)))
    assert {m: (o.score, a.cost, a.usage, o.group) for m, (a, o) in found.items()} == {
        "claude-3-haiku-20240307": (0.0, 170_000_000, Usage(120, 112), "AIME"),
        "gemini-2.0-flash-001": (1.0, 96_000_000, Usage(92, 217), "AIME"),
    }


def test_the_group_is_the_index_without_its_number(tmp_path: Path) -> None:
    assert {o.group for _, o in by_model(taken_in(tmp_path, ROW)).values()} == {"MMLUPro_history"}


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({"a": MODEL}, "no outcome of b"),
        ({"a": MODEL, "b": MODEL | {"cost_usd": None}}, "cost_usd: the price is unknown"),
        ({"a": MODEL, "b": MODEL | {"cost_usd": -1}}, "cost_usd: the price is unknown"),
        ({"a": MODEL, "b": MODEL | {"score": 3}}, "score: expected at most 1, got 3"),
        ({"a": MODEL, "b": {"score": 1}}, "without input_tokens"),
        ({"a": MODEL, "b": MODEL | {"output_tokens": 1.5}}, "expected a whole number"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, models: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{said}"):
        taken_in(tmp_path, ROW, ROW | {"question": "Who?", "models": models})
