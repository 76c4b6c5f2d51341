import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import toy_pool
from pools import serving
from r2reasoner.cli.evaluate import register as register_evaluate
from r2reasoner.cli.report import register
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.mock import MockProvider
from results_on_disk import evaluated, write

pytest.importorskip("jinja2")
cli = typer.Typer()
register(cli)
register_evaluate(cli)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_one_page_and_the_same_as_markdown() -> None:
    write(Path("e.json"), evaluated())
    done = run("report", "e.json", "--out", "page.html", "--markdown", "page.md")
    assert done.exit_code == 0, done.output
    assert "r2 costs 90 % less than CoT" in done.stdout
    assert Path("page.html").read_text().startswith("<!doctype html>")
    assert Path("page.md").read_text().startswith("# r2 costs 90 % less")
    told = json.loads(run("report", "e.json", "--json").stdout)
    assert told["out"] == ["report.html"]
    assert told["claims"][0]["saving"] == "90.0 % less"


def test_what_an_evaluation_wrote_is_shown_with_its_kinds_of_subtasks() -> None:
    lines = [json.dumps({"query": i.query, "answer": i.gold}) for i in toy_pool.items(4)]
    write(Path("mine.jsonl"), "\n".join(lines) + "\n")
    with serving(MockProvider(answer=toy_pool.answer)) as url:
        write(Path("toy.toml"), toy_pool.pool_file(url))
        wanted = ["evaluate", "mine.jsonl", "--pool", "toy.toml", "--scorer", "sequence"]
        done = run(*wanted, "-s", "r2@0,single:*,cot", "--out", "result.json")
        assert done.exit_code == 0, done.output
    done = run("report", "result.json", "--markdown", "page.md")
    assert done.exit_code == 0, done.output
    markdown = Path("page.md").read_text()
    assert "### r2@0 on mine all, by kind [1]" in markdown
    assert "| last step | 8 | 100.0 |" in markdown
    assert "pool toy" in markdown.partition("## Where the figures come from")[2]


def test_results_are_not_written_over_and_mistakes_are_named() -> None:
    write(Path("e.json"), evaluated())
    for arguments, told in (
        (("e.json", "--out", "e.json"), "is one of the results"),
        (("e.json", "--out", "a", "--markdown", "a"), "name the same file"),
        (("e.json", "--out", "none/a.html"), "there is no folder none"),
        (("e.json", "--ledger", "none.db"), "no such ledger"),
    ):
        done = run("report", *arguments)
        assert isinstance(done.exception, ConfigError)
        assert told in str(done.exception)
    done = run("report", "none.json")
    assert isinstance(done.exception, DataError)
    assert not Path("report.html").exists()
