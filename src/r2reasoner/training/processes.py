"""The two data jobs as processes for `shards`: made from a run folder, wherever they run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from r2reasoner.client import PoolClient
from r2reasoner.errors import ConfigError
from r2reasoner.ledger import Ledger
from r2reasoner.nano.propose import propose
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.training.allocations import GroupedSearch, SearchConfig
from r2reasoner.training.decompositions import Search, Weights
from r2reasoner.training.environment import Environment, open_environment
from r2reasoner.training.proposers import ByRule, Prompted, Proposer
from r2reasoner.training.rows import Row
from r2reasoner.training.shards import Process

OUTCOMES = "outcomes"


@asynccontextmanager
async def decompositions(*, ledger: Ledger, run: str) -> AsyncIterator[Process]:
    """Give the process that searches an item's decomposition. Raises ConfigError."""
    environment = open_environment(Path(run))
    data = environment.recipe.data
    score = data.score
    weights = Weights(score.conciseness, score.practicality, score.coherence, score.tolerance)
    async with _recorded(Path(run), "decompositions") as client:
        searches = {
            family: Search(
                environment.search_pool,
                client,
                ledger,
                _proposer(environment, client),
                weights,
                grade=grade,
                worker=data.worker or None,
                keep=data.keep,
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
    async with _recorded(Path(run), "allocations") as client:
        searches = grouped(environment, client, ledger, thresholds)

        async def process(row: Row) -> Row:
            return await searches[row["family"]].process(row)

        yield process


def grouped(
    environment: Environment,
    client: RecordedClient,
    ledger: Ledger,
    thresholds: tuple[float, float] | None,
) -> dict[str, GroupedSearch]:
    """Return the grouped search of each family of items."""
    search = environment.recipe.data.search
    config = SearchConfig(thresholds=thresholds, max_trials=search.trials, groups=search.groups)
    return {
        family: GroupedSearch(environment.pool, client, ledger, config, grade=grade)
        for family, grade in environment.grades.items()
    }


@asynccontextmanager
async def _recorded(run: Path, source: str) -> AsyncIterator[RecordedClient]:
    with OutcomeStore.open(run / OUTCOMES) as store:
        client = RecordedClient(PoolClient(), store, source)
        try:
            yield client
        finally:
            await client.close()


def _proposer(environment: Environment, client: RecordedClient) -> Proposer:
    data = environment.recipe.data
    if data.proposer == "nano":
        if environment.weights is None:
            raise ConfigError('[data] proposer "nano" knows nano sets only; take "prompted"')
        return ByRule(propose)
    card = environment.pool.card(data.proposer_model)
    return Prompted(card, client, data.candidates, temperature=data.proposer_temperature)
