"""Train the workers of a weight set, and the one that candidate plans are searched on.

Every model leaves its result under the run folder and is skipped when it stands there, so that an
interrupted run goes on. Models are fitted side by side, one thread each. Policies are trained by
a recipe (`r2reasoner train run`), of which this is the first stage.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from r2reasoner.client.embedded import checksum
from r2reasoner.client.text import split_words
from r2reasoner.nano import items
from r2reasoner.nano.data import Row, rows
from r2reasoner.nano.fit import Encoded, encode, fit
from r2reasoner.nano.items import WeightSet
from r2reasoner.nano.presets import Preset, Shape
from r2reasoner.nano.vocabulary import vocabulary
from r2reasoner.pool.cards import Card, Endpoint, Group, Pool, Price

Say = Callable[[str], None]
GROUPS: Final = (Group.SMALL, Group.MEDIUM, Group.LARGE)


class Job(NamedTuple):
    """One model to fit."""

    data: Path
    out: Path
    shape: Shape
    steps: int
    seed: int


def fit_workers(
    weights: WeightSet,
    preset: Preset,
    out: Path,
    seed: int,
    *,
    searcher_only: bool = False,
    say: Say = print,
) -> None:
    """Fit the worker that searches, which has not seen what it searches on, and all others."""
    out.mkdir(parents=True, exist_ok=True)
    shift = items.shifted(weights, seed)
    shifted = _rows_file(out / "shifted.npz", rows(shift.mix, preset.shifted_rows, seed + 1))
    shape, steps = preset.searcher
    jobs = [Job(shifted, out / "searcher" / shape.name, shape, steps, seed)]
    if not searcher_only:
        data = _rows_file(out / "workers.npz", rows(weights.mix, preset.rows, seed))
        jobs += [Job(data, out / "workers" / s.name, s, n, seed) for s, n in preset.workers.items()]
    # the largest first, so that no core waits long for the last
    fit_all(sorted(jobs, key=lambda job: (job.shape, job.steps), reverse=True), say)


def _rows_file(path: Path, made: Iterable[Row]) -> Path:
    """Write encoded rows once."""
    if not path.exists():
        tokens = vocabulary()
        known = frozenset(tokens)
        data = encode(
            ((split_words(r.question, known), split_words(r.answer, known)) for r in made), tokens
        )
        part = path.with_suffix(".part.npz")
        np.savez(part, ids=data.ids, starts=data.starts, answers=data.answers)
        os.replace(part, path)
    return path


def fit_all(jobs: list[Job], say: Say) -> None:
    """Fit the models that do not stand yet, as many side by side as there are cores."""
    left = [job for job in jobs if not (job.out / "training.json").exists()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context) as executor:
        futures = {executor.submit(_fit_one, job): job for job in left}
        for future in as_completed(futures):
            say(f"fitted {futures[future].out.name} in {future.result():.1f} minutes")


def _fit_one(job: Job) -> float:
    started = time.monotonic()
    with np.load(job.data, allow_pickle=False) as saved:
        data = Encoded(saved["ids"], saved["starts"], saved["answers"])
    fit(data, job.shape, vocabulary(), job.steps, job.seed, job.out, say=_log(job.out))
    return (time.monotonic() - started) / 60


def _log(out: Path) -> Say:
    path = out.with_suffix(".log")
    path.parent.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        with path.open("a") as file:
            file.write(f"{line}\n")

    return say


def parameters(model: Path) -> int:
    """Return a fitted model's number of parameters, as its training recorded it."""
    return int(json.loads((model / "training.json").read_text())["parameters"])


def nano_card(
    name: str, endpoint: Endpoint, size: int, plan_format: Literal["json", "line"] = "json"
) -> Card:
    """Return a nano model's card: one pico-dollar per parameter and token."""
    rate = Decimal(size) / 1_000_000
    return Card(
        name=name,
        endpoint=endpoint,
        model=name,
        price=Price(rate, rate, source="parameters x 1 pico-dollar per token"),
        context=250,
        max_tokens=56,
        prompt="plain",
        plan_format=plan_format,
        parameters=size,
    )


def bare_pool(shapes: list[Shape], converted: Path, fitted: Path) -> Pool:
    """Return a pool of workers alone, before there are policies."""
    endpoint = Endpoint(name="nano", kind="embedded", path=converted)
    cards = tuple(nano_card(s.name, endpoint, parameters(fitted / s.name)) for s in shapes)
    return Pool(
        name="nano",
        workers=cards,
        policies={},
        decomposer=cards[-1].name,
        allocator="ladder",
    )


def workers_pool(preset: Preset, fitted: Path, converted: Path) -> Pool:
    """Return the pool of a preset's workers, held to their checksums, in three groups."""
    shapes = sorted(preset.workers)
    pool = bare_pool(shapes, converted, fitted)
    per_group = -(-len(shapes) // len(GROUPS))
    workers = tuple(
        replace(card, sha256=checksum(converted / card.model), group=GROUPS[i // per_group])
        for i, card in enumerate(pool.workers)
    )
    return replace(pool, workers=workers)
