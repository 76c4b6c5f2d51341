import json
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.report.results import Evaluated, Judged, Trained, read_result, read_results
from r2reasoner.training.metrics import append
from results_on_disk import evaluated, judged, strategy, write

ROOT = Path(__file__).parents[2]


def test_each_kind_is_recognised_by_its_fields(tmp_path: Path) -> None:
    files = [write(tmp_path / "e.json", evaluated()), write(tmp_path / "j.json", judged())]
    found = read_results(files)
    assert [r.strategy for r in found.evaluated[0].rows][:2] == ["r2", "cot"]
    assert found.evaluated[0].provenance.pool is not None
    assert found.judged[0].rows[1].apgr_ci95 == (0.7, 0.8)
    assert found.judged[0].comparisons[0].against == "ridge"


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "results").glob("*.json")), ids=str)
def test_the_published_results_are_read(file: Path) -> None:
    read_result(file)


def test_a_run_folder_its_summary_and_its_metrics_are_one_result(tmp_path: Path) -> None:
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.parent.mkdir()
    append(metrics, "sft-decomposer", 1, {"loss": 2.0, "seconds": 3.0})
    (metrics.parent / "config.toml").write_text('[recipe]\nname = "tiny"\nseed = 7\n')
    for path in (metrics.parent, metrics):
        run = read_result(path)
        assert isinstance(run, Trained)
        assert run.summary["stages"][0]["stage"] == "sft-decomposer"
        assert run.recipe["seed"] == 7
    with pytest.raises(DataError, match="given twice"):
        read_results([metrics, tmp_path / "run" / ".." / "run" / "metrics.jsonl"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ('{"rows": [{"strategy": NaN}]}', "NaN, which is no number"),
        ("[1]", "got a list"),
        ("{}", "an object with nothing"),
        ('{"rows": []}', "no rows in it"),
        ('{"rows": [7]}', "row 1: expected one of 'strategy', 'router', 'variant'; got a number"),
        ('{"rows": [{"name": "x"}]}', "row 1: expected one of .*; got 'name'"),
        ('{"total": {}, "stages": [{"stage": 1}]}', "summary of a training run"),
        ('{"rows": [{"strategy": "r2"}]}', "rows 1: benchmark: field required"),
        ('{"kinds": [{}], "pool": "nano"}', "kinds 1: family: field required"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, content: str, told: str) -> None:
    file = write(tmp_path / "foreign.json", content)
    with pytest.raises(DataError, match=told) as raised:
        read_result(file)
    assert str(file) in str(raised.value)


def test_rows_of_two_kinds_are_refused_with_the_row(tmp_path: Path) -> None:
    mixed = {"rows": [*evaluated()["rows"], *judged()["rows"]]}
    with pytest.raises(DataError, match=r"row 5 is of outcomes judge, row 1 of evaluate"):
        read_result(write(tmp_path / "m.json", mixed))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"accuracy": 1.7}, "rows 1: accuracy: .*share from 0 to 1"),
        ({"ci95": [0.9, 0.1]}, "rows 1: ci95: .*upside down"),
        ({"net_cost": "much"}, "rows 1: net_cost"),
    ],
)
def test_impossible_figures_are_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    row = strategy("r2", 0.5, 1e-6) | change
    with pytest.raises(DataError, match=told):
        read_result(write(tmp_path / "r.json", {"rows": [row]}))


def test_a_strategy_twice_and_a_file_twice_are_refused(tmp_path: Path) -> None:
    row = strategy("r2", 0.5, 1e-6)
    with pytest.raises(DataError, match="row 2 is toy all r2 again, as row 1 is"):
        read_result(write(tmp_path / "r.json", {"rows": [row, row]}))
    file = write(tmp_path / "e.json", evaluated())
    with pytest.raises(DataError, match="given twice"):
        read_results([file, file])


def test_missing_files_and_files_of_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; expected a result of"):
        read_result(tmp_path / "none.json")
    with pytest.raises(DataError, match="a folder without metrics"):
        read_result(tmp_path)
    rows = write(tmp_path / "e.json.rows.jsonl", "{}\n")
    with pytest.raises(DataError, match=r"rows of an evaluation, which go with e.json"):
        read_result(rows)


def test_fields_of_other_versions_do_no_harm(tmp_path: Path) -> None:
    document = evaluated(future={"a": 1})
    document["rows"][0]["later"] = 3
    result = read_result(write(tmp_path / "e.json", json.loads(json.dumps(document))))
    assert isinstance(result, Evaluated)
    assert not isinstance(result, Judged)
