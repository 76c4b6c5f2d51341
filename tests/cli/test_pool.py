import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from pools import serving
from r2reasoner.cli.pool import app, init
from r2reasoner.errors import ConfigError
from r2reasoner.ledger import Ledger
from r2reasoner.mock import Fault, MockProvider, closed_port
from r2reasoner.pool.discover import PROVIDERS
from r2reasoner.pool.load import load_pool
from r2reasoner.types import CallOutcome, Role

cli = typer.Typer()
cli.add_typer(app, name="pool")
cli.command("init")(init)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    for provider in PROVIDERS:
        monkeypatch.delenv(str(provider.key_env), raising=False)


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def write_pool(folder: Path, *base_urls: str) -> Path:
    text = '[pool]\nname = "mine"\ndecomposer = "m0"\nallocator = "ladder"\n'
    for number, url in enumerate(base_urls):
        text += f'[endpoints.e{number}]\nbase_url = "{url}"\n'
        text += f'[[workers]]\nname = "m{number}"\nendpoint = "e{number}"\nmodel = "mock"\n'
        text += 'input_price = "1"\noutput_price = "2"\n' if number == 0 else ""
    file = folder / "mine.toml"
    file.write_text(text)
    return file


def test_show_lists_every_model_with_its_price_and_source() -> None:
    result = run("pool", "show", "--pool", "paper")
    assert result.exit_code == 0
    for text in ("Qwen2.5-0.5B-Instruct", "unknown", "pool file: OpenRouter", "genai-prices "):
        assert text in result.stdout


def test_show_as_json_is_one_document_with_exact_prices() -> None:
    shown = document(run("pool", "show", "--pool", "paper", "--json"))
    assert [w["price"] and w["price"]["input"] for w in shown["workers"]][:4] == [
        *(None, None, None, "0.10")
    ]
    assert (shown["decomposer"], shown["allocator"]) == ("gpt-4o", "ladder")


def test_names_in_a_pool_file_are_not_markup(tmp_path: Path) -> None:
    file = write_pool(tmp_path, "http://localhost:1/v1")
    file.write_text(file.read_text().replace("m0", "[red]m0[/red]"))
    assert "[red]m0[/red]" in run("pool", "show", "--pool", file).stdout


def test_a_mistake_in_the_pool_file_is_a_config_error(tmp_path: Path) -> None:
    file = write_pool(tmp_path, "http://localhost:1/v1")
    file.write_text(file.read_text().replace("input_price", "inputprice"))
    assert isinstance(run("pool", "show", "--pool", file).exception, ConfigError)


def test_check_calls_every_model_and_records_the_calls(tmp_path: Path) -> None:
    with serving(provider := MockProvider()) as url:
        result = run("pool", "check", "--pool", write_pool(tmp_path, url, url), "--json")
    assert result.exit_code == 0
    checked = document(result)
    assert checked["reachable"] is True
    assert [model["reachable"] for model in checked["models"]] == [True, True]
    assert all(model["latency_s"] > 0 for model in checked["models"])
    priced, unpriced = checked["models"]
    usage = provider.books[0].usage
    assert priced["cost_pico"] == (usage.input_tokens + 2 * usage.output_tokens) * 10**6
    assert (unpriced["cost_pico"], unpriced["price"]) == (None, None)
    ledger = Ledger.open()
    entries = ledger.entries()
    ledger.close_sync()
    assert sorted(entry.model for entry in entries) == ["m0", "m1"]
    assert {(entry.role, entry.outcome) for entry in entries} == {(Role.CHECK, CallOutcome.OK)}


def test_check_asks_what_models_can_do(tmp_path: Path) -> None:
    with serving(provider := MockProvider()) as url, closed_port() as closed:
        file = write_pool(tmp_path, url, closed)
        table = run("pool", "check", "--capabilities", "-p", file).stdout
        capped = ("--capabilities", "--max-cost", "0.02", "--json")
        checked = document(run("pool", "check", "-p", file, *capped))
    assert 'capabilities = ["n"]' in table
    reached, away = checked["models"]
    assert away["capabilities"] is None
    can = {name: found["can"] for name, found in reached["capabilities"].items()}
    assert can == {"tools": False, "images": None, "json": False, "n": True}
    assert "budget" in reached["capabilities"]["images"]["why"]
    assert len(provider.books) == 9


def test_check_tells_who_does_not_answer_and_exits_with_1(tmp_path: Path) -> None:
    with serving(MockProvider()) as url, closed_port() as closed:
        file = write_pool(tmp_path, url, closed)
        table, as_json = (
            run("pool", "check", "-p", file),
            run("pool", "check", "-p", file, "--json"),
        )
    assert (table.exit_code, as_json.exit_code) == (1, 1)
    assert "yes" in table.stdout
    checked = document(as_json)
    assert checked["reachable"] is False
    assert [model["reachable"] for model in checked["models"]] == [True, False]
    assert "connect" in checked["models"][1]["error"]


def test_check_names_a_key_that_is_not_set(tmp_path: Path) -> None:
    with serving(MockProvider()) as url:
        file = write_pool(tmp_path, url)
        file.write_text(
            file.read_text().replace("[[workers]]", 'key_env = "NOT_SET_X"\n[[workers]]')
        )
        checked = document(run("pool", "check", "-p", file, "--json"))
    assert "NOT_SET_X" in checked["models"][0]["error"]


def test_a_model_that_answers_without_text_is_reached(tmp_path: Path) -> None:
    with serving(MockProvider(answer=lambda _: "")) as url:
        result = run("pool", "check", "-p", write_pool(tmp_path, url), "--json")
    assert result.exit_code == 0
    assert document(result)["models"][0]["note"] == "answered without text"


def test_a_refused_key_is_not_reachable(tmp_path: Path) -> None:
    with serving(MockProvider(faults=lambda _: Fault.named("401"))) as url:
        result = run("pool", "check", "-p", write_pool(tmp_path, url), "--json")
    assert result.exit_code == 1
    assert "auth" in document(result)["models"][0]["error"]


def test_init_writes_a_pool_of_what_answers_that_check_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r2.toml"
    with serving(MockProvider(models=["qwen2.5-7b", "qwen2.5-0.5b"])) as url:
        result = run("init", "--out", out, "--local", url)
        assert result.exit_code == 0
        assert "qwen2.5-0.5b, qwen2.5-7b" in result.stdout
        assert f"wrote {out}" in result.stdout
        assert run("pool", "check", "-p", out).exit_code == 0
    assert [card.name for card in load_pool(out).workers] == ["qwen2.5-0.5b", "qwen2.5-7b"]


def test_init_takes_keys_by_name_and_never_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-4242")
    out = tmp_path / "r2.toml"
    with closed_port() as closed:
        result = run("init", "--out", out, "--local", closed, "--json")
    found = document(result)
    assert found["written"] == str(out)
    assert [source["key_env"] for source in found["found"]] == ["OPENAI_API_KEY"]
    assert "canary" not in result.output + out.read_text()
    assert all(card.price for card in load_pool(out).workers)


def test_init_with_nothing_at_hand_writes_the_nano_pool(tmp_path: Path) -> None:
    out = tmp_path / "r2.toml"
    with closed_port() as closed:
        text = run("init", "--out", out, "--local", closed)
        as_json = run("init", "--out", out, "--local", closed, "--json", "--force")
    assert (text.exit_code, as_json.exit_code) == (0, 0)
    assert "found no provider key and no model server" in text.stdout
    assert "OPENAI_API_KEY" in text.stdout
    assert document(as_json) == {"written": str(out), "found": []}
    pool, nano = load_pool(out), load_pool("nano")
    assert (pool.workers, pool.policies, pool.outcomes) == (
        nano.workers,
        nano.policies,
        nano.outcomes,
    )


def test_init_keeps_an_existing_file_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "r2.toml"
    out.write_text("mine")
    with serving(MockProvider()) as url:
        assert isinstance(run("init", "--out", out, "--local", url).exception, ConfigError)
        assert out.read_text() == "mine"
        assert run("init", "--out", out, "--local", url, "--force").exit_code == 0
    assert load_pool(out).workers


def test_init_asks_a_server_given_twice_once(tmp_path: Path) -> None:
    out = tmp_path / "r2.toml"
    with serving(MockProvider()) as url:
        again = url.replace("127.0.0.1", "localhost")
        assert run("init", "--out", out, "--local", url, "--local", again).exit_code == 0
    assert len(load_pool(out).workers) == 1


def test_init_never_probes_another_machine(tmp_path: Path) -> None:
    result = run("init", "--out", tmp_path / "r2.toml", "--local", "http://192.0.2.1:8000/v1")
    assert isinstance(result.exception, ConfigError)
    assert not (tmp_path / "r2.toml").exists()
