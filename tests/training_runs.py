"""Run folders of training, as tests need them."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.pool.write import write_pool
from r2reasoner.training.environment import SEARCHER
from r2reasoner.training.recipe import Recipe, load_recipe, resolved
from r2reasoner.training.run_folder import CONFIG

RUN = "from r2reasoner.cli.app import main; main()"
TINY = Path("runs/train-tiny")
"""Where the tiny recipe's run is, below the folder that it was begun in."""


def command(*arguments: str | Path) -> list[str]:
    """Return a command line of ours for a process of its own."""
    return [sys.executable, "-c", RUN, *map(str, arguments)]


def train_tiny(home: Path) -> Path:
    """Train the tiny recipe below a folder, once for all processes; return that folder."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / TINY / "pool.toml").exists():
            done = subprocess.run(
                command("train", "run", "tiny"),
                cwd=home,
                env={**os.environ, "R2REASONER_HOME": str(home / "home")},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            (home / "said.txt").write_text(done.stdout + done.stderr)
    return home


def begun(folder: Path, sources: Sequence[str], *overrides: str, worker: str = "32x2") -> Recipe:
    """Make a run folder by hand: a shipped nano worker searches, nothing is trained.

    `sources` are the keys of `[[data.sources]]`.
    """
    file = folder.with_suffix(".toml")
    file.write_text("".join(f"[[data.sources]]\n{source}\n" for source in sources))
    recipe = load_recipe(file, [f'recipe.out="{folder}"', *overrides])
    folder.mkdir()
    (folder / CONFIG).write_text(resolved(recipe))
    if recipe.data.nano_set != "none":
        write_pool(alone(load_pool("nano"), worker), folder / SEARCHER)
    return recipe


def alone(pool: Pool, worker: str) -> Pool:
    """Return a pool of one worker and no policy."""
    card = pool.card(worker)
    return replace(
        pool,
        workers=(card,),
        policies={},
        decomposer=card.name,
        allocator="ladder",
        outcomes=None,
        splits=(),
    )
