from pathlib import Path

import numpy as np
import pytest

from measured_files import measured, rows, write
from pools import answers, pool_at
from r2reasoner.errors import ConfigError
from r2reasoner.outcomes.measured import query_outcomes
from r2reasoner.strategies import open_strategy
from r2reasoner.strategies.routellm import needed
from strategy_contexts import asking, called

EASY, HARD = "add 12 and 13 apples", "prove lemma 99 of topology"


async def models(name: str, outcomes: Path) -> list[str]:
    async with asking(answers(), outcomes=outcomes) as (context, _):
        router = open_strategy(name, context)
        traces = [await router.trace(query) for query in (EASY, HARD)]
    assert all(len(trace.calls) == 1 for trace in traces)
    return [called(trace)[0][0] for trace in traces]


async def test_a_query_goes_to_the_strong_model_from_the_threshold_on(tmp_path: Path) -> None:
    outcomes = measured(tmp_path, "add", "prove")
    estimate = needed(
        query_outcomes(pool_at("http://mock/v1", outcomes=outcomes)), "small", "large"
    )
    easy, hard = estimate.probability(EASY), estimate.probability(HARD)
    assert easy < 0.2 < 0.8 < hard
    for threshold in (0.0, easy - 0.01, easy + 0.01, hard - 0.01, hard + 0.01, 1.0):
        by_hand = ["large" if p >= threshold else "small" for p in (easy, hard)]
        assert await models(f"routellm@{threshold}", outcomes) == by_hand


async def test_without_a_threshold_half_of_the_recorded_queries_go_there(tmp_path: Path) -> None:
    outcomes = measured(tmp_path, "add", "prove")
    records = query_outcomes(pool_at("http://mock/v1", outcomes=outcomes))
    estimate = needed(records, "small", "large")
    share = np.mean([estimate.probability(text) >= estimate.threshold for text in records.texts])
    assert share == pytest.approx(0.5, abs=0.05)
    assert await models("routellm", outcomes) == ["small", "large"]


async def test_the_weak_model_can_be_named(tmp_path: Path) -> None:
    outcomes = measured(tmp_path, "add", "count", "prove")
    assert await models("routellm:medium@0.5", outcomes) == ["medium", "large"]
    assert await models("routellm:large", outcomes) == ["large", "large"]


def test_a_tie_is_the_weak_models(tmp_path: Path) -> None:
    outcomes = measured(tmp_path, "add", "count")
    records = query_outcomes(pool_at("http://mock/v1", outcomes=outcomes))
    assert needed(records, "medium", "large").probability("count 3 sheep over 4 fences") == 0


def test_a_pair_that_never_met_is_refused(tmp_path: Path) -> None:
    lines = [*rows("add", models=["small"]), *rows("prove", models=["large"])]
    write(tmp_path / "o.queries.jsonl", lines)
    records = query_outcomes(pool_at("http://mock/v1", outcomes=tmp_path / "o.npz"))
    with pytest.raises(ConfigError, match="no query that both small and large were asked"):
        needed(records, "small", "large")
