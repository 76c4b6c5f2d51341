from pathlib import Path

import pytest

import pools
import toy_pool
from r2reasoner.benchmarks.grading import exact
from r2reasoner.client import PoolClient
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.evaluation.evaluate import Unreachable
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import Ledger
from r2reasoner.mock import Fault, MockProvider
from r2reasoner.mock.faults import Trouble
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.pool.cards import Pool
from r2reasoner.training.trials import Ran, Runner
from r2reasoner.types import Task

PLAN = pools.plan_of("red", "blue", answer="#1 #2")
TASK = Task("red and blue", "RED BLUE")


async def ran(
    ledger: Ledger, *models: str, task: Task = TASK, faults: list[Trouble | None] | None = None
) -> Ran:
    async with MockProvider(answer=toy_pool.answer, faults=faults) as provider:
        client = OpenAIClient(pools.NoJitter())
        try:
            runner = Runner(toy_pool.pool(provider.base_url), client, ledger, exact)
            return await runner.run(task, PLAN, pools.given(PLAN, *models))
        finally:
            await client.close()


async def test_a_right_run(ledger: Ledger) -> None:
    got = await ran(ledger, "large", "middle")
    assert got.right
    assert got.fault is None
    assert [step.model for step in got.steps] == ["large", "middle"]
    assert sorted(call.model for call in got.calls) == ["large", "middle"]


async def test_a_wrong_one(ledger: Ledger) -> None:
    got = await ran(ledger, "large", task=Task("red and blue", "BLUE RED"))
    assert (got.right, got.fault) == (False, None)


async def test_where_another_model_took_over_it_is_not_right(ledger: Ledger) -> None:
    got = await ran(ledger, "small", "large")
    assert not got.right
    assert got.fault == "no answer of small"
    assert [step.answer for step in got.steps] == ["RED", "BLUE"]
    assert len(got.calls) == 3  # what failed was paid for too


async def test_a_single_call_that_fails_is_told(ledger: Ledger) -> None:
    got = await ran(ledger, "large", faults=[Fault.BAD_REQUEST])
    assert not got.right
    assert got.fault == "no answer of large"


async def test_where_nobody_can_be_reached_no_label_is_made(ledger: Ledger) -> None:
    with pytest.raises(Unreachable, match="401"):
        await ran(ledger, "large", faults=[Fault.UNAUTHORIZED] * 6)


async def test_what_everybody_refuses_is_wrong(ledger: Ledger) -> None:
    got = await ran(ledger, "large", faults=[Fault.BAD_REQUEST] * 6)
    assert not got.right
    assert got.fault is not None


async def test_the_cap(ledger: Ledger) -> None:
    with SpendingLedger.open("sqlite://") as capped:
        capped.cap = 1
        with pytest.raises(CapReached):
            await ran(capped, "large")


async def test_keys_are_those_of_the_store(ledger: Ledger, tmp_path: Path) -> None:
    async with MockProvider(answer=toy_pool.answer) as provider:
        with OutcomeStore.open(tmp_path / "outcomes") as store:
            client = RecordedClient(OpenAIClient(), store)
            pool = toy_pool.pool(provider.base_url)
            runner = Runner(pool, client, ledger, exact, keyed=True)
            got = await runner.run(TASK, PLAN, pools.given(PLAN, "large", "middle"))
            await client.close()
            answers = [store.get(got.keys[number]) for number in (1, 2)]
            assert [answer and answer.answer for answer in answers] == ["RED", "BLUE"]
            assert [answer and answer.model for answer in answers] == ["large", "middle"]
    assert (await ran(ledger, "large")).keys == {}, "where nobody wants them"


async def test_words_that_no_model_has(nano: Pool, ledger: Ledger) -> None:
    client = PoolClient()
    plan = pools.plan_of("the capital of France")
    got = await Runner(nano, client, ledger, exact).run(TASK, plan, pools.given(plan, "8x1"))
    await client.close()
    assert not got.right
    assert "France" in (got.fault or "")


async def test_one_model_is_asked_how_sure_it_is(ledger: Ledger) -> None:
    provider = MockProvider(answer=toy_pool.answer, logprob=lambda call: -1 / 3)
    async with provider:
        client = OpenAIClient()
        runner = Runner(toy_pool.pool(provider.base_url), client, ledger, exact)
        allocation = pools.given(PLAN, "large", "middle")
        got = await runner.run(TASK, PLAN, allocation, how_sure="middle")
        silent = await runner.run(TASK, PLAN, allocation)
        await client.close()
    assert got.logprobs == {2: -0.3333}
    assert silent.logprobs == {}
