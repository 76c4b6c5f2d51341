import json
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.layouts import read_records
from r2reasoner.outcomes.layouts.dot_steps import LABELS_SOURCE, NAME, SIX_MODELS_SOURCE
from r2reasoner.outcomes.records import Answered, Outcome, content_id
from shared_rows import by_model, shared_lines, taken_in, write_rows

ROW: dict[str, Any] = {
    "benchmark": "MATH",
    "question_id": 0,
    "decomposition_id": 1,
    "question": "How many?",
    "gold": "2",
    "steps": ["Count  the\nfirst.", "Add."],
    "edges": [[1, 2]],
    "trials": [
        {"allocation": [[2, "llama3-8b"], [1, "gpt-4-turbo"]], "correct": True},
        {"allocation": [[2, "llama3-8b"], [1, "llama3-8b"]], "correct": False},
    ],
}


def trial(*allocation: Any, correct: Any = True) -> dict[str, Any]:
    return {"trials": [{"allocation": list(allocation), "correct": correct}]}


def test_a_row_of_two_models_by_hand(tmp_path: Path) -> None:
    found = by_model(taken_in(tmp_path, *shared_lines(NAME, "two_model_search.jsonl", 3)))
    small, strong = "llama3-8b", "gpt-4-turbo"
    assert {model: (o.score, o.group) for model, (_, o) in found.items()} == {
        ",".join([strong, small, small, small, small]): (1.0, "MATH"),
        ",".join([small] * 5): (1.0, "MATH"),
    }


def test_a_row_of_six_models_by_hand(tmp_path: Path) -> None:
    taken = taken_in(tmp_path, *shared_lines(NAME, "champ_six_model_search.jsonl", 1))
    outcomes = [r for r in taken.records if isinstance(r, Outcome)]
    assert len(outcomes) == 9
    assert {o.source for o in outcomes} == {SIX_MODELS_SOURCE}
    right = [o.model for o in outcomes if o.score == 1.0]
    assert right == ["gpt-4o-mini,gpt-4-turbo,gpt-4,gpt-4,gpt-4,gpt-4-turbo"]


def test_a_label_by_hand(tmp_path: Path) -> None:
    taken = taken_in(tmp_path, *shared_lines(NAME, "subtask_difficulty_labels.jsonl", 2))
    ((_, outcome),) = by_model(taken).values()
    assert (outcome.subtask, outcome.model, outcome.score) == (2, "gpt-4o-mini", None)
    assert outcome.source == LABELS_SOURCE


def test_the_recorded_order_of_steps_is_not_kept(tmp_path: Path) -> None:
    other = json.loads(json.dumps(ROW))
    for each in other["trials"]:
        each["allocation"].reverse()
    taken = [taken_in(tmp_path, row).records for row in (ROW, other)]
    keys = [[r.key for r in records] for records in taken]
    assert keys[0] == keys[1]
    assert [o.model for o in taken[0] if isinstance(o, Outcome)] == [
        "gpt-4-turbo,llama3-8b",
        "llama3-8b,llama3-8b",
    ]


def test_a_plan_is_the_assistants_numbered_lines(tmp_path: Path) -> None:
    records = taken_in(tmp_path, ROW).records
    answer = next(r for r in records if isinstance(r, Answered))
    assert json.loads(answer.prompt) == [
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "1. Count the first.\n2. Add."},
    ]
    outcome = next(r for r in records if isinstance(r, Outcome))
    assert outcome.item == content_id("How many?")
    assert outcome.plan == content_id(json.dumps(["How many?", ROW["steps"]]))
    assert outcome.subtask is None


def test_steps_may_be_objects_and_a_run_again_is_a_sample(tmp_path: Path) -> None:
    steps = [{"stepId": i, "step": text} for i, text in enumerate(ROW["steps"], 1)]
    again = [*ROW["trials"], ROW["trials"][0] | {"correct": False}]
    records = taken_in(tmp_path, ROW | {"steps": steps, "trials": again}).records
    outcomes = [r for r in records if isinstance(r, Outcome)]
    assert [o.score for o in outcomes] == [1.0, 0.0, 0.0]
    assert len({o.key for o in outcomes}) == 3


def test_the_three_files_stand_in_one_folder(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ROW)
    label = {
        "benchmark": "SCAN",
        "question": "jump",
        "all_subtasks": "step1: Read.; step2: ",
        "subtask": "Read.",
        "difficulty": 1,
    }
    write_rows(tmp_path / "b.jsonl", label, label | {"subtask": ""})
    six = {
        "benchmark": "CHAMP",
        "search": "alpha",
        "question_index": 210,
        "question_by_index": None,
        "decomposition_id": 0,
        "n_steps": 2,
        "trials": [
            trial([1, "gpt-4"], [3, "llama3-70b"])["trials"][0],
            trial([1, "gpt-4"])["trials"][0],
        ],
    }
    write_rows(tmp_path / "c.jsonl", six)
    taken = read_records(tmp_path)
    assert taken.layout == NAME
    assert taken.skipped == {
        "label of an empty step": 1,
        "allocation whose steps are not those of its plan": 1,
    }
    judged = [(o.source, o.model) for o in taken.records if isinstance(o, Outcome)]
    assert judged[2:] == [(LABELS_SOURCE, "gpt-4-turbo"), (SIX_MODELS_SOURCE, "gpt-4,llama3-70b")]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"steps": []}, "steps: expected a list of texts"),
        ({"steps": [1, 2]}, "steps: expected a list of texts"),
        ({"trials": []}, "trials: expected a list"),
        (trial([1, "llama3-8b"]), r"expected each step once in an allocation, got \[1\]"),
        (trial([1, "llama3-8b"], [1, "llama3-8b"]), r"got \[1, 1\]"),
        (trial([1, "llama3-8b"], [2, "gpt-4"]), "unknown model gpt-4"),
        (trial([1, "llama3-8b"], [2, 7]), "expected pairs of a step's number and a model"),
        (trial([1, "llama3-8b"], [2, "llama3-8b"], correct=None), "correct: expected true"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{said}"):
        taken_in(tmp_path, ROW, ROW | changed)
