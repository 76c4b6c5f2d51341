from pathlib import Path

import pytest

from measured_files import measured
from pools import answers
from r2reasoner.errors import ConfigError
from r2reasoner.strategies import left_out, open_strategy
from strategy_contexts import asking, called


async def test_a_query_goes_whole_where_its_neighbours_were_answered_right(tmp_path: Path) -> None:
    outcomes = measured(tmp_path, "add", "prove")
    async with asking(answers(), outcomes=outcomes) as (context, _):
        router = open_strategy("knn@0.5", context)
        easy = await router.trace("add 12 and 13 apples")
        hard = await router.trace("prove lemma 99 of topology")
        # all 60 neighbours are of the query's kind: P = .998 and .002; mu at .5 is .125
        assert called(easy) == [("small", "worker")]
        assert called(hard) == [("large", "worker")]
        cheap = await open_strategy("knn@1", context).trace("prove lemma 99 of topology")
        assert called(cheap) == [("small", "worker")]


async def test_without_recorded_queries_it_is_left_out_with_the_reason(tmp_path: Path) -> None:
    outcomes = measured(tmp_path, "add")
    (tmp_path / "outcomes.queries.jsonl").unlink()
    async with asking(answers(), outcomes=outcomes) as (context, _):
        reasons = left_out(["strongest", "knn"], context)
        assert "--whole" in reasons["knn"]
        with pytest.raises(ConfigError, match="trade-off"):
            open_strategy("knn@x", context)
