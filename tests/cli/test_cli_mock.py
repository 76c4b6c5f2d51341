"""`r2reasoner mock` as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import typer
from typer.testing import CliRunner

from r2reasoner.cli.mock import mock
from r2reasoner.errors import ConfigError

RUN = "import typer; from r2reasoner.cli.mock import mock; typer.run(mock)"


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    command = [sys.executable, "-c", RUN, "--port", "0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def ask(base_url: str, text: str = "walk left") -> str:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
    request = urllib.request.Request(
        f"{base_url}/chat/completions", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_keeps_books_and_stops(number: int) -> None:
    with running("--answer", "right") as (process, address):
        assert ask(address["base_url"]) == "right"
        with urllib.request.urlopen(address["books"], timeout=120) as response:
            assert json.load(response)["totals"]["requests"] == 1
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0
        assert errors == b""


def test_a_prompt_that_comes_again_is_billed_as_cached() -> None:
    with running("--cache", "--answer", "right") as (_, address):
        for _ in range(2):
            ask(address["base_url"], "word " * 1100)
        with urllib.request.urlopen(address["books"], timeout=120) as response:
            assert json.load(response)["totals"]["cached_tokens"] == 1024


def test_faults_are_drawn_with_the_seed() -> None:
    def statuses() -> list[int]:
        options = ["--fault", "503", "--fault", "429", "--rate", "0.5", "--seed", "3"]
        with running(*options) as (_, address):
            found = []
            for _ in range(12):
                try:
                    ask(address["base_url"])
                    found.append(200)
                except urllib.error.HTTPError as error:
                    found.append(error.code)
                    error.close()
        return found

    first = statuses()
    assert first == statuses()
    assert set(first) == {200, 429, 503}


def test_an_unknown_fault_names_those_there_are() -> None:
    app = typer.Typer()
    app.command()(mock)
    result = CliRunner().invoke(app, ["--fault", "oops"])
    assert isinstance(result.exception, ConfigError)
    assert "reset_mid_chunk" in str(result.exception)


def test_a_port_that_is_taken_is_a_config_error() -> None:
    with running() as (_, address):
        port = address["base_url"].removesuffix("/v1").rpartition(":")[2]
        command = [sys.executable, "-c", RUN, "--port", port]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 1
    assert "cannot listen" in result.stderr
