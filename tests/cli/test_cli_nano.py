import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import pools
from r2reasoner.budget import Meter
from r2reasoner.cli.nano import _recipe, app
from r2reasoner.client import ChatRequest, Completion, PoolClient
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.ledger import Ledger
from r2reasoner.nano import arithmetic, scan
from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.types import Message, Role
from training_runs import RUN, TINY

PROGRAM = "from r2reasoner.cli.nano import app; app()"
cli = typer.Typer()
cli.add_typer(app, name="nano")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["nano", *arguments])


def rows_of(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


class TestItems:
    def test_arithmetic_is_fresh_and_held_out(self) -> None:
        done = run("items", "arithmetic", "--operands", "3,4", "--count", "20", "--out", "a.jsonl")
        assert done.exit_code == 0, done.output
        assert "wrote 20 items to a.jsonl" in done.stdout
        rows = rows_of("a.jsonl")
        assert [set(row) for row in rows] == [{"expression", "value"}] * 20
        for number, row in enumerate(rows):
            met = list(arithmetic.operations(arithmetic.parse(row["expression"])))
            assert len(met) == 2 + number % 2
            assert {arithmetic.side(o) for o in met} == {"test"}

    def test_a_seed_is_a_file(self) -> None:
        for seed, name in (("1", "a"), ("1", "b"), ("2", "c")):
            run("items", "arithmetic", "--count", "10", "--seed", seed, "--out", f"{name}.jsonl")
        first, same, other = (Path(f"{name}.jsonl").read_text() for name in "abc")
        assert first == same != other

    def test_unseen_values(self) -> None:
        more = ["--operands", "2", "--unseen-values", "--json"]
        done = run("items", "arithmetic", "--count", "15", "--out", "u.jsonl", *more)
        assert json.loads(done.stdout) == {"out": "u.jsonl", "items": 15, "seed": 0}
        for row in rows_of("u.jsonl"):
            ((a, _, b),) = arithmetic.operations(arithmetic.parse(row["expression"]))
            assert {a, b} & arithmetic.UNSEEN_VALUES

    @pytest.mark.parametrize(("split", "size"), [("length", 3920), ("addprim_jump", 7706)])
    def test_scan_is_the_test_side_of_a_split(self, split: str, size: int) -> None:
        run("items", "scan", "--split", split, "--out", "all.jsonl")
        run("items", "scan", "--split", split, "--count", "30", "--seed", "4", "--out", "30.jsonl")
        everything, some = rows_of("all.jsonl"), rows_of("30.jsonl")
        assert (len(everything), len(some)) == (size, 30)
        assert all(row in everything for row in some)
        assert all(scan.interpret(row["command"]) == row["actions"] for row in some)

    @pytest.mark.parametrize(
        ("more", "says"),
        [
            (["arithmetic", "--operands", "1"], "--operands '1': expected counts from 2"),
            (["arithmetic", "--operands", "9"], "--operands '9'"),
            (["arithmetic", "--operands", "3,x"], "--operands '3,x'"),
            (["arithmetic", "--operands", ""], "--operands ''"),
            (["arithmetic", "--operands", "2", "--count", "9999"], "there are only"),
            (["arithmetic", "--operands", "2,3", "--count", "9999"], "5,000 of them"),
            (["scan", "--count", "9999"], "the test side of length has 3,920"),
        ],
    )
    def test_what_cannot_be_made_is_a_clear_error(self, more: list[str], says: str) -> None:
        done = run("items", *more, "--out", "x.jsonl")
        assert isinstance(done.exception, ConfigError)
        assert says in str(done.exception)
        assert not list(Path().glob("*.jsonl"))

    def test_a_file_is_replaced_only_by_force(self) -> None:
        Path("mine.jsonl").write_text("mine")
        asked = ["items", "arithmetic", "--count", "5", "--out", "mine.jsonl"]
        assert isinstance(run(*asked).exception, ConfigError)
        assert Path("mine.jsonl").read_text() == "mine"
        assert run(*asked, "--force").exit_code == 0
        assert len(rows_of("mine.jsonl")) == 5

    def test_a_folder_that_is_not_there(self) -> None:
        done = run("items", "arithmetic", "--count", "5", "--out", "nowhere/x.jsonl")
        assert isinstance(done.exception, ConfigError)


class TestTrain:
    def test_without_torch_it_says_what_to_install(self) -> None:
        # in a process of its own, for what is imported without torch would stay so
        program = f"import sys; sys.modules['torch'] = None; {RUN}"
        command = [sys.executable, "-c", program, "nano", "train", "--preset", "tiny"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "needs torch, not installed" in done.stderr
        assert "pip install 'r2reasoner[training]'" in done.stderr
        assert not Path("runs").exists()

    def test_training_items_belong_to_the_random_split(self) -> None:
        done = run("train", "--train-items", "x.jsonl")
        assert isinstance(done.exception, ConfigError)
        assert "--train-items" in str(done.exception)
        missing = run("train", "--set", "simple")
        assert isinstance(missing.exception, ConfigError)
        assert "training file" in str(missing.exception)
        nowhere = run("train", "--set", "simple", "--train-items", "x.jsonl")
        assert isinstance(nowhere.exception, DataError)

    @pytest.mark.parametrize("weights", ["length", "addprim_jump", "simple"])
    @pytest.mark.parametrize("preset", ["full", "tiny"])
    def test_a_weight_set_has_its_recipe(self, weights: str, preset: str) -> None:
        items = Path("simple.jsonl") if weights == "simple" else None
        recipe = _recipe(weights, preset, None, items, 3)
        data = recipe.data
        assert (data.nano_set, data.workers, recipe.run.seed) == (weights, preset, 3)
        assert recipe.run.out == f"runs/nano-{weights}"
        families = {source.benchmark for source in data.sources}
        assert families == ({"scan", "arithmetic"} if weights == "length" else {"scan"})
        same = recipe.policies.decomposer.interchangeable
        assert bool(same) == (weights == "addprim_jump")
        assert recipe.policies.allocator.interchangeable == same

    def test_a_tiny_set_ends_in_a_pool_that_answers(self, tiny_copy: Path) -> None:
        """The run is there already, so that nothing but shipping is left to do."""
        asked = ["train", "--preset", "tiny", "--out", str(TINY), "--json"]
        done = run(*asked)
        assert done.exit_code == 0, done.output
        file = Path(json.loads(done.stdout)["pool"])
        pool = load_pool(file)
        assert [card.name for card in pool.workers] == ["8x1", "16x1", "16x2"]
        assert pool.outcomes is not None
        assert pool.outcomes.exists()
        shown = run("eval", "--pool", str(file), "--items", "2", "--json")
        assert json.loads(shown.stdout)["split"] == "length"
        before = {f: f.stat().st_mtime_ns for f in TINY.glob("*/*/model.safetensors")}
        assert before
        assert run(*asked).exit_code == 0
        assert {f: f.stat().st_mtime_ns for f in before} == before


class TestEval:
    def test_json_has_every_kind_and_the_summary(self, nano: Pool) -> None:
        done = run("eval", "--items", "3", "--seed", "1", "--json")
        assert done.exit_code == 0, done.output
        ladder = json.loads(done.stdout)
        assert (ladder["pool"], ladder["split"], ladder["seed"]) == ("nano", "length", 1)
        names = [card.name for card in nano.workers]
        assert all(list(kind["accuracy"]) == names for kind in ladder["kinds"])
        assert {kind["family"] for kind in ladder["kinds"]} == {"scan", "arithmetic"}
        assert set(ladder["ceilings"]) == {"3", "4", "5"}
        for summary in (ladder["summary"], ladder["summary_unseen"]):
            assert sum(summary["cheapest_for"].values()) + summary["nobodys"] == summary["kinds"]

    def test_the_table_says_what_was_trained_on(self, nano: Pool) -> None:
        said = run("eval", "--items", "1").stdout
        for text in ("on the training side", "never trained on", "apart", "2x2 * (nobody can)"):
            assert text in said
        assert "ceiling" in said
        assert all(card.name in said for card in nano.workers)

    def test_a_pool_of_other_models_is_refused(self, tmp_path: Path) -> None:
        file = pools.pool_file(tmp_path, "http://127.0.0.1:1/v1")
        done = run("eval", "--pool", str(file), "--items", "1")
        assert isinstance(done.exception, ConfigError)
        assert "calibrate" in str(done.exception)


@contextmanager
def serving(*options: str) -> Iterator[tuple["subprocess.Popen[str]", Any]]:
    command = [sys.executable, "-c", PROGRAM, "serve", "--port", "0", "--json", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


async def ask(pool: Pool, text: str) -> Completion:
    client = PoolClient()
    request = ChatRequest(messages=(Message("user", text),), max_tokens=40, role=Role.CHECK)
    try:
        with Ledger.in_memory() as ledger:
            return await client.complete(pool.strongest, request, Meter(ledger, "q"))
    finally:
        await client.close()


class TestServe:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_serves_a_pool_file_that_reaches_it_and_stops(
        self, nano: Pool, number: signal.Signals
    ) -> None:
        with serving("--write-pool", "served.toml") as (process, address):
            pool = load_pool("served.toml")
            assert address["pool"] == "served.toml"
            assert pool.strongest.endpoint.base_url == address["base_url"]
            assert pool.strongest.price is not None
            assert nano.strongest.price is not None
            assert pool.strongest.price.input == nano.strongest.price.input
            answer = asyncio.run(ask(pool, "walk left twice"))
            assert answer.text == "I_TURN_LEFT I_WALK I_TURN_LEFT I_WALK"
            os.kill(process.pid, number)
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
        with serving("--write-pool", "served.toml") as (_, moved):
            assert load_pool("served.toml").strongest.endpoint.base_url == moved["base_url"]

    @pytest.mark.parametrize(
        ("more", "says"),
        [
            (["--host", "0.0.0.0"], "--allow-remote"),
            (["--write-pool", "mine.toml"], "not ours to replace"),
            (["--pool", "paper"], "not run in process"),
            (["--pool", "nowhere.toml"], "nowhere.toml"),
        ],
    )
    def test_what_cannot_be_served_is_a_clear_error(
        self, nano: Pool, more: list[str], says: str
    ) -> None:
        Path("mine.toml").write_text("mine")
        done = run("serve", "--port", "0", *more)
        assert isinstance(done.exception, ConfigError)
        assert says in str(done.exception)
        assert Path("mine.toml").read_text() == "mine"
