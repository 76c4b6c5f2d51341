"""What stands in deploy/ and in its page is there: commands, options, variables, extras, limits.

Leaves out what needs an engine or systemd. nginx and Caddy are run in
`tests/gateway/test_gateway_proxy.py`.
"""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import typer
import uvicorn
import yaml

from r2reasoner.cli.app import app
from r2reasoner.config import Settings
from r2reasoner.gateway.wire import MAX_BODY_BYTES

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "deploy.md").read_text()
NAMES = (
    "Dockerfile",
    "compose.yaml",
    "r2reasoner.service",
    "nginx.conf",
    "Caddyfile",
    "env.example",
)
FILES = {name: (DEPLOY / name).read_text() for name in NAMES}
COMPOSE: Any = yaml.safe_load(FILES["compose.yaml"])
IN_A_BLOCK = re.compile(
    r"(?:^|/bin/)r2reasoner (.+)|run --rm gateway (.+)|^docker run .* r2reasoner (.+)"
)


def one(pattern: str, file: str) -> str:
    """Return the one place of a file that a pattern finds."""
    (found,) = re.findall(pattern, FILES[file], re.MULTILINE)
    assert isinstance(found, str)
    return found


START = shlex.split(one(r"^ExecStart=\S+/r2reasoner (.+)", "r2reasoner.service"))


def of_the_page() -> Iterator[str]:
    """Yield what follows `r2reasoner`, or its service or image, in the page's code."""
    blocks = "\n".join(re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    for line in blocks.splitlines():
        if found := IN_A_BLOCK.search(line.split("  #")[0].strip()):
            yield next(filter(None, found.groups()))
    yield from re.findall(r"`r2reasoner ([^`]+)`", PAGE)


def of_the_files() -> Iterator[list[str]]:
    yield json.loads(one(r"^CMD (\[.*\])", "Dockerfile"))
    yield START
    yield from (s["command"] for s in COMPOSE["services"].values() if "command" in s)


COMMANDS = [*of_the_files(), *map(shlex.split, of_the_page())]


def option(words: list[str], name: str) -> str:
    """Return an option's value, however it is written."""
    joined = " ".join(words).replace("=", " ").split()
    return joined[joined.index(name) + 1]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_enough_is_looked_at() -> None:
    assert len(COMMANDS) >= 10
    assert {words[0] for words in COMMANDS} == {"serve", "key", "init", "ledger"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_and_its_options_are_there(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    name, context = "r2reasoner", None
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, words, parent=context)
        rest = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, rest)
    command.make_context(name, words, parent=context)


def test_a_command_that_is_not_there_would_be_seen() -> None:
    for wrong in ("serve --no-such-option", "no-such-command", "key create"):
        with pytest.raises(Exception, match=r"No such|Missing"):
            test_each_command_and_its_options_are_there(wrong.split())


def test_each_variable_of_ours_is_read() -> None:
    ours = re.compile(r"\bR2REASONER_[A-Z_]+")
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert set(ours.findall("".join(FILES.values()) + PAGE)) <= set(ours.findall(source))


def test_each_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"\bdeploy/[\w.]+", PAGE + "".join(FILES.values())))
    made_by_the_reader = {"deploy/.env", "deploy/pool.toml"}
    assert {name for name in named - made_by_the_reader if not (ROOT / name).is_file()} == set()
    assert all(f"/{name}\n" in (ROOT / ".gitignore").read_text() for name in made_by_the_reader)


def test_the_extras_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for listed in re.findall(r"(?:r2reasoner|'\.)\[([\w,]+)\]", FILES["Dockerfile"] + PAGE):
        assert set(listed.split(",")) <= set(extras)


def test_the_build_gets_what_it_copies_and_nothing_else() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", FILES["Dockerfile"], re.MULTILINE)
    wanted = {name for line in copied for name in line.split()}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == wanted
    assert all((ROOT / name).exists() for name in wanted)


def test_who_stops_it_waits_longer_than_it_drains() -> None:
    gateway = COMPOSE["services"]["gateway"]
    assert seconds(gateway["stop_grace_period"]) > seconds(option(gateway["command"], "--drain"))
    stop = one("^TimeoutStopSec=(.+)", "r2reasoner.service")
    assert seconds(stop) > seconds(option(START, "--drain"))


def test_the_proxy_that_compose_believes_is_its_network() -> None:
    (network,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    first = next(ip_network(network["subnet"]).hosts())
    command = COMPOSE["services"]["gateway"]["command"]
    assert ip_address(option(command, "--forwarded-allow-ips")) == first


def test_secrets_come_from_the_environment_file_alone() -> None:
    assert re.findall(r"^(\w+)=(.+)", FILES["env.example"], re.MULTILINE) == []
    filled = re.findall(r"PASSWORD: (.+)|://\w+:(.+)@", FILES["compose.yaml"])
    assert len(filled) == 2
    assert all("".join(places).startswith("${POSTGRES_PASSWORD:?") for places in filled)


def test_the_proxies_limits_fit_the_gateways() -> None:
    idle = uvicorn.Config("").timeout_keep_alive
    for file, keeps, waits in (
        ("nginx.conf", r"keepalive_timeout (\w+);", r"proxy_read_timeout (\w+);"),
        ("Caddyfile", r"\tkeepalive (\w+)", r"response_header_timeout (\w+)"),
    ):
        assert seconds(one(keeps, file)) < idle
        assert seconds(one(waits, file)) > Settings().deadline_s
    assert one(r"client_max_body_size (\d+)m;", "nginx.conf") == str(MAX_BODY_BYTES >> 20)
    assert f"larger than {MAX_BODY_BYTES} bytes" in FILES["nginx.conf"]
