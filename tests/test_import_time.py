"""What is imported when, as lists of modules: importing costs nothing, asking needs no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from r2reasoner.pool.cards import Pool

HEAVY = {
    "aiohttp",
    "alembic",
    "ctranslate2",
    "genai_prices",
    "jinja2",
    "numpy",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "safetensors",
    "sqlalchemy",
    "starlette",
    "tokenizers",
    "torch",
    "transformers",
    "uvicorn",
}
TRAINING = {"safetensors", "torch", "transformers"}
REPORT = "import sys; print('modules:', *(m for m in sys.modules if '.' not in m), file=sys.stderr)"
COMMAND = f"""\
import sys
from r2reasoner.cli.app import main
try:
    main()
finally:
    {REPORT}
"""


def loaded(code: str, *arguments: str) -> tuple[set[str], int]:
    """Return the top-level modules that a fresh interpreter has after some code, and its end."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    return set(done.stderr.rpartition("modules:")[2].split()), done.returncode


def test_importing_the_package_imports_nothing_heavy() -> None:
    modules, code = loaded(f"import r2reasoner; r2reasoner.__version__; {REPORT}")
    assert code == 0
    assert "r2reasoner" in modules
    assert modules & (HEAVY | {"asyncio", "typer", "rich"}) == set()


def test_names_bring_what_they_need_when_they_are_used() -> None:
    modules, _ = loaded(f"import r2reasoner; r2reasoner.Plan; {REPORT}")
    assert modules & HEAVY == set()


def test_help_imports_nothing_heavy() -> None:
    modules, code = loaded(COMMAND, "--help")
    assert code == 0
    assert "typer" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize(
    "command",
    [
        ["--version"],
        ["ask", "--help"],
        ["evaluate", "--help"],
        ["key", "--help"],
        ["nano", "--help"],
        ["serve", "--help"],
    ],
)
def test_commands_import_what_is_heavy_only_to_work(command: list[str]) -> None:
    modules, code = loaded(COMMAND, *command)
    assert code == 0
    assert modules & (HEAVY - {"pydantic"}) == set()  # typer reads options with pydantic


def test_asking_in_process_needs_no_training_packages(nano: Pool, tmp_path: Path) -> None:
    modules, code = loaded(COMMAND, "ask", "2 + 3 * 4", "--db", str(tmp_path / "ledger.db"))
    assert code == 0
    assert "ctranslate2" in modules
    assert modules & TRAINING == set()
