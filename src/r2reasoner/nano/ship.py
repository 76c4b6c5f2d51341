"""Turn a trained weight set into something that ships: a folder of models and its pool file.

The folder holds converted models, measured outcomes and a model card; the pool file names them
with their prices and checksums.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from r2reasoner.budget import Meter
from r2reasoner.calibrate import Calibration, write_outcomes
from r2reasoner.client import PoolClient
from r2reasoner.client.embedded import checksum
from r2reasoner.decomposer import open_decomposer
from r2reasoner.files import write_whole
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.nano import items
from r2reasoner.nano.items import WeightSet
from r2reasoner.nano.train import Preset, bare_pool, nano_card, parameters
from r2reasoner.pool.cards import Card, Group, Pool

GROUPS: Final = (Group.SMALL, Group.MEDIUM, Group.LARGE)


def ship(
    weights: WeightSet, preset: Preset, run: Path, folder: Path, pool_file: Path, seed: int
) -> None:
    """Copy a run's converted models to `folder`, measure them, and write the pool file.

    `pool_file` may be a shipped pool's place; paths in it are relative to the package then, else
    to the file.
    """
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(run / "converted", folder)
    pool = trained_pool(preset, run, folder)
    calibrate(pool, weights, preset.calibration, folder / "outcomes.npz", seed)
    for name in ("outcomes.jsonl", "outcomes.references.jsonl"):
        shutil.move(folder / name, run / name)
    training = {
        path.parent.name if path.parent.parent.name == "workers" else "decomposer": json.loads(
            path.read_text()
        )
        for path in sorted(run.glob("*/*/training.json"))
        if path.parent.parent.name in ("workers", "decomposer")
    }
    (folder / "training.json").write_text(json.dumps(training, indent=1) + "\n")
    base = Path(__file__).parents[1] if pool_file.parent.name == "pool" else pool_file.parent
    text = pool_text(pool, weights.split, os.path.relpath(folder, base))
    write_whole(pool_file, text, replace=True)


def trained_pool(preset: Preset, run: Path, folder: Path) -> Pool:
    """Return the pool of a run's models, in process from `folder`, without outcomes yet."""
    pool = workers_pool(preset, run, folder)
    size = parameters(run / "decomposer" / preset.decomposer[0].name)
    decomposer = nano_card("decomposer", pool.workers[0].endpoint, size, plan_format="line")
    return replace(
        pool,
        policies={"decomposer": _sealed(decomposer, folder)},
        decomposer="decomposer",
    )


def workers_pool(preset: Preset, run: Path, folder: Path) -> Pool:
    """Return the pool of a run's workers alone, in process from `folder`, in three groups."""
    shapes = sorted(preset.workers)
    pool = bare_pool(shapes, folder, run / "workers")
    per_group = -(-len(shapes) // len(GROUPS))
    workers = tuple(
        replace(_sealed(card, folder), group=GROUPS[i // per_group])
        for i, card in enumerate(pool.workers)
    )
    return replace(pool, workers=workers)


def _sealed(card: Card, folder: Path) -> Card:
    return replace(card, sha256=checksum(folder / card.model))


def calibrate(
    pool: Pool,
    weights: WeightSet,
    count: int,
    out: Path,
    seed: int,
    say: Callable[[int], None] = lambda done: None,
) -> None:
    """Measure a nano pool on items that no worker has seen and write `out` (.npz)."""
    wanted = items.calibration_items(weights, count // 3, count - count // 3, seed)

    async def measure() -> None:
        client = PoolClient()
        with Ledger.in_memory() as ledger:
            meter = Meter(ledger, new_id())
            decomposer = open_decomposer(pool.card(pool.decomposer))
            calibration = Calibration(
                pool, client, decomposer, meter, lambda answer, gold: answer == gold
            )
            write_outcomes(await calibration.run(wanted, say), out)
            await client.close()

    asyncio.run(measure())


def pool_text(pool: Pool, split: str, path: str) -> str:
    """Return the pool file of a nano pool."""
    lines = [
        f"# The nano pool, weight set {split!r}: tiny models that run in process, anywhere.",
        "# A laboratory and a demonstration, not an assistant. Written by `r2reasoner nano train`.",
        "# Price: one pico-dollar per parameter and token, policies included.",
        "",
        "[pool]",
        f'name = "{"nano" if split == "length" else f"nano-{split}"}"',
        'decomposer = "decomposer"',
        'allocator = "calibrated"',
        f'outcomes = "{path}/outcomes.npz"',
        f"splits = {json.dumps(_splits(split))}",
        "",
        "[endpoints.nano]",
        'kind = "embedded"',
        f'path = "{path}"',
    ]
    for card in pool.workers:
        lines += ["", "[[workers]]", *_card_lines(card), f'group = "{card.group}"']
    for card in pool.policies.values():
        lines += ["", "[[policies]]", *_card_lines(card), f'plan_format = "{card.plan_format}"']
    return "\n".join(lines) + "\n"


def _splits(split: str) -> list[str]:
    return ["length", "arithmetic"] if split == "length" else [split]


def _card_lines(card: Card) -> list[str]:
    assert card.price is not None
    return [
        f'name = "{card.name}"',
        'endpoint = "nano"',
        f'model = "{card.model}"',
        f'input_price = "{card.price.input}"',
        f'output_price = "{card.price.output}"',
        f"context = {card.context}",
        f"max_tokens = {card.max_tokens}",
        'prompt = "plain"',
        f"parameters = {card.parameters}",
        f'sha256 = "{card.sha256}"',
    ]
