from pathlib import Path

import numpy as np
import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.replay import RecordedOnly, replay
from r2reasoner.outcomes.sets import OutcomeSet


def a_set() -> OutcomeSet:
    return OutcomeSet(
        "toy",
        ("a", "b", "c"),
        ("short", "a long text", "another long text"),
        ("", "", ""),
        ("cheap", "dear"),
        np.array([[1.0, 1.0], [0.0, 1.0], [0.0, np.nan]]),
        np.array([[1.0, 5.0], [1.0, 7.0], [1.0, np.nan]]),
    )


def test_by_hand() -> None:
    done = replay(lambda text, group: "dear" if len(text) > 6 else "cheap", a_set())
    assert (done.items, done.covered) == (3, 2)
    assert done.coverage == pytest.approx(2 / 3)
    assert (done.mean_score, done.mean_price, done.regret) == (1.0, 4.0, 0.0)
    assert done.shares == {"cheap": pytest.approx(1 / 3), "dear": pytest.approx(2 / 3)}
    cheap = replay(lambda text, group: "cheap", a_set())
    assert cheap.mean_score == pytest.approx(1 / 3)
    assert cheap.regret == pytest.approx(1 / 3)


def test_nothing_covered_and_unknown_models() -> None:
    done = replay(lambda text, group: "dear", a_set().rows([2]))
    assert (done.covered, done.mean_score, done.mean_price, done.regret) == (0, None, None, None)
    with pytest.raises(DataError, match="toy: the router chose new; recorded are cheap, dear"):
        replay(lambda text, group: "new", a_set())
    with pytest.raises(DataError, match="toy: no items to replay"):
        replay(lambda text, group: "cheap", a_set().rows([]))


async def test_a_strategy_runs_on_what_its_store_has(tmp_path: Path) -> None:
    """Answers recorded from the nano pool; then the same strategy with no model behind it."""
    from r2reasoner.client import PoolClient
    from r2reasoner.config import Settings
    from r2reasoner.ledger import Ledger
    from r2reasoner.outcomes.client import RecordedClient
    from r2reasoner.outcomes.replay import recorded_only
    from r2reasoner.outcomes.store import OutcomeStore
    from r2reasoner.pool.load import load_pool
    from r2reasoner.strategies.base import StrategyContext
    from r2reasoner.strategies.fixed import strongest

    pool, settings = load_pool("nano"), Settings()
    with OutcomeStore.open(tmp_path / "store") as store:

        async def run(client: object, query: str) -> str:
            ledger = Ledger.open(tmp_path / "ledger.db")
            context = StrategyContext(
                pool=pool,
                settings=settings,
                ledger=ledger,
                client=client,  # type: ignore[arg-type]
            )
            try:
                return (await strongest(context).trace(query)).answer.text
            finally:
                await ledger.flush()
                await ledger.close()

        asking = RecordedClient(PoolClient(), store)
        try:
            first = await run(asking, "walk twice and jump left")
        finally:
            await asking.close()
        alone, behind = recorded_only(store)
        assert await run(alone, "walk twice and jump left") == first
        assert behind.missed.total() == 0
        await run(alone, "look thrice after run")
        assert behind.missed.total() > 0


async def test_what_has_no_model_behind_it_closes_nothing() -> None:
    await RecordedOnly().close()
