"""What was measured of a pool's workers, as an outcome set: what light routers in a pool learn.

A pool's `outcomes` name a file that `r2reasoner calibrate` wrote, beside which the single outcomes
stand (subtasks in `X.jsonl`, whole queries in `X.queries.jsonl`, either of them also with `.gz`),
or the folder of an outcome store, whose whole queries serve as both. A text's group is never known
when such a router is asked, so none is learned from.
"""

import gzip
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes.sets import Cells, OutcomeSet, outcome_sets, table
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.pool.cards import Pool
from r2reasoner.types import to_dollars

PACKED: Final = ".gz"


def queries_file(outcomes: Path) -> Path:
    """Return where the outcomes of whole queries stand that go with a file of outcomes (.npz)."""
    return outcomes.with_suffix(".queries.jsonl")


def raw_files(outcomes: Path) -> tuple[Path, ...]:
    """Return the files with single outcomes that there are beside a file of outcomes."""
    found = (_there(outcomes.with_suffix(".jsonl")), _there(queries_file(outcomes)))
    return tuple(file for file in found if file is not None)


def subtask_outcomes(pool: Pool) -> OutcomeSet:
    """Return what was measured of a pool's workers on subtasks.

    Raises ConfigError where nothing was, DataError, naming file and line, for what cannot be read.
    """
    command = "r2reasoner calibrate ITEMS.jsonl"
    return _of_pool(pool, pool.outcomes and pool.outcomes.with_suffix(".jsonl"), command)


def query_outcomes(pool: Pool) -> OutcomeSet:
    """Return what was measured of a pool's workers on whole queries. Raises as subtask_outcomes."""
    command = "r2reasoner calibrate ITEMS.jsonl --whole"
    return _of_pool(pool, pool.outcomes and queries_file(pool.outcomes), command)


def _of_pool(pool: Pool, file: Path | None, command: str) -> OutcomeSet:
    workers = tuple(card.name for card in pool.workers)
    if pool.outcomes is not None and pool.outcomes.is_dir():
        return _among(_from_store(pool.outcomes), workers, pool.outcomes)
    there = None if file is None else _there(file)
    if there is None:
        where = "" if file is None else f" (no {file})"
        raise ConfigError(
            f"pool {pool.name!r}: its workers were not measured on such texts{where}; `{command}`"
            " does it"
        )
    return _among(_from_file(there, there.stat().st_mtime_ns), workers, there)


@lru_cache(maxsize=32)
def _among(measured: OutcomeSet, workers: tuple[str, ...], source: Path) -> OutcomeSet:
    """Return the workers' columns, weakest worker first; one and the same for the same workers."""
    known = [name for name in workers if name in measured.models]
    if not known:
        raise ConfigError(
            f"{source}: knows none of the pool's workers, but {', '.join(measured.models)}"
        )
    return measured.with_models(known)


@lru_cache(maxsize=8)
def _from_file(file: Path, written_ns: int) -> OutcomeSet:
    items: dict[str, tuple[str, str]] = {}
    cells: Cells = {}
    for text, model, score, price in _lines(file):
        items[text] = (text, "")
        cells.setdefault((text, model), []).append((score, price))
    if not items:
        raise DataError(f"{file}: empty; expected measured outcomes")
    return table(file.name, items, cells)


def _lines(file: Path) -> Iterator[tuple[str, str, float, float]]:
    """Yield text, model, score and price (dollars, NaN where unknown) of each line."""
    opened: Any = gzip.open if file.suffix == PACKED else open
    number = 0
    try:
        with opened(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007
                row = json.loads(line)
                text, model, right, cost = row["text"], row["model"], row["right"], row["cost"]
                if not (isinstance(text, str) and isinstance(model, str)):
                    raise ValueError("text and model have to be texts")
                price = float("nan") if cost is None else float(to_dollars(int(cost)))
                yield text, model, float(right), price
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{file}, line {number}: expected an outcome with text, model, right and cost, got"
            f" {type(error).__name__}: {error}"
        ) from error


def _from_store(folder: Path) -> OutcomeSet:
    """Return all whole queries of a store as one set. Raises ConfigError where it has none."""
    with OutcomeStore.open(folder, create=False) as store:
        sets = outcome_sets(store)
    items: dict[str, tuple[str, str]] = {}
    cells: Cells = {}
    for one in sets.values():
        for i, text in enumerate(one.texts):
            items[text] = (text, "")
            for m, model in enumerate(one.models):
                if one.scores[i, m] == one.scores[i, m]:
                    found = (float(one.scores[i, m]), float(one.prices[i, m]))
                    cells.setdefault((text, model), []).append(found)
    if not items:
        raise ConfigError(f"{folder}: a store without judged answers to whole queries")
    return table(folder.name, items, cells)


def _there(file: Path) -> Path | None:
    packed = file.with_name(file.name + PACKED)
    return next((each for each in (file, packed) if each.is_file()), None)
