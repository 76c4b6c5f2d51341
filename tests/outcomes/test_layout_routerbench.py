import csv
import pickle
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.layouts import read_records
from r2reasoner.outcomes.shards import pyarrow
from shared_rows import by_model, taken_in

# As published by withmartian/routerbench: one row a sample, three columns a model.
ROW: dict[str, Any] = {
    "sample_id": "grade-school-math.dev.0",
    "prompt": "['A man walks 3 miles. How far?']",
    "eval_name": "grade-school-math",
    "WizardLM/WizardLM-13B-V1.2": 0.25,
    "gpt-4-1106-preview": 1.0,
    "WizardLM/WizardLM-13B-V1.2|model_response": "['4']",
    "WizardLM/WizardLM-13B-V1.2|total_cost": 0.0001422,
    "gpt-4-1106-preview|model_response": "['3']",
    "gpt-4-1106-preview|total_cost": 0.00587,
    "oracle_model_to_route_to": "gpt-4-1106-preview",
}


def test_a_row_by_hand(tmp_path: Path) -> None:
    taken = taken_in(tmp_path, ROW)
    assert taken.layout == "routerbench"
    assert {m: (o.score, a.cost, a.answer, o.group) for m, (a, o) in by_model(taken).items()} == {
        "WizardLM/WizardLM-13B-V1.2": (0.25, 142_200_000, "['4']", "grade-school-math"),
        "gpt-4-1106-preview": (1.0, 5_870_000_000, "['3']", "grade-school-math"),
    }


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    expected = [(a.key, a.cost, o.score) for a, o in by_model(taken_in(tmp_path, ROW)).values()]
    table, parquet = tmp_path / "table.csv", tmp_path / "table.parquet"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ROW)
        writer.writeheader()
        writer.writerow(ROW)
    arrow = pyarrow()
    arrow.parquet.write_table(arrow.Table.from_pylist([ROW]), parquet)
    for path in (table, parquet):
        found = by_model(read_records(path)).values()
        assert [(a.key, a.cost, o.score) for a, o in found] == expected


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "went off",))

    (tmp_path / "routerbench_0shot.pkl").write_bytes(pickle.dumps(Bomb()))
    for path in (tmp_path, tmp_path / "routerbench_0shot.pkl"):
        with pytest.raises(DataError, match=r"0shot\.pkl: a pickle runs code .* never loaded here"):
            read_records(path)
    assert not (tmp_path / "went off").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gpt-4-1106-preview": None}, "gpt-4-1106-preview: expected a number, got None"),
        ({"gpt-4-1106-preview": "yes"}, "gpt-4-1106-preview: expected a number, got 'yes'"),
        ({"gpt-4-1106-preview|total_cost": float("nan")}, "total_cost: the price is unknown"),
        ({"other|model_response": "x"}, "the price of other is unknown"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    bad = ROW | {"sample_id": "1", "prompt": "other"} | changed
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{said}"):
        taken_in(tmp_path, ROW, bad)


def test_no_prices_at_all_and_a_row_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*the price of every model is unknown"):
        taken_in(tmp_path, {"prompt": "?", "eval_name": "x", "m": 1})
    with pytest.raises(DataError, match=r"rows\.jsonl:2: the same item as .*:1 with another"):
        taken_in(tmp_path, ROW, ROW | {"gpt-4-1106-preview": 0.0})
    column = {k: v for k, v in ROW.items() if k != "gpt-4-1106-preview"}
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*without gpt-4-1106-preview"):
        taken_in(tmp_path, column)
