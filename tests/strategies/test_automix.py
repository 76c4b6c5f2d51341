from collections.abc import Callable
from itertools import count
from math import log

import pytest

from r2reasoner.mock import ChatCall
from r2reasoner.strategies import open_strategy
from r2reasoner.strategies.automix import VERDICTS, read_verdict
from strategy_contexts import asking, called, notes


def verdicts(*said: str) -> Callable[[ChatCall], str]:
    """Answer with the model's name, and judge with these words in turn."""
    turn = count()

    def answer(call: ChatCall) -> str:
        return said[next(turn) % len(said)] if call.role == "check" else call.model

    return answer


async def test_a_majority_of_correct_keeps_the_small_models_answer() -> None:
    said = verdicts("Verdict: correct", "It is right. Verdict: CORRECT", "Verdict: incorrect")
    async with asking(said) as (context, provider):
        trace = await open_strategy("automix", context).trace("one plus one")
    # of 8 verdicts in threes 6 are "correct": 3/4 is over 1/2
    assert called(trace) == [("small", "worker"), *[("small", "check")] * VERDICTS]
    assert trace.answer.text == "small"
    assert trace.workers_cost == trace.calls[0].cost
    assert (trace.cost() or 0) > (trace.workers_cost or 0)
    assert len(provider.books) == 9


async def test_half_is_not_enough() -> None:
    said = verdicts("Verdict: correct", "Verdict: incorrect")
    async with asking(said) as (context, _):
        trace = await open_strategy("automix", context).trace("one plus one")
        assert trace.answer.text == trace.steps[0].model == "large"
        assert notes(trace)[-1] == (
            "escalated: small is 0.500 sure of its answer, at least 0.5 is asked"
        )
        trace = await open_strategy("automix@0.4", context).trace("one plus one")
        assert trace.answer.text == "small"


async def test_verdicts_that_cannot_be_read_do_not_count() -> None:
    async with asking(verdicts("Hm.", "Verdict: correct")) as (context, _):
        trace = await open_strategy("automix:medium", context).trace("one plus one")
        assert trace.answer.text == "medium"
    async with asking(verdicts("Hm.")) as (context, _):
        trace = await open_strategy("automix", context).trace("one plus one")
        assert trace.answer.text == "large"


@pytest.mark.parametrize(("sure", "kept"), [(0.8, "small"), (0.7, "large")])
async def test_a_plain_prompt_goes_by_the_probability_of_the_whole_answer(
    sure: float, kept: str
) -> None:
    # three tokens of .8 make .512, of .7 make .343
    async with asking(
        lambda call: f"{call.model} says so",
        logprob=lambda call: log(sure),
        plan_format="line",
        prompt="plain",
    ) as (context, _):
        trace = await open_strategy("automix", context).trace("one plus one")
    assert trace.answer.text == f"{kept} says so"
    assert {role for _, role in called(trace)} == {"worker"}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: correct", True),
        ("That seems correct, but no. Verdict: incorrect", False),
        ("Verdict: Incorrect.", False),
        ("correctness aside", None),
        ("", None),
    ],
)
def test_the_last_verdict_counts(text: str, verdict: bool | None) -> None:
    assert read_verdict(text) is verdict
