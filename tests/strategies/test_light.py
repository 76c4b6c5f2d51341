from pathlib import Path

import pytest

from measured_files import TEXTS, measured
from pools import answers, plan_json
from r2reasoner.errors import ConfigError
from r2reasoner.strategies import expand_strategies, open_strategy
from strategy_contexts import asking, called

PLAN = plan_json(*(text.format(3, 4) for text in TEXTS.values()))


async def test_each_subtask_of_r2s_plan_goes_to_the_cheapest_that_can_do_it(tmp_path: Path) -> None:
    outcomes = measured(tmp_path, *TEXTS)
    async with asking(answers(PLAN), outcomes=outcomes) as (context, _):
        trace = await open_strategy("light:knn@0.1", context).trace("three things")
    # P is .998 or .002: a wrong model loses 6.2 of log P, mu at .1 is .0028
    assert [step.model for step in trace.steps] == ["small", "medium", "large"]
    assert trace.allocation.allocator == "light:knn"
    assert trace.allocation.calibrated
    assert [role for _, role in called(trace)] == ["decomposer", "worker", "worker", "final"]


async def test_the_dial_is_r2s(tmp_path: Path) -> None:
    outcomes = measured(tmp_path, *TEXTS)
    async with asking(answers(PLAN), outcomes=outcomes, flags={"trade_off": 1.0}) as (context, _):
        cheap = await open_strategy("light:ridge", context).trace("three things")
        assert {step.model for step in cheap.steps} == {"small"}
        best = await open_strategy("light:ridge@0", context).trace("three things")
        assert best.trade_off == 0
        assert best.steps[-1].model == "large"


async def test_wrong_names_are_told_before_anything_is_opened() -> None:
    async with asking(answers(PLAN)) as (context, _):
        pool = context.pool
        assert expand_strategies(["light:blend", "light:mf@0.5"], pool)
        with pytest.raises(ConfigError, match="no light router 'small'; known: "):
            expand_strategies(["light:small"], pool)
        with pytest.raises(ConfigError, match="expected a number from 0 to 1"):
            expand_strategies(["light:mf@2"], pool)
        with pytest.raises(ConfigError, match="not measured on such texts"):
            open_strategy("light:mf", context)
