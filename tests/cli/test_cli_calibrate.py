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

import pools
import toy_pool
from r2reasoner.allocator import CalibratedAllocator, open_allocator
from r2reasoner.benchmarks import SCORERS
from r2reasoner.cli.calibrate import Exam, register
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.estimate import OutcomeModel
from r2reasoner.evaluation.spending import CapReached
from r2reasoner.ledger import Ledger
from r2reasoner.mock import MockProvider
from r2reasoner.nano import arithmetic
from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.types import Role

PROGRAM = """
import typer
from r2reasoner.cli.calibrate import register
app = typer.Typer()
register(app)
app.callback()(lambda: None)
app()
"""
ITEMS = 6
cli = typer.Typer()
register(cli)
cli.callback()(lambda: None)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[MockProvider]:
    write_items(ITEMS)
    with pools.serving(provider := MockProvider(answer=toy_pool.answer)) as url:
        (tmp_path / "toy.toml").write_text(toy_pool.pool_file(url))
        yield provider


def write_items(count: int) -> None:
    lines = [json.dumps({"query": i.query, "answer": i.gold}) for i in toy_pool.items(count)]
    Path("mine.jsonl").write_text("\n".join(lines) + "\n")


def arguments(*more: str) -> list[str]:
    return ["calibrate", "mine.jsonl", "--pool", "toy.toml", *more]


def run(*more: str) -> Result:
    return CliRunner().invoke(cli, arguments(*more))


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_what_is_measured_makes_the_pool_a_calibrated_one(provider: MockProvider) -> None:
    done = document(run("--json", "--out", "seen.npz"))
    assert (done["items"], done["measured"], done["unsolved"]) == (ITEMS, ITEMS, 0)
    assert done["stopped"] is None
    measured = {row["model"]: row["right"] for row in done["models"]}
    # `large` shouts any word, `middle` short ones, `small` says nothing that could be judged
    assert measured["large"] == 1.0
    assert 0 < measured["middle"] < 1.0
    assert done["pool_lines"] == ['outcomes = "seen.npz"', 'allocator = "calibrated"']
    raw = [json.loads(line) for line in Path("seen.jsonl").read_text().splitlines()]
    assert len(raw) == done["outcomes"]
    assert OutcomeModel.load(Path("seen.npz")).p_right("red")["large"] > 0.8
    file = Path("toy.toml")
    text = file.read_text().replace('allocator = "ladder"\n', "\n".join(done["pool_lines"]) + "\n")
    file.write_text(text)
    assert isinstance(open_allocator(load_pool(file), 0.3), CalibratedAllocator)


def test_every_call_is_in_the_ledger_and_in_the_report(provider: MockProvider) -> None:
    done = document(run("--json"))
    with Ledger.open() as ledger:
        totals, entries = ledger.totals(), ledger.entries()
    assert totals.calls == len(provider.books)
    assert totals.cost == done["cost_pico"] > 0
    assert not totals.open
    assert {e.role for e in entries} >= {Role.DECOMPOSER, Role.CALIBRATION}


def test_whole_queries_are_asked_of_every_model_where_wanted(provider: MockProvider) -> None:
    done = document(run("--json", "--whole", "--out", "seen.npz"))
    raw = [json.loads(line) for line in Path("seen.queries.jsonl").read_text().splitlines()]
    # nobody shouts a whole "and", and `small` says nothing that could be judged
    assert done["whole_queries"] == len(raw) == 2 * ITEMS
    assert {(row["model"], row["right"]) for row in raw} == {("middle", False), ("large", False)}
    assert {row["text"] for row in raw} == {item.query for item in toy_pool.items(ITEMS)}
    with Ledger.open() as ledger:
        assert ledger.totals().calls == len(provider.books)
        assert ledger.totals().cost == done["cost_pico"]
    Path("seen.npz").unlink()
    Path("seen.jsonl").unlink()
    Path("seen.references.jsonl").unlink()
    refused = run("--whole", "--out", "seen.npz")
    assert "seen.queries.jsonl exists" in str(refused.exception)


def test_the_report_for_people_has_the_line_to_put_in(provider: MockProvider) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "6 of 6 items measured for" in said
    assert "large" in said
    assert "100.0%" in said
    assert 'outcomes = "toy-outcomes.npz"' in said
    assert 'allocator = "calibrated"' in said
    assert "take the estimate with care" in said
    assert Path("toy-outcomes.npz").exists()


def test_a_pool_that_names_the_file_needs_nothing_more(provider: MockProvider) -> None:
    file = Path("toy.toml")
    named = 'allocator = "calibrated"\noutcomes = "seen.npz"\n'
    file.write_text(file.read_text().replace('allocator = "ladder"\n', named))
    said = run("--out", "seen.npz").stdout
    assert "names it already" in said
    assert document(run("--out", "seen.npz", "--force", "--json"))["pool_lines"] == []


def test_a_cap_ends_it_and_keeps_what_is_paid_for(provider: MockProvider) -> None:
    write_items(30)
    whole = document(run("--json", "--out", "whole.npz"))["cost_pico"]
    cap = whole * 2 // 3
    dollars = f"{cap / 10**12:.12f}"
    done = document(run("--json", "--out", "part.npz", "--max-cost", dollars))
    assert "the cap of" in done["stopped"]
    assert done["measured"] < 30
    assert cap // 2 < done["cost_pico"] <= cap
    assert OutcomeModel.load(Path("part.npz")).outcomes == done["outcomes"] > 0
    assert "stopped: the cap of" in run("--out", "again.npz", "--max-cost", dollars).stdout


def test_a_cap_below_the_first_call_writes_nothing(provider: MockProvider) -> None:
    done = run("--max-cost", "0.000001")
    assert isinstance(done.exception, CapReached)
    assert not provider.books
    assert not list(Path().glob("*.npz"))


def test_items_that_nobody_gets_right_are_an_error(provider: MockProvider) -> None:
    Path("mine.jsonl").write_text('{"query": "red and blue", "answer": "GREEN"}\n')
    done = run()
    assert isinstance(done.exception, DataError)
    assert "nothing measured" in str(done.exception)
    assert not list(Path().glob("*.npz"))


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        (["--max-cost", "0"], ConfigError, "--max-cost: expected dollars above 0"),
        (["--out", "seen.txt"], ConfigError, "ends in .npz"),
        (["--out", "nowhere/seen.npz"], ConfigError, "there is no folder nowhere"),
        (["--out", "there.npz"], ConfigError, "there.npz exists"),
        (["--benchmark", "scan", "--scorer", "exact"], ConfigError, "its own scorer"),
        (["--benchmark", "scan"], DataError, "no 'command'"),
        (["--pool", "nowhere.toml"], ConfigError, "nowhere.toml"),
    ],
)
def test_bad_input_is_one_clear_error_before_any_call(
    provider: MockProvider, more: list[str], error: type[Exception], says: str
) -> None:
    Path("there.npz").write_text("mine")
    done = run(*more)
    assert isinstance(done.exception, error)
    assert says in str(done.exception)
    assert not provider.books
    assert Path("there.npz").read_text() == "mine"


def test_a_missing_items_file_is_named(provider: MockProvider) -> None:
    Path("mine.jsonl").unlink()
    done = run()
    assert isinstance(done.exception, DataError)
    assert "mine.jsonl: no such file" in str(done.exception)


def test_a_cap_needs_prices(provider: MockProvider) -> None:
    file = Path("toy.toml")
    priced = "input_price = 10\noutput_price = 10\n"
    assert priced in file.read_text()
    file.write_text(file.read_text().replace(priced, ""))
    done = run("--max-cost", "1")
    assert isinstance(done.exception, ConfigError)
    assert "the price of middle is unknown" in str(done.exception)
    assert not provider.books
    assert document(run("--json"))["cost_pico"] is None


def test_ctrl_c_keeps_what_was_measured(provider: MockProvider) -> None:
    # the last call is the one that is interrupted
    provider.latency_s = lambda call: 60.0 if len(provider.books) > 40 else 0.0
    command = [sys.executable, "-c", PROGRAM, *arguments()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    while len(provider.books) <= 40:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "what was measured until then is in" in said
    assert "Traceback" not in said
    assert OutcomeModel.load(Path("toy-outcomes.npz")).models
    with Ledger.open() as ledger:
        assert not ledger.totals().open


def test_the_nano_pool_on_items_of_a_benchmark(nano: Pool) -> None:
    rows = arithmetic.held_out_items([3], 4, seed=5)
    Path("sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["calibrate", "sums.jsonl", "--benchmark", "arithmetic", "--json"]
    done = document(CliRunner().invoke(cli, [*arguments, "--pool", "nano"]))
    assert done["measured"] == 4
    assert [row["model"] for row in done["models"]] == [card.name for card in nano.workers]
    assert done["pool_lines"] == [f'outcomes = "{Path("nano-outcomes.npz").resolve()}"']
    assert done["models"][-1]["right"] > done["models"][0]["right"]


def test_items_of_a_benchmark_are_judged_by_its_own_scorer(nano: Pool, tmp_path: Path) -> None:
    row = {"id": "1", "stem": "?", "choices": {k: k * 2 for k in "ABCDE"}, "answer": "B"}
    (tmp_path / "csqa.jsonl").write_text(json.dumps(row) + "\n")
    exam = Exam.load(tmp_path / "csqa.jsonl", None, "csqa", nano)
    assert exam.scorer == "csqa"
    grade, gold = SCORERS[exam.scorer], exam.items[0].gold
    assert [grade(answer, gold) for answer in ("The answer is (B).", "C")] == [True, False]
