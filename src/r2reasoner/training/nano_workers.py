"""The nano workers of a run: the one that searches, and, if the recipe wants them, all nine."""

from dataclasses import replace
from pathlib import Path

from r2reasoner.client.embedded import checksum
from r2reasoner.nano.convert import convert
from r2reasoner.nano.items import WeightSet
from r2reasoner.nano.presets import Preset, preset_for
from r2reasoner.nano.train import Say, bare_pool, fit_workers, workers_pool
from r2reasoner.nano.vocabulary import vocabulary
from r2reasoner.pool.write import write_pool
from r2reasoner.training.environment import SEARCHER, WORKERS
from r2reasoner.training.recipe import Recipe


def train_workers(recipe: Recipe, weights: WeightSet, run: Path, say: Say) -> dict[str, Path]:
    """Fit and convert what is missing; return the folders of what was made, by name."""
    wanted = recipe.data.workers
    preset = preset_for("tiny" if wanted == "tiny" else "full", weights)
    made: dict[str, Path] = {}
    only = wanted == "shipped"
    if only and recipe.data.searcher:
        return made
    fit_workers(weights, preset, run, recipe.run.seed, searcher_only=only, say=say)
    made["searcher"] = _searcher(preset, run)
    if not only:
        made["workers"] = _workers(preset, run)
    return made


def _searcher(preset: Preset, run: Path) -> Path:
    shape, _ = preset.searcher
    folder = run / "converted-searcher"
    convert(run / "searcher" / shape.name, vocabulary(), folder / shape.name)
    pool = bare_pool([shape], folder, run / "searcher")
    (card,) = pool.workers
    card = replace(card, sha256=checksum(folder / card.model))
    write_pool(replace(pool, workers=(card,)), run / SEARCHER)
    return folder


def _workers(preset: Preset, run: Path) -> Path:
    folder = run / "converted-workers"
    for shape in preset.workers:
        convert(run / "workers" / shape.name, vocabulary(), folder / shape.name)
    write_pool(workers_pool(preset, run / "workers", folder), run / WORKERS)
    return folder
