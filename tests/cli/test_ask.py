"""`r2reasoner ask` as a user meets it: answers, bills, errors, exit codes, Ctrl-C."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pools import answers, plan_json, pool_file, serving
from r2reasoner.cli.app import main
from r2reasoner.ledger import Ledger
from r2reasoner.mock import Fault, MockProvider, closed_port
from r2reasoner.pool.cards import Pool
from r2reasoner.types import CallOutcome

QUERY = "what is 12 + 34 * 5"
PLANNER = plan_json("34 * 5", ("12 + #1", [1]))
RUN = "from r2reasoner.cli.app import main; main()"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


R2 = Callable[..., Ended]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("R2REASONER_HOME", str(home))
    monkeypatch.delenv("R2REASONER_POOL", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return home


@pytest.fixture
def r2(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> R2:
    """Run the command line in this process, and check what holds for every way to end."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["r2reasoner", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        code = end.value.code or 0
        assert isinstance(code, int)
        assert "Traceback" not in out + err
        if home.exists():
            with Ledger.open(home / "r2reasoner.db") as ledger:
                assert all(e.outcome is not CallOutcome.OPEN for e in ledger.entries())
        return Ended(code, out, err)

    return run


class TestAnswers:
    def test_tree_answer_and_bill(self, r2: R2, tmp_path: Path) -> None:
        with serving(MockProvider(answer=answers(PLANNER))) as base_url:
            done = r2("ask", QUERY, "--pool", pool_file(tmp_path, base_url))
        assert done.code == 0
        assert done.err == ""
        lines = done.out.splitlines()
        assert lines[0] == QUERY
        assert "2 subtasks · plan by planner, 1 call" in done.out
        assert "#1 34 * 5  medium  → <34 * 5>" in done.out
        assert "answer  <12 + #1>" in lines
        for role in ("decomposer", "worker", "final", "total"):
            assert any(line.startswith(role) for line in lines)
        assert "large alone: about " in done.out
        assert "uncalibrated" in done.out
        identifier = lines[-1].split()[1]
        shown = r2("trace", "show", identifier, "--json")
        assert shown.document["answer"]["text"] == "<12 + #1>"

    def test_json_is_one_document_with_trace_and_bill(
        self, r2: R2, tmp_path: Path, home: Path
    ) -> None:
        provider = MockProvider(answer=answers(PLANNER))
        with serving(provider) as base_url:
            done = r2("ask", QUERY, "--pool", pool_file(tmp_path, base_url), "--json")
        assert (done.code, done.err) == (0, "")
        trace, bill = done.document["trace"], done.document["bill"]
        assert trace["answer"] == {"text": "<12 + #1>", "status": "complete", "note": None}
        assert bill["total"] == sum(call["cost"] for call in trace["calls"])
        with Ledger.open(home / "r2reasoner.db") as ledger:
            totals = ledger.totals(query_id=trace["id"])
        assert (totals.calls, totals.cost) == (len(provider.books), bill["total"])
        assert totals.input_tokens == sum(b.input_tokens for b in provider.books)

    def test_options_reach_the_router(self, r2: R2, tmp_path: Path) -> None:
        with serving(MockProvider(answer=answers(PLANNER))) as base_url:
            pool = pool_file(tmp_path, base_url)
            options = ["--trade-off", "1", "--max-cost", "0.5", "--deadline", "20", "--json"]
            trace = r2("ask", QUERY, "-p", pool, *options).document["trace"]
            direct = r2("ask", QUERY, "-p", pool, "--direct", "--json").document["trace"]
        assert trace["settings"]["trade_off"] == 1
        assert trace["settings"]["max_cost"] == "0.5"
        assert trace["settings"]["deadline_s"] == 20
        assert [c["model"] for c in trace["allocation"]["choices"]] == ["small", "small"]
        assert [c["role"] for c in direct["calls"]] == ["worker"]

    def test_the_query_from_standard_input(self, r2: R2, tmp_path: Path) -> None:
        with serving(MockProvider()) as base_url:
            pool = pool_file(tmp_path, base_url)
            done = r2("ask", "-", "-p", pool, "--direct", "--json", stdin="wie groß?\n".encode())
        assert done.document["trace"]["query"]["text"] == "wie groß?"
        assert done.document["trace"]["answer"]["text"] == "wie groß?"

    def test_a_long_answer_is_not_broken_into_lines_when_piped(
        self, r2: R2, tmp_path: Path
    ) -> None:
        long = "word " * 49 + "end"
        with serving(MockProvider(answer=lambda call: long)) as base_url:
            done = r2("ask", QUERY, "-p", pool_file(tmp_path, base_url), "--direct")
        assert f"answer  {long}" in done.out.splitlines()

    def test_an_answer_commands_no_terminal(self, r2: R2, tmp_path: Path) -> None:
        hostile = "\x1b]0;owned\x07\x1b[2Jred [bold]not markup[/] \u202e\x9b31m"
        planner = plan_json("a [red]b[/]", "c")
        with serving(MockProvider(answer=answers(planner, lambda call: hostile))) as base_url:
            done = r2("ask", "q [blink]x[/] \x1b[31m", "-p", pool_file(tmp_path, base_url))
        assert done.code == 0
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(done.out)
        assert "[bold]not markup[/]" in done.out
        assert "[red]b[/]" in done.out

    def test_a_fall_back_is_shown(self, r2: R2, tmp_path: Path) -> None:
        provider = MockProvider(
            answer=answers("no plan"),
            faults=lambda call: Fault.NOT_FOUND if call.model == "medium" else None,
        )
        with serving(provider) as base_url:
            done = r2("ask", "hello", "-p", pool_file(tmp_path, base_url), "-t", "0.5")
        assert done.code == 0
        assert "fell back medium → large" in done.out
        assert "answered directly" in done.out

    def test_the_shipped_pool_needs_nothing(self, nano: Pool, r2: R2) -> None:
        done = r2("ask", "( 12 + 34 ) * 5 - 7", "--json")
        assert done.code == 0
        assert done.document["trace"]["allocation"]["calibrated"] is True
        assert len(done.document["trace"]["plan"]["subtasks"]) >= 2
        assert done.document["bill"]["total"] > 0


def error_of(done: Ended) -> str:
    assert done.code == 1
    assert done.out.strip() == ""
    assert done.err.startswith("error: ")
    return done.err


class TestMistakes:
    @pytest.mark.parametrize("query", ["", "  ", "\n"])
    def test_an_empty_query(self, r2: R2, tmp_path: Path, query: str) -> None:
        pool = pool_file(tmp_path, "http://127.0.0.1:9/v1")
        assert "the query is empty" in error_of(r2("ask", query, "-p", pool))
        assert "the query is empty" in error_of(r2("ask", "-", "-p", pool))

    def test_an_enormous_query(self, r2: R2, tmp_path: Path) -> None:
        pool = pool_file(tmp_path, "http://127.0.0.1:9/v1")
        done = r2("ask", "-", "-p", pool, stdin=b"x" * 2_000_000)
        assert "bytes; at most 262,144 are taken" in error_of(done)
        assert len(done.err) < 300

    def test_what_is_no_text(self, r2: R2, tmp_path: Path) -> None:
        pool = pool_file(tmp_path, "http://127.0.0.1:9/v1")
        assert "expected UTF-8" in error_of(r2("ask", "-", "-p", pool, stdin=b"caf\xe9"))
        assert "expected UTF-8" in error_of(r2("ask", os.fsdecode(b"caf\xe9"), "-p", pool))

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("--max-cost", "0", "dollars above 0"),
            ("--max-cost", "-1", "dollars above 0"),
            ("--max-cost", "nan", "dollars above 0"),
            ("--max-cost", "lots", "dollars above 0"),
            ("--trade-off", "1.5", "from 0 (quality only) to 1"),
            ("--deadline", "0", "seconds above 0"),
            ("--pool", "nanno", "did you mean 'nano'"),
            ("--pool", "/no/such/file.toml", "no pool"),
        ],
    )
    def test_a_wrong_option(self, nano: Pool, r2: R2, option: str, value: str, said: str) -> None:
        message = error_of(r2("ask", "1 + 2", option, value))
        assert said in message
        assert value in message

    def test_an_option_of_the_wrong_type_is_a_usage_error(self, r2: R2) -> None:
        done = r2("ask", "1 + 2", "--deadline", "soon")
        assert done.code == 2
        assert "--deadline" in done.err

    @pytest.mark.parametrize(
        ("before", "after", "said"),
        [
            ("[[workers]]", "[[wokers]]", "did you mean 'workers'"),
            ("base_url", "base_uri", "did you mean 'base_url'"),
            ('model = "small"', 'modell = "small"', "did you mean 'model'"),
            ('decomposer = "planner"', 'decomposer = "planer"', "did you mean 'planner'"),
            ('model = "small"', 'model = "small"\napi_key = "sk-secret"', "environment variable"),
            ("[pool]", "[pool", "not valid TOML"),
        ],
    )
    def test_a_wrong_pool_file(
        self, r2: R2, tmp_path: Path, before: str, after: str, said: str
    ) -> None:
        file = pool_file(tmp_path, "http://127.0.0.1:9/v1")
        file.write_text(file.read_text().replace(before, after, 1))
        message = error_of(r2("ask", QUERY, "-p", file))
        assert said in message
        assert str(file) in message
        assert "sk-secret" not in message

    def test_a_missing_key(self, r2: R2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("R2_TEST_KEY", raising=False)
        pool = pool_file(tmp_path, "http://127.0.0.1:9/v1", key_env="R2_TEST_KEY")
        done = r2("ask", QUERY, "-p", pool, "--json")
        assert done.code == 1
        assert done.document["error"]["type"] == "ConfigError"
        assert "R2_TEST_KEY" in done.document["error"]["message"]

    def test_an_endpoint_that_cannot_be_reached(self, r2: R2, tmp_path: Path) -> None:
        with closed_port() as base_url:
            pool = pool_file(tmp_path, base_url)
            done = r2("ask", QUERY, "-p", pool, "--direct", "--json")
        assert done.code == 1
        answer = done.document["trace"]["answer"]
        assert answer["status"] == "failed"
        assert "connect" in answer["note"]
        assert done.document["bill"]["total"] == 0

    def test_models_that_always_fail(self, r2: R2, tmp_path: Path) -> None:
        provider = MockProvider(faults=lambda call: Fault.FORBIDDEN)
        with serving(provider) as base_url:
            done = r2("ask", QUERY, "-p", pool_file(tmp_path, base_url))
        assert done.code == 1
        assert "no answer:" in done.out
        assert "403" in done.out
        assert "less with the router billed" not in done.out

    def test_a_cap_below_the_cheapest_call(self, nano: Pool, r2: R2) -> None:
        done = r2("ask", "12 + 2 * 3", "--max-cost", "0.000000001", "--json")
        assert done.code == 1
        answer = done.document["trace"]["answer"]
        assert answer["status"] == "failed"
        assert "$0.000000001" in answer["note"]
        assert done.document["trace"]["calls"] == []

    def test_words_that_the_nano_pool_lacks(self, nano: Pool, r2: R2) -> None:
        done = r2("ask", "what is the capital of France?")
        assert (done.code, done.out.strip()) == (1, "")
        message = done.err
        assert "'France'" in message
        assert 'r2reasoner ask "( 12 + 34 ) * 5 - 7"' in message
        assert "r2reasoner init" in message
        done = r2("ask", "what is the capital of France?", "--json")
        assert done.code == 1
        assert done.document["error"]["type"] == "UnknownWords"

    def test_a_ledger_that_cannot_be_opened(self, nano: Pool, r2: R2, tmp_path: Path) -> None:
        file = tmp_path / "no.db"
        file.write_text("this is no ledger")
        assert str(file) in error_of(r2("ask", "1 + 2", "--db", file))

    def test_no_query_at_all_is_a_usage_error(self, r2: R2) -> None:
        done = r2("ask")
        assert done.code == 2
        assert "query" in done.err


class TestInterrupt:
    @pytest.mark.parametrize("as_json", [[], ["--json"]])
    def test_ctrl_c_ends_it_with_every_call_settled(
        self, tmp_path: Path, home: Path, as_json: list[str]
    ) -> None:
        def fault(call: Any) -> Fault | None:
            return None if call.role == "decomposer" else Fault.STALL_BEFORE_HEADERS

        provider = MockProvider(answer=answers(plan_json("a", "b", answer="#1 #2")), faults=fault)
        with serving(provider) as base_url:
            command = [sys.executable, "-c", RUN, "ask", QUERY, "-p"]
            command += [str(pool_file(tmp_path, base_url)), *as_json]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                give_up = time.monotonic() + 60
                while len(provider.books) < 3 and time.monotonic() < give_up:
                    time.sleep(0.02)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err == "interrupted; what was recorded is kept\n"
        assert "Traceback" not in out
        with Ledger.open(home / "r2reasoner.db") as ledger:
            outcomes = sorted(e.outcome for e in ledger.entries())
        assert outcomes == [CallOutcome.OK, CallOutcome.UNKNOWN, CallOutcome.UNKNOWN]

    def test_the_command_as_a_process_of_its_own(self, tmp_path: Path, home: Path) -> None:
        with serving(MockProvider()) as base_url:
            command = [sys.executable, "-c", RUN, "ask", "hi", "--direct", "-p"]
            done = subprocess.run(
                [*command, str(pool_file(tmp_path, base_url))],
                capture_output=True,
                text=True,
                check=False,
            )
        assert (done.returncode, done.stderr) == (0, "")
        assert "answer  hi" in done.stdout.splitlines()
