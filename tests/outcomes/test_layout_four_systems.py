from pathlib import Path

import pytest

from r2reasoner.errors import DataError
from shared_rows import by_model, shared_lines, taken_in

ROW = {
    "prompt": "2 + 3?",
    "gold": "5",
    "text-davinci-002_zero_shot_correct": False,
    "text-davinci-002_zero_shot_cot_correct": True,
    "zero_shot_output_words": 3,
    "zero_shot_cot_output_words": 30,
    "mixtral-8x7b-instruct_correct": True,
    "gpt-4-1106-preview_correct": True,
    "mixtral_output_words": 6,
    "gpt-4-1106_output_words": 9,
}


def test_a_row_by_hand(tmp_path: Path) -> None:
    found = by_model(taken_in(tmp_path, *shared_lines("gsm8k_four_systems", "outcomes.jsonl", 1)))
    # 280 characters are 70 tokens; 6, 89, 54 and 60 words are 8, 119, 72 and 80
    assert {model: (o.score, a.cost) for model, (a, o) in found.items()} == {
        "text-davinci-002_zero_shot": (0.0, 78 * 20_000_000),
        "text-davinci-002_zero_shot_cot": (0.0, (2 * 70 + 2 * 119) * 20_000_000),
        "mixtral-8x7b-instruct": (1.0, 142 * 240_000),
        "gpt-4-1106-preview": (1.0, 150 * 24_700_000),
    }


def test_bad_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*mixtral_output_words: .* got -1"):
        taken_in(tmp_path, ROW, ROW | {"prompt": "?", "mixtral_output_words": -1})
    short = {name: value for name, value in ROW.items() if name != "gold"}
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*without gold"):
        taken_in(tmp_path, ROW, short)
