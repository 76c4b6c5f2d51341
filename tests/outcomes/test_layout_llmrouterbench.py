import json
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.layouts import read_records
from r2reasoner.outcomes.records import Outcome
from r2reasoner.types import Usage
from shared_rows import by_model, taken_in

# The form of README and data_collector/storage.py of ynulihao/LLMRouterBench.
RECORD: dict[str, Any] = {
    "index": 1,
    "origin_query": "What is the sum of 2+2?",
    "prompt": "Question: What is the sum of 2+2?\nAnswer:",
    "prediction": "4",
    "ground_truth": "4",
    "score": 1.0,
    "prompt_tokens": 15,
    "completion_tokens": 5,
    "cost": 0.0001,
    "raw_output": ["The sum of 2+2 is 4."],
}
RUN: dict[str, Any] = {
    "performance": 1.0,
    "counts": 1,
    "cost": 0.0001,
    "model_name": "gpt-5",
    "dataset_name": "aime",
    "split": "test",
    "demo": False,
    "extra_metrics": {},
    "records": [RECORD],
}
SPLIT: dict[str, Any] = {
    "query": "2+2?",
    "dataset": "aime",
    "index": 3,
    "records": {"a": 1.0, "b": 0.0, "c": 0.0},
    "usages": {
        "a": {"prompt_tokens": 9, "completion_tokens": 4, "cost": 0.002},
        "b": {"prompt_tokens": 9, "completion_tokens": 1, "cost": 0.0},
        "c": {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0},
    },
}


def put(folder: Path, run: dict[str, Any], time: str) -> None:
    place = folder / run["dataset_name"] / run["split"] / run["model_name"]
    place.mkdir(parents=True, exist_ok=True)
    name = f"{run['dataset_name']}-{run['split']}-{run['model_name']}-{time}.json"
    (place / name).write_text(json.dumps(run))


def test_a_tree_of_runs_by_hand(tmp_path: Path) -> None:
    put(tmp_path, RUN, "20250101_000000")
    put(tmp_path, RUN | {"model_name": "small", "records": [RECORD | {"score": 0}]}, "20250101")
    taken = read_records(tmp_path)
    assert taken.layout == "llmrouterbench"
    found = by_model(taken)
    answer, outcome = found["gpt-5"]
    assert (outcome.score, outcome.group, answer.answer) == (1.0, "aime", "4")
    assert (answer.cost, answer.usage) == (100_000_000, Usage(15, 5))
    assert "What is the sum" in answer.prompt
    assert found["small"][1].score == 0.0
    assert found["small"][1].item == outcome.item


def test_of_several_runs_the_last_counts_and_demos_do_not(tmp_path: Path) -> None:
    put(tmp_path, RUN | {"records": [RECORD | {"score": 0}]}, "20250101_000000")
    put(tmp_path, RUN, "20250102_000000")
    put(tmp_path, RUN | {"model_name": "demo", "demo": True}, "20250102_000000")
    taken = read_records(tmp_path)
    assert [(r.model, r.score) for r in taken.records if isinstance(r, Outcome)] == [("gpt-5", 1.0)]
    assert taken.skipped == {"record of a demo run": 1}


def test_a_split_by_hand(tmp_path: Path) -> None:
    taken = taken_in(tmp_path, SPLIT)
    found = by_model(taken)
    assert {m: (o.score, a.cost, a.usage) for m, (a, o) in found.items()} == {
        "a": (1.0, 2_000_000_000, Usage(9, 4)),
        "b": (0.0, 0, Usage(9, 1)),
    }
    assert taken.skipped == {"model that never answered the question": 1}


def test_bad_documents_are_named(tmp_path: Path) -> None:
    put(tmp_path, RUN | {"records": [RECORD, RECORD | {"cost": None}]}, "1")
    with pytest.raises(DataError, match=r"-1\.json:2: .*cost: the price is unknown"):
        read_records(tmp_path)
    (tmp_path / "aime" / "other.json").write_text("[]")
    with pytest.raises(DataError, match=r"other\.json: expected a JSON object with a list of"):
        read_records(tmp_path)
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*usages: the price of 'a' is unknown"):
        taken_in(tmp_path / "aime", SPLIT | {"usages": {"b": {}}})
