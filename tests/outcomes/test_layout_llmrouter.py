from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.layouts import read_records
from shared_rows import by_model, shared_lines, taken_in, write_rows

ROW: dict[str, Any] = {
    "source_split": "train",
    "task": "mmlu",
    "metric": "em_mc",
    "query": "Which?",
    "choices": "['this', 'that']",
    "ground_truth": "A",
    "scores": {"gemma-2-9b-it": 1.0, "new": 0.25},
}
PRICE = {"model": "new", "input_price_per_million": 2, "output_price_per_million": 4.5}


def test_a_row_by_hand(tmp_path: Path) -> None:
    row, *models = (
        *shared_lines("llmrouter_nine_models", "outcomes.jsonl", 1),
        *shared_lines("llmrouter_nine_models", "models.jsonl", *range(1, 15)),
    )
    write_rows(tmp_path / "models.jsonl", *models)
    found = by_model(taken_in(tmp_path, row))
    assert len(found) == 9
    assert {o.score for _, o in found.values()} == {0.0}
    assert {o.group for _, o in found.values()} == {"agentverse-logicgrid"}
    # query and three options are 1,488 characters, 372 tokens; an answer counts as 128
    assert found["gemma-2-9b-it"][0].cost == 500 * 100_000
    assert found["codegemma-7b"][0].cost == 500 * 200_000
    assert found["llama3-chatqa-1.5-70b"][0].cost == 500 * 900_000


def test_prices_come_from_the_file_beside_if_there_is_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "models.jsonl", PRICE)
    file = write_rows(tmp_path / "outcomes.jsonl", ROW)
    for path in (tmp_path, file):
        found = by_model(read_records(path))
        text = "Which?\nA. this\nB. that"
        assert found["new"][0].cost == -(-len(text) // 4) * 2_000_000 + 128 * 4_500_000
        assert found["new"][1].score == 0.25
        assert found["gemma-2-9b-it"][0].input_price == "0.1"


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        (None, "Which?"),
        ("['assert f(1) == 2']", "Which?\nassert f(1) == 2"),
        ("{'text': ['x', 'y'], 'label': ['A', 'B']}", "Which?\nA. x\nB. y"),
    ],
)
def test_the_text_has_the_options(tmp_path: Path, choices: str | None, text: str) -> None:
    row = ROW | {"choices": choices, "scores": {"gemma-2-9b-it": 1}}
    (answer, _), *_ = by_model(taken_in(tmp_path, row)).values()
    assert text.replace("\n", "\\n") in answer.prompt


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scores": {"gemma-2-9b-it": 1, "new": 1}}, "the price of 'new' is unknown"),
        ({"scores": {"gemma-2-9b-it": 2}}, "gemma-2-9b-it: expected a score from 0 to 1, got 2"),
        ({"scores": {"gemma-2-9b-it": None}}, "gemma-2-9b-it: expected a number, got None"),
        ({"scores": {"codegemma-7b": 1}}, "no outcome of codegemma-7b, which other rows have"),
        ({"choices": "__import__('os')"}, "choices: expected a list of options"),
        ({"ground_truth": None}, "ground_truth: expected text"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    good = ROW | {"scores": {"gemma-2-9b-it": 1.0}}
    with pytest.raises(DataError, match=rf"rows\.jsonl:[12]: .*{said}"):
        taken_in(tmp_path, good, good | {"query": "What?"} | changed)
