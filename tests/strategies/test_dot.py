from math import log
from pathlib import Path

import pytest

from pools import answers, plan_json, step_of
from r2reasoner.config import settings
from r2reasoner.errors import ConfigError
from r2reasoner.estimate import Outcome, OutcomeModel
from r2reasoner.mock import ChatCall
from r2reasoner.strategies import left_out, open_strategy
from strategy_contexts import asking, called

PLAN = plan_json("sum", "product", ("both", [1, 2]))


def worker(call: ChatCall) -> str:
    return f"{call.model} did {step_of(call)}"


async def test_without_outcomes_each_subtask_goes_by_the_certainty_of_its_answer() -> None:
    def logprob(call: ChatCall) -> float:
        return log(0.5 if step_of(call) == "product" else 0.95)

    async with asking(answers(PLAN, worker), logprob=logprob) as (context, _):
        trace = await open_strategy("dot", context).trace("one plus one")
    assert [step.model for step in trace.steps] == ["small", "large", "small"]
    assert trace.answer.text == "small did both"
    assert sorted(called(trace)) == [
        ("large", "worker"),
        ("planner", "decomposer"),
        ("small", "final"),
        ("small", "worker"),
        ("small", "worker"),
    ]


async def test_with_outcomes_it_is_decided_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.npz"
    OutcomeModel.fit(
        Outcome(text, model, model == "large" or text != "product", 1)
        for text in ("sum", "product", "both")
        for model in ("small", "large")
        for _ in range(50)
    ).save(file)
    async with asking(answers(PLAN, worker), outcomes=file) as (context, _):
        trace = await open_strategy("dot", context).trace("one plus one")
        p_right = OutcomeModel.load(file).p_right
        by_hand = [
            "small" if p_right(text)["small"] >= 0.5 else "large"
            for text in ("sum", "product", "both")
        ]
        assert [step.model for step in trace.steps] == by_hand == ["small", "large", "small"]
        assert len(trace.calls) == 4
        trace = await open_strategy("dot@1", context).trace("one plus one")
        assert {step.model for step in trace.steps} == {"large"}
        trace = await open_strategy("dot:medium", context).trace("one plus one")
        assert len(trace.calls) > 4, "nobody measured medium, so it is asked"


async def test_a_planner_outside_the_pair_still_plans() -> None:
    async with asking(answers(PLAN, worker), logprob=lambda call: log(0.99)) as (context, _):
        from dataclasses import replace

        pool = replace(context.pool, policies={}, decomposer="medium")
        router = open_strategy("dot", replace(context, pool=pool, settings=settings()))
        trace = await router.trace("one plus one")
    assert called(trace)[0] == ("medium", "decomposer")
    assert {step.model for step in trace.steps} == {"small"}


async def test_a_pair_of_plain_and_chat_is_left_out() -> None:
    from dataclasses import replace

    async with asking(worker) as (context, _):
        small, *others = context.pool.workers
        mixed = replace(context.pool, workers=(replace(small, prompt="plain"), *others))
        assert (
            "dot hands a subtask from small to large"
            in (left_out(["r2", "dot"], replace(context, pool=mixed))["dot"])
        )
        with pytest.raises(ConfigError, match="r2reasoner calibrate"):
            open_strategy("dot", replace(context, pool=mixed))
