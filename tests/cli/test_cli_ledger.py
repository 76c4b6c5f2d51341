import asyncio
import csv
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from r2reasoner.budget import Meter
from r2reasoner.cli.ledger import app, exact, foreign
from r2reasoner.errors import ConfigError
from r2reasoner.ledger import Ledger
from r2reasoner.pool.cards import Card, Endpoint, Price, Tier
from r2reasoner.types import CallOutcome, Role, Usage

PRICE = Price(
    Decimal("0.15"),
    Decimal("0.60"),
    None,
    "pool file",
    (Tier(200_000, Decimal("0.3"), Decimal(1)),),
)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def fill(path: Path, model: str = "small") -> None:
    endpoint = Endpoint(name="here", kind="openai")
    priced = Card(name=model, endpoint=endpoint, model="m", price=PRICE)
    unpriced = Card(name="local", endpoint=endpoint, model="l", price=None)

    async def calls() -> None:
        async with Ledger.open(path) as ledger:
            for query_id in ("q1", "q2"):
                meter = Meter(ledger, query_id)
                for number, (card, outcome) in enumerate(
                    [
                        (priced, CallOutcome.OK),
                        (priced, CallOutcome.FAILED),
                        (unpriced, CallOutcome.OK),
                        (priced, CallOutcome.UNKNOWN),
                    ],
                    1,
                ):
                    call = await meter.open(
                        card,
                        Usage(1000, 500),
                        role=Role.WORKER,
                        subtask=number,
                        attempt=1,
                        note=None,
                    )
                    failed = outcome is CallOutcome.FAILED
                    meter.settle(
                        call,
                        outcome,
                        usage=Usage(400, 100),
                        latency_s=1.25,
                        error="\x1b[31mthe [bold]provider[/x] answered 500" if failed else None,
                    )

    asyncio.run(calls())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    fill(path)
    return path


class TestShow:
    def test_a_table_and_sums(self, path: Path) -> None:
        lines = run("show", "--db", path).stdout.splitlines()
        assert lines[0].split() == [
            "time", "role", "model", "subtask", "try", "outcome", "in", "out", "cost", "s",
            "remark",
        ]  # fmt: skip
        rows = [line.split() for line in lines if "worker" in line]
        assert [row[2:10] for row in rows[:4]] == [
            ["worker", "small", "1", "1", "ok", "400", "100", "120.00"],
            ["worker", "small", "2", "1", "failed", "0", "0", "$0.0000"],
            ["worker", "local", "3", "1", "ok", "400", "100", "unknown"],
            ["worker", "small", "4", "1", "unknown", "1,000", "500", "450.00"],
        ]
        assert rows[0][0] == time.strftime("%Y-%m-%d")
        assert lines[-1] == (
            "8 calls, 2 failed, 2 unknown; 3,600 tokens in, 1,400 out; "
            "1,140.00 µ$ and 2 calls of unknown price"
        )

    def test_foreign_text_neither_colours_nor_breaks_the_terminal(self, path: Path) -> None:
        said = run("show", "--db", path).stdout
        assert "\x1b" not in said
        assert "\ufffd[31mthe [bold]provider[/x] answered 500" in said

    def test_one_query_and_a_limit(self, path: Path) -> None:
        said = run("show", "--db", path, "--query", "q2", "--limit", 3).stdout
        assert said.count("worker") == 3
        assert "the newest 3 of 4 calls; more with --limit" in said
        assert "4 calls, 1 failed, 1 unknown;" in said

    def test_json(self, path: Path) -> None:
        shown = document("show", "--db", path, "--query", "q1")
        assert [entry["subtask"] for entry in shown["entries"]] == [1, 2, 3, 4]
        first, _, third, _ = shown["entries"]
        assert (first["cost_pico"], first["cost_dollars"]) == (120_000_000, "0.00012")
        assert (first["bound_pico"], first["latency_s"]) == (450_000_000, 1.25)
        assert first["rate_tiers"] == [[200_000, "0.3", "1", None]]
        assert (first["input_rate"], first["price_source"]) == ("0.15", "pool file")
        assert third["cost_pico"] is third["cost_dollars"] is third["input_rate"] is None
        assert shown["totals"] == {
            "calls": 4,
            "open": 0,
            "failed": 1,
            "unknown": 1,
            "unpriced": 1,
            "input_tokens": 1800,
            "output_tokens": 700,
            "cost_pico": 570_000_000,
            "cost_dollars": "0.00057",
        }

    def test_an_empty_ledger(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.db"
        Ledger.open(path).close_sync()
        assert run("show", "--db", path).stdout.endswith(
            "0 calls; 0 tokens in, 0 out; $0.0000\n"
        )  # fmt: skip
        assert document("show", "--db", path)["entries"] == []

    def test_a_ledger_that_is_not_there_is_not_made(self, tmp_path: Path) -> None:
        path = tmp_path / "none.db"
        with pytest.raises(ConfigError, match=r"no ledger at .*none\.db: nothing was asked yet"):
            run("show", "--db", path)
        assert not path.exists()

    def test_the_usual_ledger(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("R2REASONER_HOME", str(tmp_path))
        fill(tmp_path / "r2reasoner.db")
        assert document("show")["totals"]["calls"] == 8

    def test_showing_changes_nothing(self, path: Path) -> None:
        before = path.read_bytes()
        run("show", "--db", path)
        assert path.read_bytes() == before


class TestExport:
    def test_lines_of_json(self, path: Path, tmp_path: Path) -> None:
        out = tmp_path / "calls.jsonl"
        said = document("export", "--db", path, "--out", out)
        assert said == {"out": str(out), "format": "jsonl", "entries": 8}
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert rows == document("show", "--db", path)["entries"]

    def test_a_table_for_spreadsheets(self, path: Path, tmp_path: Path) -> None:
        out = tmp_path / "calls.csv"
        assert run("export", "--db", path, "--query", "q1", "--out", out).stdout == (
            f"{out}: 4 entries\n"
        )
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        shown = document("show", "--db", path, "--query", "q1")["entries"]
        assert [row["id"] for row in rows] == [entry["id"] for entry in shown]
        assert rows[1]["error"] == shown[1]["error"]
        assert [row["cost_pico"] for row in rows] == ["120000000", "0", "", "450000000"]

    def test_the_format_may_be_said(self, path: Path, tmp_path: Path) -> None:
        out = tmp_path / "calls.txt"
        run("export", "--db", path, "--out", out, "--format", "csv")
        assert out.read_text().startswith("id,query_id,role,model,")

    def test_a_place_that_cannot_be_written(self, path: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be written: No such file"):
            run("export", "--db", path, "--out", tmp_path / "none" / "x.csv")
        with pytest.raises(ConfigError, match="cannot be written"):
            run("export", "--db", path, "--out", tmp_path)
        assert [found.name for found in tmp_path.iterdir()] == ["ledger.db"]


def test_small_things() -> None:
    assert exact(1) == "0.000000000001"
    assert exact(None) is None
    assert foreign("a\tb\nc\x9bd\u202ee").plain == "a\tb\nc\ufffdd\ufffde"
