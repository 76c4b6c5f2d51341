from math import exp, log

import pytest

from r2reasoner.budget import Meter
from r2reasoner.client import PoolClient
from r2reasoner.client.base import ChatRequest
from r2reasoner.config import settings
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall
from r2reasoner.pool.load import load_pool
from r2reasoner.strategies import StrategyContext, open_strategy
from r2reasoner.types import Message, Role
from strategy_contexts import asking, called, notes

SURE = {"small": 0.6, "medium": 0.85, "large": 0.1}


def logprob(call: ChatCall) -> float:
    return log(SURE[call.model])


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("frugal", ["small", "medium", "large"]),
        ("frugal@0.8", ["small", "medium"]),
        ("frugal@0.5", ["small"]),
    ],
)
async def test_the_first_answer_that_is_sure_enough_is_kept(name: str, asked: list[str]) -> None:
    async with asking(lambda call: call.model, logprob=logprob) as (context, _):
        trace = await open_strategy(name, context).trace("one plus one")
    assert called(trace) == [(model, "worker") for model in asked]
    assert trace.answer.text == trace.steps[0].model == asked[-1]
    assert trace.workers_cost == trace.cost() == sum(call.cost or 0 for call in trace.calls)


async def test_the_calls_say_why_they_were_made() -> None:
    async with asking(lambda call: call.model, logprob=logprob) as (context, _):
        trace = await open_strategy("frugal@0.8", context).trace("one plus one")
    assert notes(trace) == [
        None,
        "escalated: small is 0.600 sure of its answer, at least 0.8 is asked",
    ]


async def test_certainty_that_is_not_told_counts_as_none() -> None:
    async with asking(lambda call: call.model) as (context, _):
        trace = await open_strategy("frugal@0", context).trace("one plus one")
    assert trace.answer.text == "large"
    assert "did not tell how sure" in (notes(trace)[2] or "")


async def test_on_the_nano_pool_the_rule_can_be_followed_by_hand() -> None:
    pool, query, threshold = load_pool("nano"), "walk left twice and run", 0.95
    client = PoolClient()
    with Ledger.in_memory() as ledger:
        expected = []
        for name in ("16x2", "48x2", "128x4"):
            card = pool.card(name)
            request = ChatRequest(
                messages=(Message("user", query),),
                max_tokens=card.max_tokens,
                role=Role.CHECK,
                logprobs=True,
            )
            told = await client.complete(card, request, Meter(ledger, "by hand"))
            expected.append(name)
            assert told.logprob is not None
            if exp(told.logprob) >= threshold:
                break
        context = StrategyContext(pool=pool, settings=settings(), ledger=ledger, client=client)
        trace = await open_strategy(f"frugal@{threshold}", context).trace(query)
        await client.close()
    assert [call.model for call in trace.calls] == expected
    assert trace.answer.text == told.text
