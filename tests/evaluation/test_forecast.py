from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

import pools
import toy_pool
from r2reasoner.client import PoolClient
from r2reasoner.config import settings
from r2reasoner.evaluation.forecast import forecast
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider
from r2reasoner.strategies import StrategyContext, expand_strategies, open_strategy
from strategy_contexts import asking

QUERIES = ["red and green", "blue", "red and blue and white and pink", "black and white " * 20]


@pytest.fixture
async def context() -> AsyncIterator[StrategyContext]:
    client = PoolClient()
    async with MockProvider(answer=toy_pool.answer) as provider:
        with Ledger.in_memory() as ledger:
            yield StrategyContext(
                pool=toy_pool.pool(provider.base_url),
                settings=settings(max_subtasks=4),
                ledger=ledger,
                client=client,
            )
            await client.close()


async def test_no_run_costs_more_than_was_forecast(context: StrategyContext) -> None:
    everything = ["r2", "single:*", "cot", "strongest", "random", "last-node"]
    for name in expand_strategies(everything, context.pool):
        router = open_strategy(name, context)
        traces = [await router.trace(query) for query in QUERIES]
        calls = [call for trace in traces for call in trace.calls]
        said = forecast(router, QUERIES)
        if any(step.fell_back_from for trace in traces for step in trace.steps):
            continue  # said to be left out
        assert said.least_calls <= len(calls) <= said.most_calls, name
        assert said.most_cost is not None
        assert sum(call.cost or 0 for call in calls) <= said.most_cost, name


@pytest.mark.parametrize("plan_format", ["json", "line"])
async def test_the_calls_of_cascades_and_turns_are_in_the_forecast(plan_format: str) -> None:
    def answer(call: ChatCall) -> str:
        if call.role == "decomposer":
            return "=" if plan_format == "line" else pools.plan_json("first", ("second", [1]))
        return "<route>small: and then?</route> Verdict: incorrect"

    prompt = "plain" if plan_format == "line" else "chat"
    names = ["tot", "datashunt", "automix", "frugal", "dot", *(["router-r1"] * (prompt == "chat"))]
    async with asking(answer, plan_format=plan_format, prompt=prompt) as (context, _):
        for name in names:
            router = open_strategy(name, context)
            calls = [c for query in QUERIES for c in (await router.trace(query)).calls]
            said = forecast(router, QUERIES)
            assert said.least_calls <= len(calls) <= said.most_calls, name
            assert said.most_cost is not None
            assert sum(call.cost or 0 for call in calls) <= said.most_cost, name


async def test_one_call_a_query_is_known_exactly(context: StrategyContext) -> None:
    said = forecast(open_strategy("single:large", context), QUERIES)
    assert said.least_calls == said.most_calls == len(QUERIES)


async def test_an_unknown_price_makes_the_cost_unknown(context: StrategyContext) -> None:
    free = tuple(replace(card, price=None) for card in context.pool.workers)
    pool = replace(context.pool, workers=free)
    said = forecast(open_strategy("strongest", replace(context, pool=pool)), QUERIES)
    assert said.most_cost is None


async def test_chat_models_and_prompted_policies_are_counted(context: StrategyContext) -> None:
    chat = tuple(replace(card, prompt="chat") for card in context.pool.workers)
    prompted = replace(context.pool, workers=chat, decomposer="large", allocator="large")
    plain = forecast(open_strategy("r2", context), QUERIES)
    said = forecast(open_strategy("r2", replace(context, pool=prompted)), QUERIES)
    assert said.least_calls == 3 * len(QUERIES)
    assert plain.most_cost is not None
    assert said.most_cost is not None
    assert said.most_cost > plain.most_cost
