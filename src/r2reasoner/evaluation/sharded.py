"""An evaluation under the shard runner, for a Ray cluster: one pure process, pair -> row.

A pair is a strategy and an item. Rows are made in a folder beside the rows file, so that a run
that was broken off goes on there, and go into the rows file when all are made; then the folder
goes. The same rows come out as of `evaluate`, which needs no folder.
"""

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, get_type_hints

from r2reasoner.benchmarks import Item
from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.evaluate import (
    Answerer,
    Assignment,
    Conditions,
    Evaluation,
    Progress,
    default_in_flight,
    found,
    missing,
    open_client,
)
from r2reasoner.evaluation.rows import ItemRow, RowsFile
from r2reasoner.evaluation.spending import SpendingLedger
from r2reasoner.ledger import Ledger
from r2reasoner.training.columns import Column, Form
from r2reasoner.training.journal import Row, digest, dumps
from r2reasoner.training.shard_folder import Job, made_rows
from r2reasoner.training.shards import Engine, Factory, Process, run_shards

KEY: Final = "key"
_KINDS: Final[dict[Any, Column]] = {
    bool: Column.FLAG,
    float: Column.NUMBER,
    int: Column.INTEGER,
    int | None: Column.INTEGER,
    float | None: Column.NUMBER,
}
_COLUMNS: Final = {name: _KINDS.get(t, Column.TEXT) for name, t in get_type_hints(ItemRow).items()}


async def evaluate_in_shards(
    evaluation: Evaluation,
    ledger: SpendingLedger,
    rows: RowsFile,
    *,
    store: Path | None = None,
    engine: Engine = Engine.RAY,
    in_flight: int | None = None,
    again: bool = False,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> list[list[ItemRow]]:
    """Return the rows of each strategy, as `evaluate` does; `store`: folder of outcomes, if any.

    The ledger is a file or a server, and workers on other machines share the folders. Raises as
    `evaluate` and `run_shards` do: what is finished till then is in the folder.
    """
    conditions = Conditions.of(evaluation)
    todo = missing(evaluation, conditions, rows.rows, again=again)
    if todo:
        job = _job(evaluation, conditions, todo, rows.path)
        factory = _factory(evaluation, conditions, store)
        most = in_flight or default_in_flight(evaluation.pool)
        await run_shards(job, factory, ledger, engine=engine, in_flight=most, progress=progress)
        for row in made_rows(job.out):
            rows.append(_item_row(row))
        rows.flush()
        shutil.rmtree(job.out)
    return found(evaluation, conditions, rows.rows)


@asynccontextmanager
async def answers(
    *, ledger: Ledger, evaluation: Evaluation, conditions: Conditions, store: Path | None
) -> AsyncIterator[Process]:
    """Give the process of an evaluation. Raises ConfigError where it would answer otherwise."""
    async with open_client(store) as client:
        answerer = Answerer(evaluation, ledger, client)
        if answerer.conditions != conditions:
            raise ConfigError(
                "a worker would answer otherwise than the machine that this run was started on:"
                " expected the same version, weights and outcomes file there; install them"
            )

        async def process(row: Row) -> Row:
            item = Item(row["item"], row["query"], row["gold"])
            made = await answerer.answer(Assignment(row["strategy"], item))
            return {KEY: row[KEY], **asdict(made), "models": dumps(made.models)}

        yield process


def _job(
    evaluation: Evaluation, conditions: Conditions, todo: list[Assignment], beside: Path
) -> Job:
    rows = [
        {
            KEY: digest(dumps([strategy, item.id])),
            "strategy": strategy,
            "item": item.id,
            "query": item.query,
            "gold": item.gold,
        }
        for strategy, item in todo
    ]
    about = digest(dumps([conditions.context, *(row[KEY] for row in rows)]))
    return Job(
        out=beside.with_name(f"{beside.name}.{about}"),
        rows=rows,
        config={"benchmark": evaluation.benchmark.name, **conditions._asdict()},
        form=Form({KEY: Column.TEXT, **_COLUMNS}, key=KEY),
    )


def _factory(evaluation: Evaluation, conditions: Conditions, store: Path | None) -> Factory:
    folder = None if store is None else store.absolute()  # workers stand elsewhere
    common = replace(evaluation, items=())
    return Factory(
        f"{__name__}:answers", {"evaluation": common, "conditions": conditions, "store": folder}
    )


def _item_row(row: Row) -> ItemRow:
    fields = {name: row[name] for name in _COLUMNS}
    return ItemRow(**{**fields, "models": json.loads(row["models"])})
