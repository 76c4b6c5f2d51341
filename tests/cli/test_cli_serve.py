"""`r2reasoner serve`: what it refuses to do. That it serves is shown in tests/gateway."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from r2reasoner.cli.app import app
from r2reasoner.errors import ConfigError
from r2reasoner.gateway.server import bind


def serve(*arguments: str) -> None:
    CliRunner().invoke(app, ["serve", *arguments], catch_exceptions=False)


def test_beyond_this_machine_it_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key create"):
        serve("--host", "0.0.0.0", "--db", str(tmp_path / "l.db"))


def test_behind_a_proxy_it_needs_a_key_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"behind a proxy .* key create"):
        serve("--forwarded-allow-ips", "127.0.0.1", "--db", str(tmp_path / "l.db"))


def test_a_proxy_is_named_by_its_address() -> None:
    with pytest.raises(ConfigError, match="neither an address nor a network"):
        serve("--forwarded-allow-ips", "*")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="another --port"):
        serve("--port", str(taken.getsockname()[1]), "--db", str(tmp_path / "l.db"))


def test_a_pool_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pool"):
        serve("--pool", str(tmp_path / "none.toml"))
