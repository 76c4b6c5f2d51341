"""Train a weight set: workers, the search's worker, decomposition data, decomposer, outcomes.

Every stage leaves its result under the run folder and is skipped when it stands there, so that
an interrupted run goes on. Models are fitted side by side, one thread each.
"""

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from r2reasoner.client import Client, PoolClient
from r2reasoner.client.text import split_words
from r2reasoner.errors import DataError
from r2reasoner.files import write_whole
from r2reasoner.ledger import Ledger
from r2reasoner.nano import items, scan
from r2reasoner.nano.convert import convert
from r2reasoner.nano.data import Row, policy_rows, rows
from r2reasoner.nano.fit import Encoded, Shape, encode, fit
from r2reasoner.nano.items import WeightSet
from r2reasoner.nano.propose import Candidate, propose
from r2reasoner.nano.vocabulary import vocabulary
from r2reasoner.pool.cards import Card, Endpoint, Pool, Price
from r2reasoner.training.decompositions import Search, summary
from r2reasoner.training.proposers import ByRule
from r2reasoner.training.rows import Row as Searched
from r2reasoner.training.rows import item_row, read_plan
from r2reasoner.types import Task

Say = Callable[[str], None]
STRETCH: Final = 16
IN_FLIGHT: Final = 64


@dataclass(frozen=True, slots=True)
class Preset:
    """How much a weight set is trained: steps of 2,048 tokens by shape, and data sizes."""

    workers: dict[Shape, int]
    searcher: tuple[Shape, int]
    decomposer: tuple[Shape, int]
    rows: int
    shifted_rows: int
    search_scan: int
    search_arithmetic: int
    calibration: int


SHAPES: Final = tuple(
    Shape(width, layers)
    for width, layers in (
        (8, 1), (16, 1), (16, 2), (24, 2), (32, 2), (48, 2), (64, 2), (96, 3), (128, 4)
    )
)  # fmt: skip
FULL: Final = Preset(
    workers=dict(zip(SHAPES, (2000, 2000, 3000, 4000, 4000, 5000, 5000, 3500, 3200), strict=True)),
    searcher=(Shape(64, 2), 2500),
    decomposer=(Shape(32, 2), 6000),
    rows=1_100_000,
    shifted_rows=400_000,
    search_scan=5000,
    search_arithmetic=25_000,
    calibration=4000,
)
SCAN_ONLY: Final = Preset(
    workers=dict(zip(SHAPES, (1200, 1200, 1500, 1500, 1500, 1500, 1500, 1500, 1200), strict=True)),
    searcher=(Shape(48, 2), 1000),
    decomposer=(Shape(64, 2), 5000),
    rows=250_000,
    shifted_rows=100_000,
    search_scan=5000,
    search_arithmetic=0,
    calibration=900,
)
TINY: Final = Preset(
    workers={Shape(8, 1): 150, Shape(16, 1): 200, Shape(16, 2): 500},
    searcher=(Shape(16, 2), 500),
    decomposer=(Shape(16, 2), 100),
    rows=30_000,
    shifted_rows=30_000,
    search_scan=60,
    search_arithmetic=60,
    calibration=40,
)


def preset_for(name: Literal["full", "tiny"], weights: WeightSet) -> Preset:
    """Return how much a weight set is trained."""
    if name == "tiny":
        return TINY
    return FULL if weights.arithmetic else SCAN_ONLY


class Job(NamedTuple):
    """One model to fit."""

    data: Path
    out: Path
    shape: Shape
    steps: int
    seed: int
    interchangeable: tuple[str, ...] = ()
    stretch: int = 0


def train(weights: WeightSet, preset: Preset, out: Path, seed: int, *, say: Say = print) -> Path:
    """Run all stages of a weight set; return the folder of converted models.

    Raises DataError where a stage's input is unusable.
    """
    started = time.monotonic()
    fit_workers(weights, preset, out, seed, say=say)
    lines = search(weights, preset, out, seed, say=say)
    asked = _rows_file(out / "decomposer.npz", policy_rows(lines, 2, seed))
    shape, steps = preset.decomposer
    verbs = scan.VERBS if weights.split == "addprim_jump" else ()
    fit_all([Job(asked, out / "decomposer" / shape.name, shape, steps, seed, verbs, STRETCH)], say)
    converted = convert_all(preset, out)
    say(f"trained in {(time.monotonic() - started) / 60:.1f} minutes")
    return converted


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
    fit(
        data,
        job.shape,
        vocabulary(),
        job.steps,
        job.seed,
        job.out,
        interchangeable=job.interchangeable,
        stretch=job.stretch,
        say=_log(job.out),
    )
    return (time.monotonic() - started) / 60


def _log(out: Path) -> Say:
    path = out.with_suffix(".log")
    path.parent.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        with path.open("a") as file:
            file.write(f"{line}\n")

    return say


def search(
    weights: WeightSet, preset: Preset, out: Path, seed: int, *, say: Say = print
) -> list[tuple[str, str]]:
    """Search plans on items that the searcher has not seen; return the lines that write them."""
    path = out / "decompositions.jsonl"
    if not path.exists():
        shape, _ = preset.searcher
        convert(out / "searcher" / shape.name, vocabulary(), out / "searcher-ct2" / shape.name)
        pool = bare_pool([shape], out / "searcher-ct2", out / "searcher")
        found = asyncio.run(_search(weights, preset, pool, seed, say))
        write_whole(path, (json.dumps(row) + "\n" for row in found), replace=True)
    rows_ = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [(a, w) for row in rows_ for a, w in row["lines"]]
    if not lines:
        raise DataError(f"{path}: no item had a right plan; train the searcher for longer")
    return lines


async def _search(
    weights: WeightSet, preset: Preset, pool: Pool, seed: int, say: Say
) -> list[dict[str, object]]:
    wanted = items.search_items(weights, preset.search_scan, preset.search_arithmetic, seed)
    client = PoolClient()
    with Ledger.in_memory() as ledger:
        run = partial(_process, pool, client, ledger)
        if weights.split == "addprim_jump":
            found = await _parts_first(run, wanted)
        else:
            found = await run(propose, wanted)
        await client.close()
    say(f"search: {summary(found)}")
    return [
        {
            "query": row["query"],
            "gold": row["gold"],
            "score": row["score"],
            "lines": json.loads(row["lines"]),
            "tried": len(json.loads(row["candidates"])),
            "right": sum(c["right"] for c in json.loads(row["candidates"])),
        }
        for row in found
        if row["plan"] is not None
    ]


Rule = Callable[[str], Sequence[Candidate]]


async def _process(
    pool: Pool, client: Client, ledger: Ledger, rule: Rule, wanted: list[Task]
) -> list[Searched]:
    """Search the plans of a rule for items, many at a time."""
    search = Search(pool, client, ledger, ByRule(rule))
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(item: Task) -> Searched:
        async with gate:
            return await search.process(item_row(item, "nano"))

    return await asyncio.gather(*map(one, wanted))


async def _parts_first(
    run: Callable[[Rule, list[Task]], Awaitable[list[Searched]]], wanted: list[Task]
) -> list[Searched]:
    """Search commands of one phrase; what was right for a phrase is proposed for it in longer ones.

    Two phrases with all their plans would make 900 candidates a command.
    """
    parts = [item for item in wanted if not {"and", "after"} & set(item.query.split())]
    found = await run(partial(propose, primitives=True), parts)
    known = {
        row["query"]: read_plan(row["plan"], row["query"])
        for row in found
        if row["plan"] is not None
    }
    longer = [item for item in wanted if item not in parts]
    return found + await run(partial(propose, known=known, primitives=True), longer)


def convert_all(preset: Preset, out: Path) -> Path:
    """Convert workers and decomposer; return their common folder."""
    tokens = vocabulary()
    folder = out / "converted"
    for shape in preset.workers:
        convert(out / "workers" / shape.name, tokens, folder / shape.name)
    convert(out / "decomposer" / preset.decomposer[0].name, tokens, folder / "decomposer")
    return folder


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
