import json
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.benchmarks.csqa import CSQA
from r2reasoner.benchmarks.hub import Hub
from r2reasoner.benchmarks.musique import MUSIQUE
from r2reasoner.benchmarks.scan import SCAN
from r2reasoner.errors import ConfigError, DataError


def csqa_row(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "id": str(number),
        "question": f"Question {number}?",
        "question_concept": "x",
        "choices": {"label": ["A", "B"], "text": ["one", "two"]},
        "answerKey": "B",
    }
    return {**row, **changes}


def dataset(folder: Path, rows: list[dict[str, Any]]) -> str:
    """Write a dataset as the hub has them: a folder with a file for each split."""
    pytest.importorskip("datasets", reason="needs the extra evaluation")
    made = folder / "dataset"
    made.mkdir()
    (made / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(made)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra evaluation")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_dataset_becomes_items_in_the_benchmarks_own_layout(tmp_path: Path) -> None:
    name = dataset(tmp_path, [csqa_row(1), csqa_row(2)])
    items = CSQA.load_hub("dev", name)
    assert [item.query for item in items] == [f"Question {n}?\nA. one\nB. two" for n in (1, 2)]
    assert CSQA.grade("two", items[0].gold) is True


def test_rows_of_musique_are_those_of_its_files(tmp_path: Path) -> None:
    paragraph = {"idx": 0, "title": "t", "paragraph_text": "p", "is_supporting": True}
    row = {"question": "q?", "paragraphs": [paragraph], "answer": "a thing", "answerable": True}
    name = dataset(tmp_path, [{**row, "answer_aliases": ["thing"]}])
    local = Hub(dataset=name, splits={"dev": "validation"})
    assert [row["answer"] for _, row in local.rows("dev")] == ["a thing"]
    assert MUSIQUE.items([dict(row) for _, row in local.rows("dev")])[0].query.endswith("q?")


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    name = dataset(tmp_path, [csqa_row(1), csqa_row(2, answerKey="")])
    with pytest.raises(DataError, match=r"dataset: row 2: answer is empty"):
        CSQA.load_hub("dev", name)
    with pytest.raises(DataError, match=r"row 1: no 'choices of another name'"):
        list(Hub(dataset=name, splits={"dev": "validation"}, row=_without_choices).rows("dev"))


def _without_choices(row: Any) -> Any:
    return {"choices": row["choices of another name"]}


def test_what_cannot_be_had_is_one_clear_error(tmp_path: Path) -> None:
    name = dataset(tmp_path, [csqa_row(1)])
    with pytest.raises(ConfigError, match="no split 'test' known; known: dev, train"):
        CSQA.load_hub("test", name)
    with pytest.raises(ConfigError, match="cannot be loaded from the hub"):
        CSQA.load_hub("train", name)
    with pytest.raises(ConfigError, match="no revision pinned; name a commit"):
        CSQA.load_hub("dev", "somebody/else")
    with pytest.raises(ConfigError, match="scan is on no hub known here"):
        SCAN.load_hub("length")


def test_every_hub_entry_is_pinned_and_another_dataset_does_not_take_its_pin() -> None:
    for benchmark in (CSQA, MUSIQUE):
        assert benchmark.hub is not None
        assert len(benchmark.hub.revision or "") == 40
        assert benchmark.default_split in benchmark.hub.splits
        assert benchmark.hub.at(None, "abc").revision == "abc"
        assert benchmark.hub.at("somebody/else", None).revision is None
        assert benchmark.hub.at(benchmark.hub.dataset, None) == benchmark.hub
