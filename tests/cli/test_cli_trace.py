import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from r2reasoner.cli.trace import app
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.ledger import Ledger
from r2reasoner.types import (
    Allocation,
    Answer,
    AnswerStatus,
    Call,
    CallOutcome,
    Choice,
    Plan,
    Query,
    Role,
    Step,
    Subtask,
    Trace,
    Usage,
)

CALL = Call(
    id="c1",
    role=Role.WORKER,
    model="small",
    subtask=1,
    attempt=2,
    outcome=CallOutcome.OK,
    usage=Usage(40, 10),
    cost=12_000_000,
    bound=20_000_000,
    started_at=1_700_000_000.0,
    latency_s=0.5,
    ttft_s=None,
    finish_reason="length",
    error=None,
    note="second try",
)
GOOD = Trace(
    id="aa01",
    query=Query("walk left twice\nand then look", "q1"),
    pool="nano",
    trade_off=0.3,
    plan=Plan((Subtask("walk left"), Subtask("look"), Subtask("#1 #1 #2")), "#3"),
    plan_notes=("the plan was repaired once",),
    plan_failed=False,
    allocation=Allocation(
        (Choice("small", "cheapest that is right", 0.9), Choice("large", "the only one"), None),
        "outcomes",
        True,
    ),
    steps=(
        Step(1, "small", "walk left", "TURN_LEFT WALK", None, 0.1, 0.35, ("tiny",)),
        Step(2, "large", "look", None, "the provider answered 500", 0.1, 0.6),
    ),
    answer=Answer("TURN_LEFT WALK", AnswerStatus.PARTIAL, "subtask 2 failed"),
    calls=(CALL,),
    started_at=1_700_000_000.0,
    wall_s=0.75,
)
ODD = replace(
    GOOD,
    id="ab02",
    query=Query("\x1b]0;owned\x07 [bold]look[/nothing]", "q2"),
    plan_failed=True,
    allocation=Allocation((), "ladder", False),
    steps=(),
    calls=(replace(CALL, cost=None),),
    started_at=1_700_000_100.0,
)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def save(path: Path, *traces: Trace) -> None:
    with Ledger.open(path) as ledger:
        for trace in traces:
            ledger.save_trace(trace)
        asyncio.run(ledger.flush())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    save(path, GOOD, ODD)
    return path


def test_the_list(path: Path) -> None:
    lines = [line.split() for line in run("list", "--db", path).stdout.splitlines() if line]
    assert lines[0] == ["time", "id", "pool", "status", "cost", "s", "query"]
    newest, oldest = lines[-2:]
    assert newest[2:7] == ["ab02", "nano", "partial", "unknown", "0.75"]
    assert oldest[2:8] == ["aa01", "nano", "partial", "12.00", "µ$", "0.75"]
    assert " ".join(oldest[8:]) == "walk left twice and then look"


def test_the_list_as_json(path: Path) -> None:
    (newest,) = document("list", "--db", path, "--limit", 1)["traces"]
    assert (newest["id"], newest["cost_pico"], newest["cost_dollars"]) == ("ab02", None, None)
    oldest = document("list", "--db", path)["traces"][1]
    assert (oldest["cost_pico"], oldest["cost_dollars"]) == (12_000_000, "0.000012")
    assert oldest["query"] == GOOD.query.text


def test_one_trace_by_the_beginning_of_its_id(path: Path) -> None:
    said = run("show", "aa", "--db", path).stdout
    inside = [line.lstrip("│├└─ ").rstrip() for line in said.splitlines()]
    assert inside[:2] == ["walk left twice", "and then look"]
    assert inside[2].startswith("aa01: 20")
    assert inside[2].endswith("pool nano, trade-off 0.3, 0.75 s, 12.00 µ$")
    assert inside[3:] == [
        "plan: 3 subtasks, answer #3; allocator outcomes",
        "note: the plan was repaired once",
        "1. walk left",
        "allocated to small: cheapest that is right",
        "fell back from tiny",
        "= TURN_LEFT WALK (small, 0.25 s)",
        "2. look",
        "allocated to large: the only one",
        "failed: the provider answered 500 (large, 0.50 s)",
        "3. #1 #1 #2",
        "not run",
        "answer: partial (subtask 2 failed)",
        "TURN_LEFT WALK",
        "calls: 1",
        "worker of subtask 1, small, try 2: ok, 40 tokens in, 10 out, 12.00 µ$, 0.50 s"
        " (length; second try)",
    ]


def test_the_newest_trace_whatever_it_holds(path: Path) -> None:
    said = run("show", "--db", path).stdout
    assert "ab02" in said
    assert "\x1b" not in said
    assert "\ufffd]0;owned\ufffd [bold]look[/nothing]" in said
    assert "no valid plan was made; allocator ladder, uncalibrated" in said


def test_one_trace_as_json(path: Path) -> None:
    shown = document("show", "aa01", "--db", path)
    assert shown["query"]["text"] == GOOD.query.text
    assert shown["calls"][0]["usage"]["input_tokens"] == 40
    assert shown["plan"]["subtasks"][2]["text"] == "#1 #1 #2"
    assert document("show", "--db", path)["id"] == "ab02"


def test_ids_that_are_wrong(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trace 'zz'"):
        run("show", "zz", "--db", path)
    with pytest.raises(DataError, match="several traces begin with 'a': aa01, ab02"):
        run("show", "a", "--db", path, "--json")
    with pytest.raises(ConfigError, match="no ledger at"):
        run("list", "--db", tmp_path / "none.db")


def test_no_traces_yet(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    save(path)
    assert run("list", "--db", path).stdout == "no traces yet\n"
    assert document("list", "--db", path) == {"traces": []}
    with pytest.raises(DataError, match="no traces yet"):
        run("show", "--db", path)


def test_export(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "traces.jsonl"
    assert document("export", "--db", path, "--out", out) == {"out": str(out), "traces": 2}
    lines = out.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["aa01", "ab02"]
    assert json.loads(lines[0]) == document("show", "aa01", "--db", path)
    assert run("export", "--db", path, "--out", out).stdout == f"{out}: 2 traces\n"
