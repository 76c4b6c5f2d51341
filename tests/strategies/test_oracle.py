from collections.abc import AsyncIterator

import pytest

import toy_pool
from r2reasoner.benchmarks.grading import sequence
from r2reasoner.client import PoolClient
from r2reasoner.config import settings
from r2reasoner.errors import ConfigError
from r2reasoner.ledger import Ledger
from r2reasoner.mock import MockProvider
from r2reasoner.strategies import StrategyContext, open_strategy
from r2reasoner.strategies.base import AnswerKey
from r2reasoner.types import AnswerStatus
from strategy_contexts import called


def shouted(text: str, answer: str) -> bool | None:
    return sequence(answer, text.upper())


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    async with MockProvider(answer=toy_pool.answer) as provider:
        yield provider


@pytest.fixture
async def ledger_and_client() -> AsyncIterator[tuple[Ledger, PoolClient]]:
    client = PoolClient()
    with Ledger.in_memory() as ledger:
        yield ledger, client
        await client.close()


def context_of(
    provider: MockProvider, parts: tuple[Ledger, PoolClient], key: AnswerKey | None
) -> StrategyContext:
    return StrategyContext(
        pool=toy_pool.pool(provider.base_url),
        settings=settings(),
        ledger=parts[0],
        client=parts[1],
        key=key,
    )


async def test_each_subtask_is_billed_at_the_cheapest_model_that_is_right(
    provider: MockProvider, ledger_and_client: tuple[Ledger, PoolClient]
) -> None:
    context = context_of(provider, ledger_and_client, AnswerKey(shouted, subtasks=True))
    trace = await open_strategy("oracle", context).trace("red and green")
    assert trace.answer.text == "RED GREEN"
    # small says nothing, middle knows words of four letters, green has five
    assert [step.model for step in trace.steps] == ["middle", "large"]
    assert sorted(called(trace)) == [
        ("large", "worker"),
        ("middle", "worker"),
        ("planner", "decomposer"),
    ]
    red, green = sorted(
        (call for call in trace.calls if call.role == "worker"), key=lambda c: c.subtask or 0
    )
    for call in (red, green):
        price = context.pool.card(call.model).price
        assert price is not None
        assert call.cost == price.cost(call.usage)
    await context.ledger.flush()
    assert context.ledger.totals().calls == len(provider.books)
    asked = sorted(str(entry.model) for entry in provider.books)
    assert asked == ["large", "middle", "middle", "planner", *["small"] * (len(asked) - 4)]


async def test_whole_queries_where_only_those_have_answers(
    provider: MockProvider, ledger_and_client: tuple[Ledger, PoolClient]
) -> None:
    context = context_of(provider, ledger_and_client, AnswerKey(shouted, blocking=True))
    trace = await open_strategy("oracle", context).trace("red")
    assert (trace.answer.text, called(trace)) == ("RED", [("middle", "worker")])


async def test_where_nobody_is_right_the_cheapest_answer_stands(
    provider: MockProvider, ledger_and_client: tuple[Ledger, PoolClient]
) -> None:
    context = context_of(provider, ledger_and_client, AnswerKey(shouted))
    trace = await open_strategy("oracle", context).trace("red and green")
    assert (trace.answer.text, called(trace)) == ("what", [("middle", "worker")])


async def test_where_nobody_answers_there_is_no_answer_and_nothing_on_the_bill(
    provider: MockProvider, ledger_and_client: tuple[Ledger, PoolClient]
) -> None:
    provider.answer = lambda call: ""
    context = context_of(provider, ledger_and_client, AnswerKey(shouted))
    trace = await open_strategy("oracle", context).trace("red")
    assert trace.answer.status is AnswerStatus.FAILED
    assert trace.calls == ()


async def test_it_cannot_run_where_nothing_tells_what_is_right(
    provider: MockProvider, ledger_and_client: tuple[Ledger, PoolClient]
) -> None:
    with pytest.raises(ConfigError, match="only runs in `r2reasoner evaluate`"):
        open_strategy("oracle", context_of(provider, ledger_and_client, None))
