import json
import subprocess
import sys
from collections.abc import Sequence

import pytest
from typer.testing import CliRunner

from r2reasoner import __version__
from r2reasoner.cli.app import app, main
from r2reasoner.errors import ConfigError, UnknownWords

COMMANDS = [
    *("ask", "build", "calibrate", "demo", "evaluate", "init", "ledger", "mock", "nano"),
    *("outcomes", "pool", "trace", "train"),
]


def run(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["r2reasoner", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_help_names_every_command() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    assert all(f" {command} " in done.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], monkeypatch) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_an_unknown_command_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["askk"], monkeypatch) == 2
    assert "askk" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("the key x is wrong"), "the key x is wrong"),
        (UnknownWords(["France"]), "The nano pool is a laboratory"),
    ],
)
def test_our_errors_are_one_message_or_one_document(
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @app.command("raise-for-a-test", hidden=True)
    def raise_for_a_test() -> None:
        raise error

    try:
        assert run(["raise-for-a-test"], monkeypatch) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert said in err
    finally:
        app.registered_commands.pop()


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    run_help = "from r2reasoner.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", run_help, "nano", "items", "arithmetic", "--count", "2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_json_errors_are_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ask", "1 + 2", "--max-cost", "0", "--json"], monkeypatch) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["error"]["type"] == "ConfigError"
