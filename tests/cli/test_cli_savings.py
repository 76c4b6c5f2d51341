import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import toy_pool
from logged_requests import litellm, openai, write_lines
from pools import serving
from r2reasoner.cli.savings import register
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.evaluation.spending import CapReached
from r2reasoner.mock import MockProvider
from r2reasoner.report.results import Saved, read_result
from r2reasoner.report.saved import saved_claims, saved_tables

SECRET = "sk-canary-77"
cli = typer.Typer()
register(cli)
cli.callback()(lambda: None)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rows = [litellm(i.query, i.gold, metadata={"key": SECRET}) for i in toy_pool.items(5)]
    write_lines(Path("logs.jsonl"), *rows, openai("red", "RED", "mystery"))


def run(*more: str) -> Result:
    return CliRunner().invoke(cli, ["savings", "logs.jsonl", "--pool", "toy.toml", *more])


def test_without_a_budget_nothing_is_asked_and_nothing_written(tmp_path: Path) -> None:
    with serving(provider := MockProvider(answer=toy_pool.answer)) as url:
        Path("toy.toml").write_text(toy_pool.pool_file(url))
        before = sorted(tmp_path.iterdir())
        done = run()
        assert done.exit_code == 0, done.output
        assert "nothing was asked: --budget DOLLARS judges a sample" in done.stdout
        assert "1 of 6 requests have no known price today" in done.stdout
        assert not provider.books
    assert sorted(tmp_path.iterdir()) == before


def test_within_a_budget_a_sample_is_judged_and_the_report_shows_it() -> None:
    with serving(provider := MockProvider(answer=toy_pool.answer)) as url:
        Path("toy.toml").write_text(toy_pool.pool_file(url))
        options = ["--budget", "1", "--scorer", "sequence", "--out", "s.json", "-t", "0"]
        done = run(*options, "--json")
        assert done.exit_code == 0, done.output
        made = json.loads(done.stdout)
        assert made["quality"]["at_risk"] == 0.0
        assert made["quality"]["today_asked_again"]["at_risk"] == 1.0
        assert (made["sample"]["asked"], made["sample"]["priced"]) == (6, 5)
        calls = len(provider.books)
        told = run(*options)
        assert "at risk: 0.0%" in told.stdout
        assert len(provider.books) == calls
    result = read_result(Path("s.json"))
    assert isinstance(result, Saved)
    (table,) = saved_tables(result, 1)
    assert [line.cells[0].text for line in table.lines][:2] == ["today", "r2"]
    assert "at risk" in saved_claims([result])[0].difference
    for file in Path().glob("s.json*"):
        assert SECRET not in file.read_text()
    assert SECRET not in done.output + told.output


def test_a_budget_too_small_for_one_request_says_so() -> None:
    with serving(MockProvider(answer=toy_pool.answer)) as url:
        Path("toy.toml").write_text(toy_pool.pool_file(url))
        done = run("--budget", "0.000001", "--out", "s.json")
    assert isinstance(done.exception, CapReached)
    assert not Path("s.json").exists()


def test_mistakes_are_named() -> None:
    Path("toy.toml").write_text(toy_pool.pool_file("http://127.0.0.1:1"))
    done = run("--judge", "nobody")
    assert isinstance(done.exception, ConfigError)
    assert "no model 'nobody'" in str(done.exception)
    Path("logs.jsonl").write_text(f'{{"key": "{SECRET}"}}\n')
    done = run()
    assert isinstance(done.exception, DataError)
    assert "logs.jsonl:1" in str(done.exception)
    assert SECRET not in str(done.exception)
