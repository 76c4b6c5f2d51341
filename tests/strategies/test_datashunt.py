from math import log

import pytest

from pools import plan_json
from r2reasoner.mock import ChatCall, Fault
from r2reasoner.strategies import open_strategy
from r2reasoner.strategies.datashunt import read_easy
from strategy_contexts import asking, called


def judging(verdict: str) -> "ScriptedWorker":
    return ScriptedWorker(verdict)


class ScriptedWorker:
    """Judges by one word, plans one step, and answers with the model's name."""

    def __init__(self, verdict: str) -> None:
        self.verdict = verdict

    def __call__(self, call: ChatCall) -> str:
        if call.role == "allocator":
            return self.verdict
        return plan_json("first", ("second", [1])) if call.role == "decomposer" else call.model


@pytest.mark.parametrize(("verdict", "model"), [("easy", "small"), ("Hard.", "large")])
async def test_the_large_model_judges_and_one_model_does_all(verdict: str, model: str) -> None:
    async with asking(judging(verdict)) as (context, _):
        trace = await open_strategy("datashunt", context).trace("one plus one")
    assert called(trace) == [
        ("large", "allocator"),
        (model, "decomposer"),
        (model, "worker"),
        (model, "final"),
    ]
    assert trace.answer.text == model
    assert trace.plan_notes[0] == f"{verdict.strip('.').lower()}, so {model}: large said so"


async def test_what_nobody_could_judge_is_hard() -> None:
    async with asking(judging("easy")) as (context, provider):
        provider.fault_for = lambda call: Fault.NOT_FOUND if call.role == "allocator" else None
        trace = await open_strategy("datashunt", context).trace("one plus one")
    assert trace.answer.text == "large"
    assert trace.plan_notes[0].startswith("hard, so large: not judged: ")


@pytest.mark.parametrize(("sure", "model"), [(0.95, "small"), (0.8, "large")])
async def test_a_plain_prompt_is_judged_by_the_small_models_certainty(
    sure: float, model: str
) -> None:
    async with asking(
        lambda call: "=" if call.model == "planner" else call.model,
        logprob=lambda call: log(sure),
        plan_format="line",
        prompt="plain",
    ) as (context, _):
        trace = await open_strategy("datashunt", context).trace("one plus one")
        assert called(trace) == [
            ("small", "allocator"),
            ("planner", "decomposer"),
            (model, "worker"),
        ]
        # the policy plans at the price of the model that is to answer
        dollars = context.pool.card(model).price
        assert dollars is not None
        assert trace.calls[1].cost == dollars.cost(trace.calls[1].usage)
        trace = await open_strategy("datashunt@0.99", context).trace("one plus one")
        assert trace.answer.text == "large"


@pytest.mark.parametrize(
    ("text", "easy"), [("easy", True), ("Easy.", True), ("hard", False), ("", False)]
)
def test_only_what_is_said_to_be_easy_is(text: str, easy: bool) -> None:
    assert read_easy(text) is easy
    assert not read_easy(f"{text} or hard")
