"""`pool add` against the fake provider: who is asked, what is written, and what it is good for."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import pools
import toy_pool
from r2reasoner.cli.app import app
from r2reasoner.errors import CallError, ConfigError, DataError
from r2reasoner.estimate import OutcomeModel
from r2reasoner.evaluation.spending import CapReached
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, Fault, MockProvider
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.pool.write import card_text, write_pool
from r2reasoner.types import Role

ITEMS = 10
CARD = """\
[[workers]]
name = "keen"
endpoint = "mock"
model = "keen"
input_price = 5
output_price = 5
max_tokens = 20
prompt = "plain"
"""


def answer(call: ChatCall) -> str:
    """`keen` shouts any one word, as `large` does, for a twentieth of its price."""
    if call.model == "keen":
        return call.last_user.upper() if " " not in call.last_user else "what"
    return toy_pool.answer(call)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[MockProvider]:
    """A toy pool that `calibrate` has measured, and the card of one more model."""
    items = [{"query": i.query, "answer": i.gold} for i in toy_pool.items(ITEMS)]
    Path("mine.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    Path("card.toml").write_text(CARD)
    provider = MockProvider(
        answer=answer, faults=lambda call: Fault.NOT_FOUND if call.model == "gone" else None
    )
    with pools.serving(provider) as url:
        measured = 'allocator = "calibrated"\noutcomes = "toy.npz"\n'
        text = toy_pool.pool_file(url).replace('allocator = "ladder"\n', measured)
        Path("toy.toml").write_text("# mine\n" + text)
        done = CliRunner().invoke(
            app, ["calibrate", "mine.jsonl", "--pool", "toy.toml", "--out", "toy.npz"]
        )
        assert done.exit_code == 0, done.output
        provider.books.clear()
        yield provider


def add(*more: str, count: int = 5) -> Result:
    asked = ["pool", "add", "card.toml", "--pool", "toy.toml", "--calibrate", str(count)]
    return CliRunner().invoke(app, [*asked, *more])


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def names(file: str) -> list[str]:
    return [card.name for card in load_pool(file).workers]


def asked(provider: MockProvider) -> set[str | None]:
    return {book.model for book in provider.books}


class TestRecorded:
    def test_only_the_newcomer_is_asked_and_it_stands_in_its_place(
        self, provider: MockProvider
    ) -> None:
        before = Path("toy.toml").read_bytes(), Path("toy.npz").read_bytes()
        done = document(add("--json", "--out", "ten.toml"))
        assert asked(provider) == {"keen"}
        assert (done["wanted"], done["subtasks"], done["failed"]) == (5, 5, 0)
        assert done["right"] == 1.0
        assert done["origin"] == "toy.references.jsonl"
        assert done["place"] == 1 + names("ten.toml").index("keen")
        assert names("ten.toml")[:2] == ["small", "middle"]
        assert (Path("toy.toml").read_bytes(), Path("toy.npz").read_bytes()) == before

    def test_the_allocator_uses_it(self, provider: MockProvider) -> None:
        add("--out", "ten.toml")
        for file, model in (("toy.toml", "large"), ("ten.toml", "keen")):
            told = CliRunner().invoke(
                app, ["ask", "--pool", file, "--trade-off", "0.5", "--json", "green and white"]
            )
            steps = document(told)["trace"]["steps"]
            assert {step["model"] for step in steps if step["model"]} == {model}

    def test_old_estimates_and_raw_outcomes_are_carried_on(self, provider: MockProvider) -> None:
        add("--out", "ten.toml")
        old, new = OutcomeModel.load(Path("toy.npz")), OutcomeModel.load(Path("ten-outcomes.npz"))
        assert set(new.models) == {*old.models, "keen"}
        assert new.outcomes == old.outcomes + 5
        raw = Path("ten-outcomes.jsonl").read_text()
        assert raw.startswith(Path("toy.jsonl").read_text())
        added = [json.loads(line) for line in raw.splitlines()][old.outcomes :]
        assert {row["model"] for row in added} == {"keen"}
        for text in ("red", "green"):
            p = new.p_right(text)
            assert {n: p[n] for n in old.models} == pytest.approx(old.p_right(text), abs=1e-3)

    def test_one_more_can_be_added_to_the_result(self, provider: MockProvider) -> None:
        add("--out", "ten.toml")
        Path("card.toml").write_text(CARD.replace('name = "keen"', 'name = "eager"'))
        done = document(add("--json", "--pool", "ten.toml", "--out", "eleven.toml"))
        assert done["origin"].endswith("ten-outcomes.references.jsonl")
        assert {*names("eleven.toml")} == {"small", "middle", "large", "keen", "eager"}
        assert {"keen", "eager"} <= set(OutcomeModel.load(Path("eleven-outcomes.npz")).models)

    def test_there_may_be_fewer_than_wanted(self, provider: MockProvider) -> None:
        done = document(add("--json", count=500))
        assert done["subtasks"] == len(set(toy_pool.WORDS) & self.words())
        assert len(provider.books) == done["subtasks"]
        said = add("--out", "again.toml", count=500).stdout
        assert "500 were wanted; toy.references.jsonl has no more" in said
        assert "take its estimate with care" in said

    def words(self) -> set[str]:
        return {word for item in toy_pool.items(ITEMS) for word in item.query.split(" and ")}

    def test_every_call_is_in_the_ledger_and_in_the_report(self, provider: MockProvider) -> None:
        with Ledger.open() as ledger:
            before = ledger.totals()
        done = document(add("--json"))
        with Ledger.open() as ledger:
            after, entries = ledger.totals(), ledger.entries()
        assert after.calls - before.calls == len(provider.books) == 5
        assert (after.cost or 0) - (before.cost or 0) == done["cost_pico"] == done["own_cost_pico"]
        assert {e.role for e in entries if e.model == "keen"} == {Role.CALIBRATION}

    def test_the_report_for_people_says_what_to_do_next(self, provider: MockProvider) -> None:
        done = add()
        assert done.exit_code == 0, done.output
        said = " ".join(done.stdout.split())
        assert "keen is right on 100.0% of 5 subtasks, for" in said
        assert "of 4, from the weakest" in said
        assert "wrote toy-keen.toml and toy-keen-outcomes.npz; now: r2reasoner ask --pool" in said
        assert Path("toy-keen.toml").exists()

    def test_a_pool_on_the_ladder_is_told_how_to_use_it(self, provider: MockProvider) -> None:
        file = Path("toy.toml")
        file.write_text(file.read_text().replace('"calibrated"', '"ladder"'))
        assert 'put allocator = "calibrated" in toy-keen.toml' in add().stdout

    def test_settings_are_carried(self, provider: MockProvider) -> None:
        with Path("toy.toml").open("a") as file:
            file.write("[router]\ntrade_off = 0.8\n")
        assert add("--out", "ten.toml").exit_code == 0
        assert "[router]\ntrade_off = 0.8\n" in Path("ten.toml").read_text()

    def test_the_pool_file_itself_may_be_replaced(self, provider: MockProvider) -> None:
        assert isinstance(add("--out", "toy.toml").exception, ConfigError)
        assert add("--out", "toy.toml", "--force").exit_code == 0
        assert "keen" in names("toy.toml")


class TestItems:
    def test_the_pool_solves_items_first(self, provider: MockProvider) -> None:
        done = document(add("--json", "--items", "mine.jsonl", "--scorer", "sequence"))
        assert asked(provider) == {"planner", "large", "keen"}
        assert done["origin"] == "mine.jsonl"
        assert done["cost_pico"] > done["own_cost_pico"] > 0
        kept = Path("toy-keen-outcomes.references.jsonl").read_text().splitlines()
        assert {json.loads(line)["scorer"] for line in kept} == {"sequence"}

    def test_a_store_pays_once_and_keeps_how_answers_were_judged(
        self, provider: MockProvider
    ) -> None:
        more = ("--json", "--items", "mine.jsonl", "--store", "kept")
        first = document(add(*more))
        paid = len(provider.books)
        again = document(add(*more, "--out", "again.toml"))
        assert len(provider.books) == paid
        assert again["cost_pico"] == 0
        assert (again["right"], again["place"]) == (first["right"], first["place"])
        with OutcomeStore.open("kept", create=False) as store:
            judged = [o for o in store.outcomes() if o.model == "keen"]
            answers = [store.get(o.key) for o in judged]
        assert [o.score for o in judged] == [1.0] * 5
        assert all(a is not None and a.model == "keen" for a in answers)

    def test_items_that_nobody_gets_right_are_an_error(self, provider: MockProvider) -> None:
        Path("hard.jsonl").write_text('{"query": "red and blue", "answer": "GREEN"}\n')
        done = add("--items", "hard.jsonl")
        assert isinstance(done.exception, DataError)
        assert "nothing to score keen on: no item of hard.jsonl" in str(done.exception)
        assert not Path("toy-keen.toml").exists()

    def test_without_recorded_subtasks_items_are_asked_for(self, provider: MockProvider) -> None:
        Path("toy.references.jsonl").unlink()
        done = add()
        assert isinstance(done.exception, ConfigError)
        assert "give items with --items" in str(done.exception)
        assert not provider.books


class TestMoney:
    def test_a_cap_keeps_what_is_paid_for(self, provider: MockProvider) -> None:
        document(add("--json", "--out", "whole.toml", count=6))
        with Ledger.open() as ledger:
            calls = [e for e in ledger.entries() if e.model == "keen"]
        cap = max(e.bound or 0 for e in calls) + 2 * max(e.cost or 0 for e in calls)
        done = document(add("--json", "--max-cost", f"{cap / 10**12:.12f}", count=6))
        assert "the cap of" in done["stopped"]
        assert 0 < done["subtasks"] < 6
        assert done["cost_pico"] <= cap
        assert "keen" in names("toy-keen.toml")

    def test_a_cap_below_the_first_call_writes_nothing(self, provider: MockProvider) -> None:
        done = add("--max-cost", "0.00000001")
        assert isinstance(done.exception, CapReached)
        assert not provider.books
        assert not list(Path().glob("toy-keen*"))

    def test_a_cap_needs_the_prices_of_who_is_asked(self, provider: MockProvider) -> None:
        for file in (Path("card.toml"), Path("toy.toml")):
            text = file.read_text()
            for dollars in (5, 10):
                priced = f"input_price = {dollars}\noutput_price = {dollars}\n"
                text = text.replace(priced, "")
            file.write_text(text)
        done = add("--max-cost", "1")
        assert isinstance(done.exception, ConfigError)
        assert "the price of keen is unknown" in str(done.exception)
        done = add("--max-cost", "1", "--items", "mine.jsonl")
        assert "the price of keen, middle is unknown" in str(done.exception)
        assert not provider.books
        free = document(add("--json"))
        assert (free["cost_pico"], free["own_cost_pico"]) == (None, None)


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        (["--max-cost", "0"], ConfigError, "--max-cost: expected dollars above 0"),
        (["--out", "ten.json"], ConfigError, "ends in .toml"),
        (["--out", "nowhere/ten.toml"], ConfigError, "there is no folder nowhere"),
        (["--out", "there.toml"], ConfigError, "there-outcomes.jsonl exists"),
        (["--items", "gone.jsonl"], DataError, "gone.jsonl: no such file"),
        (["--scorer", "number"], ConfigError, "belong to --items"),
        (["--pool", "nowhere.toml"], ConfigError, "nowhere.toml"),
        (["--store", "mine.jsonl"], ConfigError, "mine.jsonl"),
    ],
)
def test_bad_input_is_one_clear_error_before_any_call(
    provider: MockProvider, more: list[str], error: type[Exception], says: str
) -> None:
    Path("there-outcomes.jsonl").write_text("mine")
    done = add(*more)
    assert isinstance(done.exception, error)
    assert says in str(done.exception)
    assert not provider.books
    assert not list(Path().glob("*-keen*"))
    assert Path("there-outcomes.jsonl").read_text() == "mine"


def test_a_pool_that_nobody_measured_is_told_to_be(provider: MockProvider) -> None:
    Path("toy.npz").unlink()
    done = add()
    assert isinstance(done.exception, ConfigError)
    assert "run `r2reasoner calibrate ITEMS.jsonl` with this pool first" in str(done.exception)


def test_a_card_that_does_not_fit_is_named(provider: MockProvider) -> None:
    Path("card.toml").write_text(CARD.replace('"keen"', '"large"', 1))
    done = add()
    assert isinstance(done.exception, ConfigError)
    assert "card.toml: workers 1 (large): pool 'toy' has a model of that name" in str(
        done.exception
    )


def test_references_that_are_none_are_named(provider: MockProvider) -> None:
    file = Path("toy.references.jsonl")
    text = file.read_text()
    file.write_text(text.replace('"exact"', '"by eye"'))
    assert "no scorer 'by eye'" in str(add().exception)
    file.write_text(text + "{}\n")
    assert "toy.references.jsonl:" in str(add().exception)
    assert not provider.books


def test_a_model_that_cannot_be_reached_ends_it_at_once(provider: MockProvider) -> None:
    Path("card.toml").write_text(CARD.replace('model = "keen"', 'model = "gone"'))
    done = add()
    assert isinstance(done.exception, CallError)
    assert "keen" in str(done.exception)
    assert not list(Path().glob("toy-keen*"))


def test_ctrl_c_keeps_what_was_measured(provider: MockProvider) -> None:
    # the first item's subtasks are answered, what comes then hangs
    provider.latency_s = lambda call: 60.0 if len(provider.books) >= 3 else 0.0
    command = [sys.executable, "-c", "from r2reasoner.cli.app import main; main()"]
    command += ["pool", "add", "card.toml", "--pool", "toy.toml", "--calibrate", "5"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    while len(provider.books) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.2)  # the answers reach the command
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "what was measured until then is in toy-keen.toml" in said
    assert "Traceback" not in said
    assert "keen" in names("toy-keen.toml")


def test_a_nano_pool_makes_its_own_items(nano: Pool) -> None:
    left_out = nano.workers[-2]
    others = tuple(card for card in nano.workers if card is not left_out)
    write_pool(replace(nano, workers=others), Path("eight.toml"))
    Path("card.toml").write_text(card_text(left_out))
    arguments = ["pool", "add", "card.toml", "--pool", "eight.toml", "--calibrate", "8", "--json"]
    done = document(CliRunner().invoke(app, arguments))
    assert done["origin"] == "the nano items made here"
    assert done["subtasks"] == 8
    assert 0.5 < done["right"] <= 1.0
    added = load_pool("eight-96x3.toml")
    assert sorted(card.name for card in added.workers) == sorted(c.name for c in nano.workers)
    assert done["place"] > 5  # a large one, whatever the luck of eight subtasks
    again = ["ask", "--pool", "eight-96x3.toml", "--json", "( 12 + 34 ) * 5 - 7"]
    assert document(CliRunner().invoke(app, again))["trace"]["answer"]["text"] == "223"
