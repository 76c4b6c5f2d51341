import shutil
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.layouts import read_records
from r2reasoner.outcomes.layouts.dot_queries import NAME, RESCORED, SELF_JUDGED
from r2reasoner.outcomes.records import Outcome
from shared_rows import SHARED, by_model, shared_lines, taken_in, write_rows

ROW: dict[str, Any] = {
    "benchmark": "MATH",
    "method": "cot",
    "model": "gpt-4o",
    "run": "math.log",
    "question_id": 4,
    "question": "2 * sqrt(2)?",
    "gold": "2\\sqrt{2}",
    "final_answer": "2",
    "status": "correct",
    "correct": True,
    "seconds": 3.5,
}


def test_a_row_by_hand(tmp_path: Path) -> None:
    line = shared_lines(NAME, "outcomes.jsonl", 1)[0]
    for name in ("run_summary_full.jsonl", "token_totals.jsonl"):
        shutil.copy(SHARED / NAME / name, tmp_path / name)
    answer, outcome = by_model(taken_in(tmp_path, line))["gpt-3.5-turbo cot"]
    assert (outcome.score, outcome.group, outcome.source) == (0.0, "CHAMP", SELF_JUDGED)
    assert (answer.answer, answer.latency_s) == ("The final answer is n^(n).", 14.0)
    # its run: 425,954 and 84,829 tokens over 116 questions, 3,672 and 731 each
    assert answer.cost == 3_672 * 500_000 + 731 * 1_500_000


def test_without_totals_the_price_is_unknown(tmp_path: Path) -> None:
    ((answer, outcome),) = by_model(taken_in(tmp_path, ROW)).values()
    assert (answer.cost, outcome.score, outcome.source) == (None, 1.0, SELF_JUDGED)


def test_what_a_model_judged_itself_can_be_judged_anew(tmp_path: Path) -> None:
    file = write_rows(
        tmp_path / "rows.jsonl",
        ROW,
        ROW | {"question": "?", "gold": None},
        ROW | {"question": "!", "gold": "2"},
        ROW | {"question": "match", "benchmark": "CSQA", "correct": False, "status": "incorrect"},
    )
    grade = {("2", "2\\sqrt{2}"): False, ("2", "2"): True}
    taken = read_records(file, grade=lambda answer, gold: grade[answer, gold])
    judged = [r for r in taken.records if isinstance(r, Outcome)]
    assert [(o.source, o.score) for o in judged] == [
        (RESCORED, 0.0),
        (RESCORED, None),
        (RESCORED, 1.0),
        (NAME, 0.0),
    ]


def test_an_error_is_not_judged(tmp_path: Path) -> None:
    row = ROW | {"benchmark": "P3", "status": "error", "correct": None, "final_answer": None}
    ((answer, outcome),) = by_model(taken_in(tmp_path, row)).values()
    assert (answer.answer, outcome.score, outcome.source) == (None, None, NAME)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "new"}, "model: 'new' is unknown"),
        ({"correct": 1}, "correct: expected true, false or null"),
        ({"status": "error"}, "status: 'error' does not fit correct = True"),
        ({"correct": False, "status": "incorrect"}, "the same item as .*:1 with another verdict"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{said}"):
        taken_in(tmp_path, ROW, ROW | changed)
