import json
from pathlib import Path

import pytest

from r2reasoner.benchmarks import BENCHMARKS, CSQA, MUSIQUE, SCAN
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.evaluation.sources import Source

ROW = {"command": "walk twice", "actions": "I_WALK I_WALK"}


def test_a_folder_has_a_file_for_each_split(tmp_path: Path) -> None:
    (tmp_path / "simple_test.jsonl").write_text(json.dumps(ROW) + "\n")
    (item,) = Source(tmp_path).load(SCAN, "simple")
    assert item == SCAN.load(tmp_path / "simple_test.jsonl")[0]
    with pytest.raises(DataError, match=r"length_test\.jsonl: cannot be read: No such file"):
        Source(tmp_path).load(SCAN, "length")
    with pytest.raises(ConfigError, match="scan has no split 'test' in a folder; known: simple, "):
        Source(tmp_path).load(SCAN, "test")


def test_nano_tasks_are_made_where_nothing_is_given() -> None:
    items = Source().load(SCAN, "addprim_jump")
    assert len(items) == 7706
    assert len(Source().load(BENCHMARKS["arithmetic"], "test", seed=1, limit=7)) == 7


def test_what_is_neither_given_nor_made_comes_from_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs the extra evaluation")
    (tmp_path / "validation.jsonl").write_text(
        json.dumps(
            {
                "question": "q?",
                "paragraphs": [{"title": "t", "paragraph_text": "p"}],
                "answer": "a thing",
            }
        )
    )
    with pytest.raises(ConfigError, match="cannot be loaded from the hub"):
        Source(dataset=str(tmp_path / "nowhere"), revision="x").load(MUSIQUE, "dev")


@pytest.mark.parametrize("source", [Source(), Source(Path("/tmp"))], ids=["hub", "folder"])
def test_the_training_side_is_refused(source: Source) -> None:
    with pytest.raises(ConfigError, match=r"csqa: train is what routers are trained on.*dev"):
        source.load(CSQA, "train")


@pytest.mark.parametrize("more", [{"hub": True}, {"revision": "x"}, {"dataset": "x"}])
def test_two_sources_are_refused(more: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="two sources of items"):
        Source(Path("x"), **more)  # type: ignore[arg-type]


def test_a_benchmark_that_is_nowhere_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match=r"p3: give its items with --items FILE\.jsonl or FOLDER"):
        Source().load(BENCHMARKS["p3"], "test")
