from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.records import content_id
from r2reasoner.types import Usage
from shared_rows import by_model, shared_lines, taken_in

RUN = {"n": 2, "n_correct": 1, "prompt_tokens": 80, "gen_tokens_mean": 3.0, "latency_s_mean": 1.0}
ROW: dict[str, Any] = {
    "row": 1,
    "id": "a",
    "stem": "Where?",
    "concept": "place",
    "choices": {"B": "there", "A": "here"},
    "gold": "A",
    "systems": {"llama3.1:8b": {"one": RUN, "ten": RUN | {"n": 6, "n_correct": 6}}},
}


def test_a_row_by_hand(tmp_path: Path) -> None:
    found = by_model(taken_in(tmp_path, *shared_lines("csqa_dev_outcomes", "outcomes.jsonl", 1)))
    answer, outcome = found["llama3.2:3b"]
    assert outcome.score == pytest.approx(50 / 62)  # of the runs 1 6 14 1 10 18
    assert answer.usage == Usage(96, 4)
    assert answer.cost == 100 * 60_000
    assert answer.latency_s == pytest.approx(2.49858, abs=1e-5)
    answer, outcome = found["text-davinci-002_zero_shot_cot"]
    # 167 characters are 42 tokens, 58 words 78: asked twice, once with the reasoning
    assert (outcome.score, answer.answer) == (0.0, "C")
    assert answer.cost == (2 * 42 + 78 + 78) * 20_000_000


def test_runs_are_samples_and_options_are_part_of_the_item(tmp_path: Path) -> None:
    answer, outcome = by_model(taken_in(tmp_path, ROW))["llama3.1:8b"]
    assert outcome.score == 7 / 8
    assert outcome.item == content_id("Where?\nA. here\nB. there")
    assert answer.prompt == '[{"role": "user", "content": "Where?\\nA. here\\nB. there"}]'


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gold": "C"}, "gold: expected one of B, A, got 'C'"),
        ({"systems": {"gpt": {}}}, "the price of gpt is unknown"),
        ({"systems": {}}, "systems: expected an object"),
        ({"systems": {"llama3.1:8b": {"one": RUN | {"n": 0}}}}, "has no samples"),
        ({"systems": {"llama3.1:8b": {"one": RUN | {"n_correct": 3}}}}, "3 right answers of 2"),
        ({"systems": {"llama3.1:8b": {"one": {"n": 2}}}}, "without n_correct"),
        ({"systems": {"llama3.2:3b": {"one": RUN}}}, "no outcome of llama3.2:3b"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:[12]: .*{said}"):
        taken_in(tmp_path, ROW, ROW | {"stem": "What?"} | changed)
