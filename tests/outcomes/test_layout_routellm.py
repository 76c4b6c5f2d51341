from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.layouts import read_records
from r2reasoner.outcomes.layouts.routellm import STRONG, WEAK
from r2reasoner.outcomes.records import Outcome
from shared_rows import by_model, shared_lines, taken_in

GSM8K: dict[str, Any] = {
    "row": 0,
    "prompt": "2 + 3?",
    "gold": "5",
    "weak_correct": False,
    "strong_correct": True,
    "contaminated": False,
    "weak_response": "6",
    "strong_response": "That is 5.",
}
MMLU = {"domain": "law", "prompt": "Is it?", "weak_correct": True, "strong_correct": False}
MTBENCH = {
    "question_id": 7,
    "turn": 1,
    "model": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "score": 8.5,
    "category": "math",
    "first_turn_prompt": "Count.",
}


class TestByHand:
    def test_gsm8k(self, tmp_path: Path) -> None:
        taken = taken_in(tmp_path, *shared_lines("routellm_gsm8k", "responses.jsonl", 1))
        assert taken.layout == "routellm_gsm8k"
        found = by_model(taken)
        weak, strong = found[WEAK], found[STRONG]
        assert (weak[1].score, strong[1].score) == (1.0, 1.0)
        # 280 characters asked; 233 and 262 answered: 70 + 59 and 70 + 66 tokens
        assert weak[0].cost == 129 * 240_000
        assert strong[0].cost == 136 * 24_700_000
        assert strong[0].answer is not None
        assert strong[0].answer.endswith("$18 every day at the farmers' market.")
        assert weak[0].usage is None  # estimated, so none recorded

    def test_mmlu(self, tmp_path: Path) -> None:
        taken = taken_in(tmp_path, *shared_lines("routellm_mmlu", "responses.jsonl", 2))
        found = by_model(taken)
        assert {m: o.score for m, (_, o) in found.items()} == {WEAK: 0.0, STRONG: 0.0}
        assert {o.group for _, o in found.values()} == {"abstract_algebra"}
        # 247 characters and a letter: 62 + 1 tokens
        assert found[WEAK][0].cost == 63 * 240_000

    def test_mtbench(self, tmp_path: Path) -> None:
        found = by_model(
            taken_in(tmp_path, *shared_lines("routellm_mtbench", "judgements.jsonl", 1))
        )
        answer, outcome = found[STRONG]
        assert (outcome.score, outcome.group) == (1.0, "math")
        assert answer.cost == (17 + 300) * 24_700_000


def test_one_text_under_two_subjects_is_two_samples(tmp_path: Path) -> None:
    other = MMLU | {"domain": "medicine", "weak_correct": False}
    outcomes = [r for r in taken_in(tmp_path, MMLU, other).records if isinstance(r, Outcome)]
    assert [(o.group, o.score) for o in outcomes if o.model == WEAK] == [
        ("law", 1.0),
        ("medicine", 0.0),
    ]
    assert len({o.item for o in outcomes}) == 1


def test_two_turns_are_samples_and_scores_are_of_ten(tmp_path: Path) -> None:
    rows = [MTBENCH | {"turn": turn, "score": 4 + turn} for turn in (1, 2)]
    outcomes = [r for r in taken_in(tmp_path, *rows).records if isinstance(r, Outcome)]
    assert [o.score for o in outcomes] == [0.5, 0.6]
    assert {o.model for o in outcomes} == {WEAK}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([GSM8K, GSM8K | {"weak_correct": 1}], "2: .*weak_correct: expected true or false, got 1"),
        ([GSM8K | {"gold": None}], "1: .*gold: expected text, got None"),
        ([GSM8K | {"prompt": " "}], "1: .*prompt: expected text"),
        (
            [GSM8K, GSM8K, GSM8K | {"strong_correct": False}],
            f"3: the same item as .*rows.jsonl:1 with another verdict of {STRONG}: 0.0 after 1.0",
        ),
        ([MMLU, MMLU | {"weak_correct": False}], "2: the same item as .*:1 with another verdict"),
        ([MTBENCH | {"model": "other"}], "1: .*the price of 'other' is unknown"),
        ([MTBENCH | {"score": 11}], "1: .*score: expected 1 to 10, got 11"),
        ([MTBENCH | {"turn": 3}], "1: .*turn: expected 1 or 2"),
        (
            [
                MTBENCH,
                MTBENCH | {"model": STRONG},
                MTBENCH | {"first_turn_prompt": "Sing."},
            ],
            f"3: no outcome of {STRONG}, which other rows have",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:{said}"):
        taken_in(tmp_path, *rows)


def test_the_same_row_again_is_held_once(tmp_path: Path) -> None:
    assert len(taken_in(tmp_path, GSM8K, GSM8K).records) == 4
    assert read_records(tmp_path, "routellm_gsm8k").layout == "routellm_gsm8k"
