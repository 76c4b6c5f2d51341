"""Turn a training run of nano models into something that ships: a folder and a pool file.

The folder holds the models of the run's pool file, workers and policies, measured outcomes (of
subtasks, and of whole queries for the strategies that learn from those), and how all of it was
trained; the pool file names them with their prices and checksums.
"""

import asyncio
import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from r2reasoner.budget import Meter
from r2reasoner.calibrate import Calibration, Measured, write_outcomes, write_queries
from r2reasoner.client import PoolClient
from r2reasoner.decomposer import Decomposer, Direct, open_decomposer
from r2reasoner.files import write_whole
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.nano import items
from r2reasoner.nano.items import WeightSet
from r2reasoner.outcomes.measured import PACKED, raw_files
from r2reasoner.pool.cards import Card, Endpoint, Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.pool.write import pool_text
from r2reasoner.training.recipe import load_recipe, stages
from r2reasoner.training.run_folder import CONFIG

HEADER: Final = """\
# The nano pool, weight set {split!r}: tiny models that run in process, anywhere.
# A laboratory and a demonstration, not an assistant.
# Price: one pico-dollar per parameter and token, policies included.
"""
OUTCOMES: Final = "outcomes.npz"
REFERENCES: Final = "outcomes.references.jsonl"
TRAINING: Final = "training.json"


def ship(
    run: Path, weights: WeightSet, count: int, folder: Path, pool_file: Path, seed: int
) -> None:
    """Copy the models of a finished run to `folder`, measure them, and write the pool file.

    Outcomes are measured on `count` items. `pool_file` may be a shipped pool's place; paths in it
    are relative to the package then, else to the file.
    """
    trained = load_pool(run / "pool.toml")
    training = _training(run, trained)
    pool = _moved(trained, weights, folder)
    calibrate(pool, weights, count, folder / OUTCOMES, seed)
    shutil.move(folder / REFERENCES, run / REFERENCES)
    for file in raw_files(folder / OUTCOMES):
        packed = gzip.compress(file.read_bytes(), mtime=0)
        file.with_name(file.name + PACKED).write_bytes(packed)
        file.unlink()
    (folder / TRAINING).write_text(json.dumps(training, indent=1) + "\n")
    shutil.copy(run / CONFIG, folder / "recipe.toml")
    base = Path(__file__).parents[1] if pool_file.parent.name == "pool" else pool_file.parent
    shipped = replace(pool, outcomes=folder / OUTCOMES)
    text = HEADER.format(split=weights.split) + pool_text(shipped, base)
    write_whole(pool_file, text, replace=True)


def _training(run: Path, pool: Pool) -> dict[str, Any]:
    """Return how each model was trained; workers that the run did not train bring their own."""
    home = pool.workers[0].endpoint.path
    known = home / TRAINING if home is not None else run / TRAINING
    told = json.loads(known.read_text()) if known.is_file() else {}
    for file in sorted((run / "workers").glob(f"*/{TRAINING}")):
        told[file.parent.name] = json.loads(file.read_text())
    recipe = load_recipe(run / CONFIG)
    for name, card in pool.policies.items():
        told[name] = {
            "recipe": recipe.run.name,
            "seed": recipe.run.seed,
            "stages": [stage for stage in stages(recipe) if stage.endswith(f"-{name}")],
            "parameters": card.parameters,
        }
    names = [card.name for card in (*pool.workers, *pool.policies.values())]
    return {name: told[name] for name in names if name in told}


def _moved(pool: Pool, weights: WeightSet, folder: Path) -> Pool:
    """Copy a pool's models into a folder, which is replaced as a whole; return the pool there."""
    endpoint = Endpoint(name="nano", kind="embedded", path=folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)

    def move(card: Card) -> Card:
        assert card.endpoint.path is not None
        shutil.copytree(card.endpoint.path / card.model, part / card.name)
        return replace(card, endpoint=endpoint, model=card.name)

    moved = replace(
        pool,
        name="nano" if weights.arithmetic else f"nano-{weights.split}",
        workers=tuple(map(move, pool.workers)),
        policies={name: move(card) for name, card in pool.policies.items()},
        splits=(weights.split, *(("arithmetic",) if weights.arithmetic else ())),
        outcomes=None,
    )
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return moved


def calibrate(
    pool: Pool,
    weights: WeightSet,
    count: int,
    out: Path,
    seed: int,
    say: Callable[[int], None] = lambda done: None,
) -> None:
    """Measure a nano pool on items that no worker has seen; write `out` (.npz) and beside it."""
    wanted = items.calibration_items(weights, count // 3, count - count // 3, seed)

    async def measure() -> None:
        client = PoolClient()
        with Ledger.in_memory() as ledger:

            async def run(decomposer: Decomposer) -> Measured:
                meter = Meter(ledger, new_id())
                return await Calibration(
                    pool, client, decomposer, meter, lambda answer, gold: answer == gold
                ).run(wanted, say)

            write_outcomes(await run(open_decomposer(pool.card(pool.decomposer))), out)
            write_queries(await run(Direct()), out)
            await client.close()

    asyncio.run(measure())
