"""The two data jobs as processes for `shards`: made from a run folder, wherever they run.

Both leave word in the store of recorded outcomes of which answer stood where and how it did.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from r2reasoner.client import PoolClient
from r2reasoner.errors import ConfigError
from r2reasoner.ledger import Ledger
from r2reasoner.nano.propose import propose
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.records import Outcome
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.training.allocations import GroupedSearch, SearchConfig
from r2reasoner.training.decompositions import Search, Weights
from r2reasoner.training.environment import Environment, open_environment
from r2reasoner.training.optimum import Compared
from r2reasoner.training.proposers import ByRule, Prompted, Proposer
from r2reasoner.training.rows import Row, read_plan
from r2reasoner.training.shard_folder import read_shards
from r2reasoner.training.shards import Process
from r2reasoner.types import Plan

DATA: Final = "data"
OUTCOMES: Final = "outcomes"


@asynccontextmanager
async def decompositions(
    *, ledger: Ledger, run: str, known: str | None = None
) -> AsyncIterator[Process]:
    """Give the process that searches an item's decomposition. Raises ConfigError.

    `known` names finished data of the run: the plans of parts, to propose for them in longer items.
    """
    environment = open_environment(Path(run))
    data = environment.recipe.data
    score = data.score
    weights = Weights(score.conciseness, score.practicality, score.coherence, score.tolerance)
    plans = {} if known is None else _plans(Path(run) / DATA / known)
    async with _recorded(Path(run), "decompositions") as (client, store):
        searches = {
            family: Search(
                environment.search_pool,
                client,
                ledger,
                _proposer(environment, client, plans),
                weights,
                grade=grade,
                worker=data.worker or None,
                keep=data.keep,
                record=store.add,
            )
            for family, grade in environment.grades.items()
        }

        async def process(row: Row) -> Row:
            return await searches[row["family"]].process(row)

        yield process


@asynccontextmanager
async def allocations(
    *, ledger: Ledger, run: str, thresholds: tuple[float, float] | None
) -> AsyncIterator[Process]:
    """Give the process that searches the models of an item's plan. Raises ConfigError."""
    environment = open_environment(Path(run))
    async with _recorded(Path(run), "allocations") as (client, store):
        searches = grouped(environment, client, ledger, thresholds, store.add)

        async def process(row: Row) -> Row:
            return await searches[row["family"]].process(row)

        yield process


def grouped(
    environment: Environment,
    client: RecordedClient,
    ledger: Ledger,
    thresholds: tuple[float, float] | None,
    record: Callable[[Outcome], None] | None = None,
) -> dict[str, GroupedSearch]:
    """Return the grouped search of each family of items; `record` takes how answers did."""
    search = environment.recipe.data.search
    config = SearchConfig(thresholds=thresholds, max_trials=search.trials, groups=search.groups)
    return {
        family: GroupedSearch(environment.pool, client, ledger, config, grade=grade, record=record)
        for family, grade in environment.grades.items()
    }


async def compared(
    environment: Environment,
    client: RecordedClient,
    ledger: Ledger,
    thresholds: tuple[float, float] | None,
    rows: Sequence[Row],
) -> list[Compared]:
    """Search the models of rows with plans in groups and exhaustively, many at a time."""
    searches = grouped(environment, client, ledger, thresholds)
    most = environment.recipe.data.search.exhaustive_most
    gate = asyncio.Semaphore(environment.recipe.data.in_flight)

    async def one(row: Row) -> Compared:
        async with gate:
            return await searches[row["family"]].compare(row, most)

    return await asyncio.gather(*map(one, rows))


@asynccontextmanager
async def _recorded(run: Path, source: str) -> AsyncIterator[tuple[RecordedClient, OutcomeStore]]:
    with OutcomeStore.open(run / OUTCOMES) as store:
        client = RecordedClient(PoolClient(), store, source)
        try:
            yield client, store
        finally:
            await client.close()


def _plans(folder: Path) -> dict[str, Plan]:
    """Return the plans that were found, by query."""
    found = {row["query"]: row["plan"] for row in read_shards(folder) if row["plan"] is not None}
    return {query: read_plan(plan, query) for query, plan in found.items()}


def _proposer(
    environment: Environment, client: RecordedClient, known: Mapping[str, Plan]
) -> Proposer:
    data = environment.recipe.data
    if data.proposer == "nano":
        if environment.weights is None:
            raise ConfigError('[data] proposer "nano" knows nano sets only; take "prompted"')
        rule = partial(propose, known=known, primitives=environment.parts_first)
        return ByRule(lambda query: rule(query)[: data.candidates])
    card = environment.pool.card(data.proposer_model)
    more = data.candidates - 1  # answering directly is one
    return Prompted(card, client, count=more, temperature=data.proposer_temperature)
