"""`r2reasoner train`: the dry run of every shipped recipe, and what is refused before a start."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from r2reasoner.cli.train import app
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.training.recipe import load_recipe, shipped, stages

cli = typer.Typer()
cli.add_typer(app, name="train")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["train", *arguments])


def document(*arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


class TestDryRun:
    @pytest.mark.parametrize("name", shipped())
    def test_of_every_shipped_recipe(self, name: str, tmp_path: Path) -> None:
        done = run("run", name, "--dry-run")
        assert done.exit_code == 0, done.output
        rows = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
        assert {s for s in stages(load_recipe(name)) if s not in ("workers", "pool")} <= rows
        assert "together" in done.stdout
        assert "memory of the decomposer" in done.stdout
        assert "expected, not measured" in done.stdout
        assert not list(tmp_path.iterdir()), "nothing is written"

    @pytest.mark.parametrize("name", shipped())
    def test_as_one_document(self, name: str) -> None:
        found = document("run", name)
        assert found["recipe"] == name
        assert found["calls"] == sum(stage["calls"] for stage in found["stages"]) > 0
        assert found["hours"] == pytest.approx(sum(s["hours"] for s in found["stages"]))
        assert found["memory_bytes"]["allocator"]["fits"] is True
        assert found["known_dollars"] > 0

    def test_unknown_dollars_are_no_number(self) -> None:
        found = document("run", "qwen2.5-7b")
        assert found["dollars"] is None
        assert found["models"]["Qwen2.5-0.5B-Instruct"]["dollars"] is None
        assert "unknown" in run("run", "qwen2.5-7b", "--dry-run").stdout
        assert any("no known price" in note for note in found["notes"])

    def test_of_one_stage_alone(self) -> None:
        def names(*arguments: str) -> list[str]:
            return [stage["stage"] for stage in document(*arguments)["stages"]]

        assert names("sft", "tiny") == ["sft-decomposer", "sft-allocator"]
        assert names("grpo", "tiny", "--policy", "allocator") == ["grpo-1-allocator"]
        assert names("alternate", "nano") == [
            f"grpo-{round_}-{policy}" for round_ in (1, 2) for policy in ("decomposer", "allocator")
        ]

    def test_options_win_over_the_recipe(self) -> None:
        changed = ("--out", "elsewhere", "--seed", "7", "--set", "grpo.rounds=2")
        found = document("run", "tiny", *changed)
        assert found["out"] == "elsewhere"
        assert "grpo-2-allocator" in {stage["stage"] for stage in found["stages"]}

    def test_a_recipe_of_ones_own(self, tmp_path: Path) -> None:
        lines = ['{"query": "walk left and run", "answer": "I_TURN_LEFT I_WALK I_RUN"}\n']
        (tmp_path / "items.jsonl").write_text("".join(lines))
        (tmp_path / "mine.toml").write_text(
            '[[data.sources]]\nbenchmark = "items.jsonl"\nscorer = "sequence"\n'
        )
        found = document("run", "mine.toml")
        assert (found["recipe"], found["out"], found["items"]) == ("mine", "runs/mine", 1)


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "error", "says"),
        [
            (["nanoo"], ConfigError, "no recipe 'nanoo'"),
            (["tiny", "--set", "grpo.grup=8"], ConfigError, "did you mean 'group'?"),
            (["tiny", "--set", "grpo.group=1"], ConfigError, "from 2 to 4096"),
            (["tiny", "--set", "recipe.pool=nowhere"], ConfigError, "no pool 'nowhere'"),
            (["tiny", "--set", "data.worker=huge"], ConfigError, "no model 'huge'"),
            (["tiny", "--set", "recipe.cap=0.00001"], ConfigError, "too small for one group"),
        ],
    )
    @pytest.mark.parametrize("dry", [["--dry-run"], ["--dry-run", "--json"], []])
    def test_before_anything_is_paid(
        self,
        arguments: list[str],
        error: type[Exception],
        says: str,
        dry: list[str],
        tmp_path: Path,
    ) -> None:
        done = run("run", *arguments, *dry)
        assert isinstance(done.exception, error)
        assert says in str(done.exception)
        assert "--json" not in dry or not done.stdout
        assert not list(tmp_path.iterdir())

    def test_a_small_budget_still_shows_what_would_do(self) -> None:
        done = run("run", "tiny", "--dry-run", "--set", "recipe.cap=0.00001")
        assert "together" in done.stdout

    def test_items_that_are_not_there_yet(self, tmp_path: Path) -> None:
        done = run("run", "qwen2.5-7b")
        assert isinstance(done.exception, DataError)
        assert "data/scan_train.jsonl: no such file" in str(done.exception)
        assert not list(tmp_path.iterdir())

    def test_a_round_that_a_recipe_does_not_have(self) -> None:
        done = run("grpo", "tiny", "--policy", "decomposer", "--round", "3", "--dry-run")
        assert isinstance(done.exception, ConfigError)
        assert "no stage grpo-3-decomposer; it has: workers, decompositions" in str(done.exception)


def test_what_is_not_installed_is_named() -> None:
    """A recipe for vLLM and Ray, where neither the items nor vLLM are there."""
    program = """
import sys
import importlib.util
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in ("trl", "vllm", "ray") else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [f for f in sys.meta_path if f is not PathFinder] + [Without]
from r2reasoner.cli.app import main
sys.argv[1:] = ["train", "run", "tiny", "--set", "grpo.vllm.mode=colocate",
                "--set", "hardware.device=auto", "--set", "data.engine=ray"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "needs trl, vllm, ray, not installed" in done.stderr
    assert "pip install 'r2reasoner[training,vllm,ray]'" in done.stderr


def test_help_and_a_dry_run_need_no_training_packages() -> None:
    for arguments in (["train", "--help"], ["train", "run", "nano", "--dry-run"]):
        program = (
            "import sys\nfrom r2reasoner.cli.app import main\n"
            f"sys.argv[1:] = {arguments!r}\n"
            "try:\n    main()\nfinally:\n    print('modules:', *sys.modules, file=sys.stderr)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        loaded = set(done.stderr.rpartition("modules:")[2].split())
        assert not loaded & {"torch", "transformers", "trl", "pyarrow", "ray", "datasets"}
