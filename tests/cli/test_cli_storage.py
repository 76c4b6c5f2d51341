"""Commands over a ledger of either kind: named by --db or by the environment, kept up, exported."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ledger_samples import closing, entry, trace
from pools import answers, plan_json, pool_file, serving
from r2reasoner import schema
from r2reasoner.cli.app import app
from r2reasoner.database import Database
from r2reasoner.errors import ConfigError, LedgerError
from r2reasoner.ledger import Ledger, id_at, new_id
from r2reasoner.mock import MockProvider


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def id_of(day: str) -> str:
    """Return an id made at noon of a day (UTC)."""
    from datetime import datetime

    return id_at(datetime.fromisoformat(f"{day}T12:00+00:00").timestamp()) + new_id()[13:]


def fill(where: str, *days: str) -> None:
    """Record a call and a trace on each day."""

    async def calls(ledger: Ledger) -> None:
        for day in days:
            opened = entry(id=id_of(day))
            await ledger.begin(opened)
            ledger.finish(closing(opened))
            ledger.save_trace(trace(id=id_of(day)))
        await ledger.flush()

    with Ledger.open(where) as ledger:
        asyncio.run(calls(ledger))


@pytest.fixture
def named(db: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A database that the environment names, with no other in reach."""
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("R2REASONER_DB", db)
    yield db
    assert not (tmp_path / "none").exists()


class TestNaming:
    def test_every_command_takes_a_url(self, db: str, tmp_path: Path) -> None:
        provider = MockProvider(answer=answers(plan_json("34 * 5", ("12 + #1", [1]))))
        with serving(provider) as base_url:
            pool = pool_file(tmp_path, base_url)
            asked = document("ask", "12 + 34 * 5", "--pool", pool, "--db", db)
        with pytest.raises(ConfigError, match="there is no key"):
            run("serve", "--host", "0.0.0.0", "--pool", pool, "--db", db)
        made = document("key", "create", "one", "--db", db)
        assert [key["name"] for key in document("key", "list", "--db", db)] == ["one"]
        assert document("key", "revoke", made["id"], "--db", db)["revoked"]
        calls = document("ledger", "show", "--db", db)
        assert len(calls["entries"]) == len(asked["trace"]["calls"]) > 0
        (listed,) = document("trace", "list", "--db", db)["traces"]
        assert document("trace", "show", listed["id"], "--db", db)["id"] == listed["id"]
        assert document("ledger", "prune", "--older-than", "1d", "--db", db)["calls"] == 0
        assert document("ledger", "migrate", "--db", db)["before"] == schema.HEAD

    def test_the_environment_does(self, named: str) -> None:
        fill(named, "2026-01-01")
        assert len(document("ledger", "show")["entries"]) == 1
        assert len(document("trace", "list")["traces"]) == 1
        document("key", "create", "one")
        assert [key["name"] for key in document("key", "list")] == ["one"]
        run("ledger", "migrate")


class TestExport:
    def test_days(self, db: str, tmp_path: Path) -> None:
        days = ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")
        fill(db, *days)
        for flags, count in [
            ((), 4),
            (("--since", "2026-01-02"), 3),
            (("--until", "2026-01-03"), 3),
            (("--since", "2026-01-02", "--until", "2026-01-02"), 1),
            (("--since", "2027-01-01"), 0),
        ]:
            out = tmp_path / "out.jsonl"
            for kind, name in (("ledger", "entries"), ("trace", "traces")):
                said = document(kind, "export", "--out", out, "--db", db, *flags)
                assert said[name] == count
                lines = [json.loads(line) for line in out.read_text().splitlines()]
                assert len(lines) == count
                assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--since", "yesterday"), "--since: expected a day, like 2026-11-30, got 'yesterday'"),
            (("--until", "2026-13-01"), "--until: expected a day"),
            (("--since", "2026-01-02", "--until", "2026-01-01"), "is after --until"),
        ],
    )
    def test_what_are_no_days(self, tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
        for kind in ("ledger", "trace"):
            with pytest.raises(ConfigError, match=said):
                run(kind, "export", "--out", tmp_path / "x", "--db", tmp_path / "l.db", *flags)


class TestPruning:
    def test_said_before_and_done(self, db: str) -> None:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        fill(db, "2020-01-01", "2020-01-02", today)
        before = document("ledger", "show", "--db", db)["totals"]
        old = ("ledger", "prune", "--older-than", "30d", "--db", db)
        said = document(*old, "--dry-run")
        assert (said["traces"], said["calls"], said["dry_run"]) == (2, 2, True)
        assert "2 traces and 2 calls from before 20" in run(*old, "--dry-run").stdout
        assert document(*old, "--traces-only")["traces"] == 2
        assert run(*old).stdout.endswith("removed\n")
        after = document("ledger", "show", "--db", db)
        assert after["totals"] == before
        assert len(after["entries"]) == 1
        assert "more with --limit" not in run("ledger", "show", "--db", db).stdout

    @pytest.mark.parametrize("days", ["0d", "-1d", "90", "d", "1.5d", "9999999d", "1h", "٣d"])
    def test_what_are_no_days(self, tmp_path: Path, days: str) -> None:
        fill(str(tmp_path / "l.db"))
        prune = ("ledger", "prune", f"--older-than={days}", "--db", tmp_path / "l.db")
        if days == "90":
            assert document(*prune)["calls"] == 0
            return
        with pytest.raises(ConfigError, match="--older-than: expected days, like 90d"):
            run(*prune)


class TestMigrating:
    def test_an_older_one(self, db: str) -> None:
        database = Database(db, busy_timeout_s=5)
        database.write(lambda connection: schema._upgrade(connection, schema.FIRST))
        database.close()
        with pytest.raises(LedgerError, match="r2reasoner ledger migrate"):
            run("key", "list", "--db", db)
        assert run("ledger", "migrate", "--db", db).stdout == "revision 0001 became 0002\n"
        assert run("ledger", "migrate", "--db", db).stdout == "up to date (revision 0002)\n"
        assert document("key", "list", "--db", db) == []

    def test_none_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no ledger at"):
            run("ledger", "migrate", "--db", tmp_path / "none.db")
        assert list(tmp_path.iterdir()) == []
