"""`r2reasoner build`: the data of a recipe, and what came out in words."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from r2reasoner.cli.build import app
from r2reasoner.errors import ConfigError
from r2reasoner.training.alternate import fork
from r2reasoner.training.recipe import load_recipe
from r2reasoner.training.shard_folder import made_rows
from training_runs import TINY

cli = typer.Typer()
cli.add_typer(app, name="build")


def build(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["build", *arguments])


def document(*arguments: str) -> dict[str, Any]:
    done = build(*arguments, "--json")
    assert done.exit_code == 0, done.output
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


class TestDryRun:
    @pytest.fixture(autouse=True)
    def _own_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        ("what", "last"), [("decompositions", "decompositions"), ("allocations", "allocations")]
    )
    def test_it_ends_with_the_data(self, what: str, last: str, tmp_path: Path) -> None:
        found = document(what, "tiny", "--dry-run")
        assert found["stages"][-1]["stage"] == last
        assert not list(tmp_path.iterdir())

    def test_of_allocations_it_counts_what_comes_before(self) -> None:
        names = [stage["stage"] for stage in document("allocations", "nano", "--dry-run")["stages"]]
        assert names == ["decompositions", "sft-decomposer", "allocations"]

    def test_a_budget_that_is_too_small(self, tmp_path: Path) -> None:
        for more in ([], ["--dry-run"]):
            done = build("decompositions", "tiny", "--set", "recipe.cap=0.00001", *more)
            assert isinstance(done.exception, ConfigError)
            assert "too small for one group" in str(done.exception)
        assert not list(tmp_path.iterdir())


class TestWhole:
    """On a run of the tiny recipe, whose data is there."""

    def test_decompositions_in_words(self, tiny_copy: Path) -> None:
        said = build("decompositions", "tiny").stdout
        rows = made_rows(TINY / "data" / "decompositions")
        assert said.startswith(f"{len(rows):,} items, ")
        assert "items with a right plan" in said
        assert said.rstrip().endswith("runs/train-tiny/data/decompositions")

    def test_allocations_in_words_and_how_far_they_are_from_the_optimum(
        self, tiny_copy: Path
    ) -> None:
        said = build("allocations", "tiny").stdout.splitlines()
        assert "solved, at" in said[0]
        assert said[1].startswith("20 items, ")
        assert "trials an item instead of" in said[1]
        found = document("allocations", "tiny")
        assert (found["summary"], found["gap"]) == (said[0], said[1])
        figures = found["figures"]
        assert figures["items"] == 20
        assert figures["calls"] <= figures["all_calls"]
        assert figures["trials"] < figures["all_trials"]
        assert found["items"] == len(made_rows(Path(found["data"])))

    def test_the_summary_has_the_gap_too(self, tiny_copy: Path) -> None:
        summary = json.loads((TINY / "summary.json").read_text())
        (stage,) = [s for s in summary["stages"] if s["stage"] == "allocations"]
        assert stage["last"]["grouped_items"] == 20

    @pytest.mark.slow
    def test_on_ray_the_same_comes_out(self, tiny_copy: Path) -> None:
        pytest.importorskip("ray", reason="needs ray")
        fork(TINY, load_recipe("tiny", ["recipe.out=other"]), ["workers"])
        found = document("decompositions", "tiny", "--out", "other", "--engine", "ray")
        rows = made_rows(Path(found["data"]))
        whole = made_rows(TINY / "data" / "decompositions")
        assert [(row["query"], row["plan"]) for row in rows] == [
            (row["query"], row["plan"]) for row in whole
        ]
