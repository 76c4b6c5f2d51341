from itertools import count
from math import log

import pytest

from pools import answers, plan_json
from r2reasoner.client import PoolClient
from r2reasoner.config import settings
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall
from r2reasoner.pool.load import load_pool
from r2reasoner.strategies import StrategyContext, open_strategy
from r2reasoner.strategies.tot import read_rating
from strategy_contexts import asking, called, notes


async def test_the_answer_that_the_model_rates_higher_goes_on() -> None:
    drawn = count(1)
    rated = {"draft 1": "2", "draft 2": "5", "draft 3": "4", "draft 4": "3"}

    def worker(call: ChatCall) -> str:
        if call.role == "check":
            return f"I say {rated[call.messages[-2].content]}."
        return f"draft {next(drawn)}"

    plan = plan_json("first", ("second", [1]))
    async with asking(answers(plan, worker)) as (context, provider):
        trace = await open_strategy("tot", context).trace("one plus one")
    assert [step.answer for step in trace.steps] == ["draft 2", "draft 3"]
    assert trace.answer.text == "draft 3"
    assert {entry.model for entry in provider.books} == {"large"}
    assert sorted(role for _, role in called(trace)) == (
        ["check"] * 4 + ["decomposer"] + ["final"] * 2 + ["worker"] * 2
    )
    assert "rating of answer 2" in notes(trace)


async def test_answers_are_sampled_and_ratings_that_cannot_be_read_do_no_harm() -> None:
    seen: list[float] = []
    drawn = count(1)

    def worker(call: ChatCall) -> str:
        if call.role == "check":
            return "no idea"
        seen.append(call.body["temperature"])
        return f"draft {next(drawn)}"

    async with asking(answers(plan_json("first"), worker)) as (context, _):
        trace = await open_strategy("tot", context).trace("one plus one")
    assert seen == [1.0, 1.0]
    assert trace.answer.text in {"draft 1", "draft 2"}


async def test_a_plain_prompt_is_rated_by_its_log_probability() -> None:
    drawn = count(1)

    def answer(call: ChatCall) -> str:
        return "=" if call.model == "planner" else f"draft {next(drawn)}"

    certainty = iter([log(0.3), log(0.9)])

    def logprob(call: ChatCall) -> float | None:
        return None if call.model == "planner" else next(certainty)

    async with asking(answer, logprob=logprob, plan_format="line", prompt="plain") as (context, _):
        trace = await open_strategy("tot", context).trace("one plus one")
    assert trace.answer.text == "draft 2"
    assert {role for _, role in called(trace)} == {"decomposer", "worker"}


async def test_in_process_the_second_answer_is_the_next_beam() -> None:
    client = PoolClient()
    with Ledger.in_memory() as ledger:
        context = StrategyContext(
            pool=load_pool("nano"), settings=settings(), ledger=ledger, client=client
        )
        cot, tot = [
            await open_strategy(name, context).trace("walk left and run") for name in ("cot", "tot")
        ]
        await client.close()
    assert cot.plan == tot.plan
    # twice the answers; the likelier of the likeliest two is the likeliest
    assert len(tot.calls) == len(cot.calls) + len(cot.steps)
    assert tot.answer.text == cot.answer.text == "I_TURN_LEFT I_WALK I_RUN"


@pytest.mark.parametrize(
    ("text", "rating"),
    [("4", 4), ("I say 3 of 5", 3), ("10", 0), ("4.5", 0), ("", 0), ("0 or 5", 5)],
)
def test_a_rating_is_the_first_whole_number_from_1_to_5(text: str, rating: float) -> None:
    assert read_rating(text) == rating
