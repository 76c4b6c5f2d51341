import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import toy_pool
from r2reasoner.cli.evaluate import register
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.evaluation.rows import RowsFile
from r2reasoner.evaluation.spending import CapReached
from r2reasoner.ledger import Ledger, evaluations_path
from r2reasoner.mock import MockProvider, in_thread
from r2reasoner.nano import scan

PROGRAM = """
import typer
from r2reasoner.cli.evaluate import register
app = typer.Typer()
register(app)
app.callback()(lambda: None)
app()
"""
ROW_FIELDS = (
    *("benchmark", "split", "strategy", "n", "accuracy", "ci95", "workers_cost", "net_cost"),
    *("calls", "latency_s", "plan_failures", "model_share"),
)
cli = typer.Typer()
register(cli)
cli.callback()(lambda: None)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[MockProvider]:
    """A provider in another thread, as the command has an event loop of its own."""
    lines = [json.dumps({"query": i.query, "answer": i.gold}) for i in toy_pool.items(6)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines) + "\n")
    with in_thread(MockProvider(answer=toy_pool.answer)) as provider:
        (tmp_path / "toy.toml").write_text(toy_pool.pool_file(provider.base_url))
        yield provider


def arguments(*more: str) -> list[str]:
    return ["evaluate", "mine.jsonl", "--pool", "toy.toml", "--out", "result.json", *more]


def run(*more: str) -> Result:
    return CliRunner().invoke(cli, arguments(*more))


def test_a_table_and_a_result_file_with_every_field(provider: MockProvider) -> None:
    done = run("--scorer", "sequence", "-s", "r2@0,single:*,cot", "--trade-off", "0.5")
    assert done.exit_code == 0, done.output
    assert "mine all, 6 items" in done.stdout
    assert "100.0 [100.0, 100.0]" in done.stdout
    assert "single:small: 6 without a whole answer" in done.stdout
    result = json.loads(Path("result.json").read_text())
    by_strategy = {row["strategy"]: row for row in result["rows"]}
    assert list(by_strategy) == ["r2@0", "single:small", "single:middle", "single:large", "cot"]
    r2 = by_strategy["r2@0"]
    assert all(field in r2 for field in ROW_FIELDS)
    assert (r2["n"], r2["accuracy"], r2["model_share"]) == (6, 1.0, {"large": 1.0})
    assert by_strategy["single:large"]["accuracy"] == 0.0
    assert len(result["comparisons"]) == 4
    origin = result["provenance"]
    assert (origin["seed"], origin["pool"]["name"], origin["trade_off"]) == (0, "toy", 0.5)
    with Ledger.open(evaluations_path()) as ledger:
        assert ledger.totals().calls == len(provider.books)
    with RowsFile(Path("result.json.rows.jsonl")) as rows:
        assert len(rows.rows) == 30


def test_json_is_the_result_file_and_the_only_thing_on_stdout(provider: MockProvider) -> None:
    done = run("-s", "r2", "--json", "--limit", "3")
    assert json.loads(done.stdout) == json.loads(Path("result.json").read_text())
    calls = len(provider.books)
    again = run("-s", "r2", "--json", "--limit", "3")
    assert json.loads(again.stdout)["rows"] == json.loads(done.stdout)["rows"]
    assert len(provider.books) == calls


def test_what_a_store_has_is_not_asked_again_and_the_result_says_how_much(
    provider: MockProvider,
) -> None:
    pytest.importorskip("pyarrow")
    first = json.loads(run("-s", "r2@0", "--outcomes", "store", "--json").stdout)
    paid = len(provider.books)
    assert first["provenance"]["calls_on_record"] == 18 - paid
    done = run("-s", "r2@0", "--outcomes", "store", "--out", "again.json")
    assert "18 of 18 calls were answered from record" in done.stdout
    again = json.loads(Path("again.json").read_text())
    origin = again["provenance"]
    assert (origin["engine"], origin["calls"], origin["calls_on_record"]) == ("asyncio", 18, 18)
    assert again["rows"][0]["net_cost"] == first["rows"][0]["net_cost"]
    assert len(provider.books) == paid


def test_the_ray_engine_needs_ray(provider: MockProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run("-s", "r2@0", "--engine", "ray")
    assert isinstance(done.exception, ConfigError)
    assert "pip install 'r2reasoner[ray]'" in str(done.exception)
    assert not provider.books


def test_a_dry_run_calls_nothing_and_writes_nothing(provider: MockProvider, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    said = run("-s", "single:large,r2", "--dry-run")
    assert "single:large: 6 calls, at most $0.0" in said.stdout
    document = json.loads(run("-s", "single:large,r2", "--dry-run", "--json").stdout)
    assert document["strategies"]["single:large"]["most_calls"] == 6
    assert not provider.books
    assert sorted(tmp_path.iterdir()) == before


def test_a_strategy_that_the_pool_cannot_run_is_left_out_with_the_reason(
    provider: MockProvider,
) -> None:
    done = run("-s", "router-r1,single:large")
    assert done.exit_code == 0, done.output
    assert "warning: router-r1 is left out: router-r1 needs a chat model" in done.stderr
    result = json.loads(Path("result.json").read_text())
    assert [row["strategy"] for row in result["rows"]] == ["single:large"]
    assert "router-r1 is left out" in result["provenance"]["notes"][0]
    alone = run("-s", "router-r1")
    assert isinstance(alone.exception, ConfigError)


def test_what_draws_is_run_with_every_seed_and_paid_for_once(provider: MockProvider) -> None:
    seeds = ("-s", "random,single:large", "--seeds", "0,1,2")
    said = json.loads(run(*seeds, "--dry-run", "--json").stdout)["strategies"]
    assert said["single:large"]["least_calls"] == 6
    assert said["random"]["least_calls"] >= 18
    document = json.loads(run(*seeds, "--json").stdout)
    random, single = document["rows"]
    assert document["provenance"]["seeds"] == [0, 1, 2]
    assert (random["n"], random["seeds"], len(random["accuracy_by_seed"])) == (6, [0, 1, 2], 3)
    assert (single["n"], "seeds" in single) == (6, False)
    assert random["accuracy"] == pytest.approx(sum(random["accuracy_by_seed"]) / 3)
    with RowsFile(Path("result.json.rows.jsonl")) as rows:
        assert len(rows.rows) == 4 * 6
    calls = len(provider.books)
    assert run("-s", "random", "--seed", "1").exit_code == 0
    assert len(provider.books) == calls


def test_a_folder_of_a_published_layout_is_enough(provider: MockProvider, tmp_path: Path) -> None:
    provider.answer = lambda call: "The answer is (B)."
    folder = tmp_path / "csqa"
    folder.mkdir()
    choices = {"A": "one", "B": "two"}
    rows = [{"stem": f"q{n}?", "choices": choices, "answer": a} for n, a in enumerate("ABB")]
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["evaluate", "csqa", "--items", "csqa", "--pool", "toy.toml", "-s", "single:large"]
    said = CliRunner().invoke(cli, [*command, "--dry-run"])
    assert "csqa dev, 3 items" in said.stdout
    assert "single:large: 3 calls" in said.stdout
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(Path("runs/csqa-dev.json").read_text())["rows"]
    assert (row["n"], row["accuracy"]) == (3, 2 / 3)
    wrong = CliRunner().invoke(cli, [*command, "--split", "train"])
    assert isinstance(wrong.exception, ConfigError)
    (folder / "dev.jsonl").write_text(json.dumps({"question": "q", "answer": "A"}) + "\n")
    wrong = CliRunner().invoke(cli, command)
    assert isinstance(wrong.exception, DataError)
    assert "dev.jsonl:1: no 'stem'; expected 'stem', 'choices' and 'answer'" in str(wrong.exception)


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}")
@pytest.mark.parametrize("name", ["p3", "scan", "math", "champ", "csqa", "musique"])
def test_every_benchmark_has_a_dry_run(provider: MockProvider, name: str) -> None:
    command = ["evaluate", name, "--items", str(SHARED / name), "--pool", "toy.toml"]
    said = CliRunner().invoke(cli, [*command, "-s", "single:*,cot", "--dry-run", "--limit", "20"])
    assert said.exit_code == 0, said.output
    assert "20 items" in said.stdout
    assert "single:large: 20 calls, at most $" in said.stdout
    assert not provider.books


def test_a_cap_ends_the_command_and_says_how_to_go_on(provider: MockProvider) -> None:
    done = run("-s", "single:large", "--max-cost", "0.014", "--concurrency", "2")
    assert isinstance(done.exception, CapReached)
    assert "result.json.rows.jsonl: the same command goes on from there" in done.stderr
    assert not Path("result.json").exists()
    assert run("-s", "single:large").exit_code == 0
    assert len(provider.books) == 6


def test_nano_tasks_make_their_own_items(provider: MockProvider) -> None:
    provider.answer = lambda call: scan.interpret(call.last_user)
    pool = Path("toy.toml")
    pool.write_text(pool.read_text().replace("max_tokens = 20", "max_tokens = 60"))
    done = CliRunner().invoke(
        cli,
        [
            "evaluate",
            "scan",
            "--split",
            "addprim_jump",
            "--pool",
            "toy.toml",
            "-s",
            "single:large",
            "--limit",
            "5",
        ],
    )
    assert done.exit_code == 0, done.output
    (row,) = json.loads(Path("runs/scan-addprim_jump.json").read_text())["rows"]
    assert (row["n"], row["accuracy"], row["split"]) == (5, 1.0, "addprim_jump")


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        (["-s", "r2,best"], ConfigError, "no strategy 'best'; known: r2, cot"),
        (["--max-cost", "0"], ConfigError, "--max-cost: expected dollars above 0"),
        (["--scorer", "close"], ConfigError, "no scorer 'close'"),
        (["--items", "nowhere.jsonl"], DataError, "nowhere.jsonl: cannot be read"),
        (["--seeds", "0,x"], ConfigError, "--seeds: expected whole numbers"),
        (["--hub"], ConfigError, "two sources of items"),
        (["--trade-off", "3"], ConfigError, "--trade-off: expected a number"),
    ],
)
def test_bad_input_is_one_clear_error(
    provider: MockProvider, more: list[str], error: type[Exception], says: str
) -> None:
    done = run(*more)
    assert isinstance(done.exception, error)
    assert says in str(done.exception)
    assert not provider.books


def test_ctrl_c_leaves_whole_rows_and_the_same_command_goes_on(provider: MockProvider) -> None:
    provider.latency_s = 0.3
    command = [sys.executable, "-c", PROGRAM, *arguments("-s", "r2@0", "--concurrency", "1")]
    rows_file = Path("result.json.rows.jsonl")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    while not (rows_file.exists() and rows_file.read_bytes()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    with RowsFile(rows_file) as rows:
        kept = len(rows.rows)
    assert 0 < kept < 6
    with Ledger.open(evaluations_path()) as ledger:
        assert not ledger.totals().open
    provider.latency_s = 0.0
    before = len(provider.books)
    done: Any = json.loads(run("-s", "r2@0", "--json").stdout)
    assert done["rows"][0]["n"] == 6
    assert len(provider.books) - before == 3 * (6 - kept)
