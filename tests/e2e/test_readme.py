"""The README's commands do what it says; `make demo` and `make test` set up what runs this test."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from r2reasoner.pool.cards import Pool

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent / "r2reasoner"
NEEDS_OWN_MODELS = "--pool r2.toml"
TAKES_LONG = "r2reasoner train run nano"
NEEDS_A_CARD = "pool add CARD"


def commands(page: str) -> list[str]:
    """Return the r2reasoner commands in a page's code blocks, comments cut off."""
    blocks = re.findall(r"```\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    lines = "\n".join(blocks).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.startswith("r2reasoner ")]


def run(command: str, folder: Path) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    done = subprocess.run(
        [str(BIN), *shlex.split(command)[1:]],
        cwd=folder,
        env={**kept, "R2REASONER_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.usefixtures("nano")
def test_the_readmes_commands_run_one_after_the_other(tmp_path: Path) -> None:
    found = commands("README.md")
    mine = [
        c for c in found if NEEDS_OWN_MODELS not in c and NEEDS_A_CARD not in c and c != TAKES_LONG
    ]
    assert len(mine) >= 6
    for command in mine:
        run(command, tmp_path)
    assert (tmp_path / "scan.json").exists()
    assert (tmp_path / "arithmetic.json").exists()


def test_make_demo_runs_the_demo(nano: Pool, tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "$(BIN)/r2reasoner demo" in makefile
    shown = run("r2reasoner demo --items 20", tmp_path)
    for model in nano.workers:
        assert f"single:{model.name}" in shown
    assert "router billed" in shown


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "CONTRIBUTING.md"])
def test_links_and_files_named_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
