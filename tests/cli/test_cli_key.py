"""`r2reasoner key`: made, shown once, listed, revoked."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r2reasoner.cli.app import app
from r2reasoner.errors import ConfigError


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["key", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.fixture
def db(tmp_path: Path) -> list[str]:
    return ["--db", str(tmp_path / "l.db")]


def test_made_listed_and_revoked(db: list[str]) -> None:
    made = json.loads(
        run("create", "one", "--day", "2.50", "--per-minute", "9", "--model", "a", *db, "--json")
    )
    secret = run("create", "two", "--month", "$40", "--expires", "9", *db).strip()
    assert made["secret"].startswith("r2-")
    assert secret.startswith("r2-")
    run("revoke", "two", *db)
    text = run("list", *db, "--json")
    one, two = json.loads(text)
    assert made["secret"] not in text
    assert (one["name"], one["state"], one["models"]) == ("one", "active", ["a"])
    assert (one["dollars_per_day"], one["requests_per_minute"]) == ("2.5", 9)
    assert (two["state"], two["dollars_per_month"]) == ("revoked", "40")
    assert two["expires_at"] > two["created_at"]
    assert "one" in run("list", *db)


@pytest.mark.parametrize("day", ["much", "nan", "0", "-1", "1e9"])
def test_what_is_no_budget(db: list[str], day: str) -> None:
    with pytest.raises(ConfigError, match="dollars"):
        run("create", "one", "--day", day, *db)


def test_a_key_that_is_not_there(db: list[str]) -> None:
    with pytest.raises(ConfigError, match="no key 'one'"):
        run("revoke", "one", *db)
