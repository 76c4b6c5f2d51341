import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pools
import toy_pool
from r2reasoner.budget import Meter
from r2reasoner.client import PoolClient
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider
from r2reasoner.nano import arithmetic
from r2reasoner.nano.propose import propose
from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.training.coherence import Form, Judge
from r2reasoner.training.decompositions import FORM, Parts, Search, Searched, Weights, summary
from r2reasoner.training.proposers import ByRule, Prompted, Proposed
from r2reasoner.training.rows import Row, item_row, read_plan
from r2reasoner.training.shard_folder import Job, read_shards
from r2reasoner.training.shards import Factory, Process, run_shards
from r2reasoner.types import Plan, Subtask, Task


class Given(NamedTuple):
    plan: Plan
    lines: tuple[tuple[str, str], ...] = ()


class Giving:
    """A proposer of what a test wants."""

    name = "given"

    def __init__(self, candidates: Sequence[Given], unreadable: tuple[str, ...] = ()) -> None:
        self._proposed = Proposed(candidates, unreadable)

    async def propose(self, query: str, meter: Meter) -> Proposed:
        return self._proposed


DIRECT = Given(Plan((Subtask("red and blue"),), "#1"), (("red and blue", "="),))
CUT = Given(
    Plan((Subtask("red"), Subtask("blue")), "#1 #2"), (("red and blue", "red ; blue ; = #1 #2"),)
)
WRONG_ORDER = Given(Plan((Subtask("red"), Subtask("blue")), "#2 #1"))
DANGLING = Given(Plan((Subtask("red"), Subtask("blue")), "#1 #3"))
WITH_WASTE = Given(Plan((Subtask("red"), Subtask("pink"), Subtask("blue")), "#1 #3"))
STATED = Given(Plan((Subtask("red"), Subtask("blue", (1,))), "#1 #2"))
ITEM = Task("red and blue", "RED BLUE")


async def searching(
    ledger: Ledger, candidates: Sequence[Given], held: AsyncExitStack, **options: Any
) -> Search:
    provider = await held.enter_async_context(MockProvider(answer=toy_pool.answer))
    client = OpenAIClient()
    held.push_async_callback(client.close)
    unreadable = options.pop("unreadable", ())
    return Search(
        toy_pool.pool(provider.base_url), client, ledger, Giving(candidates, unreadable), **options
    )


async def search(ledger: Ledger, candidates: Sequence[Given], **options: Any) -> Searched:
    async with AsyncExitStack() as held:
        return await (await searching(ledger, candidates, held, **options)).search(ITEM)


async def process(ledger: Ledger, candidates: Sequence[Given], **options: Any) -> Row:
    row = item_row(ITEM, "shout")
    async with AsyncExitStack() as held:
        made = await (await searching(ledger, candidates, held, **options)).process(row)
    assert FORM.checked(row, made) == made
    return made


class TestSearch:
    async def test_the_best_right_candidate_is_kept(self, ledger: Ledger) -> None:
        found = await search(ledger, [DIRECT, WRONG_ORDER, WITH_WASTE, CUT])
        assert found.kept is not None
        assert found.kept.candidate is CUT
        assert [t.right for t in found.tried] == [False, False, True, True]

    async def test_every_candidate_is_really_run_and_stands_in_the_ledger(
        self, ledger: Ledger
    ) -> None:
        found = await search(ledger, [DIRECT, CUT])
        assert len(ledger.entries()) == len(found.calls) == 3

    async def test_nothing_is_kept_where_nothing_is_right(self, ledger: Ledger) -> None:
        found = await search(ledger, [DIRECT, WRONG_ORDER])
        assert found.kept is None

    async def test_the_papers_way_keeps_the_best_of_all_then(self, ledger: Ledger) -> None:
        found = await search(ledger, [DANGLING, WRONG_ORDER, DIRECT], keep="best_of_all")
        assert found.kept is not None
        assert found.kept.candidate is DIRECT
        assert not found.kept.right
        found = await search(ledger, [DIRECT, CUT], keep="best_of_all")
        assert found.kept is not None
        assert found.kept.candidate is CUT

    async def test_an_invalid_candidate_is_wrong_and_costs_no_call(self, ledger: Ledger) -> None:
        found = await search(ledger, [DANGLING], keep="best_of_all")
        assert found.tried[0].right is False
        assert found.tried[0].score is None
        assert found.tried[0].parts.breaks == 2  # what 2 says is not used, and there is no 3
        assert "#3 of 2" in (found.tried[0].fault or "")
        assert found.kept is None
        assert ledger.entries() == []

    async def test_the_first_proposed_wins_among_equals(self, ledger: Ledger) -> None:
        turned = Given(Plan((Subtask("blue"), Subtask("red")), "#2 #1"))
        for candidates in ([CUT, turned], [turned, CUT]):
            found = await search(ledger, candidates)
            assert found.kept is not None
            assert found.kept.candidate is candidates[0]

    async def test_the_tolerance_decides_what_counts_as_equal(self, ledger: Ledger) -> None:
        strict, lax = Weights(tolerance=0), replace(Weights(), tolerance=100.0)
        first_strict = await search(ledger, [WITH_WASTE, CUT], weights=strict)
        first_lax = await search(ledger, [WITH_WASTE, CUT], weights=lax)
        assert first_strict.kept is not None
        assert first_lax.kept is not None
        assert first_strict.kept.candidate is CUT
        assert first_lax.kept.candidate is WITH_WASTE

    async def test_candidates_run_on_the_worker_that_is_named(self, ledger: Ledger) -> None:
        found = await search(ledger, [CUT], worker="middle")
        assert {call.model for call in found.calls} == {"middle"}
        assert found.tried[0].right
        with pytest.raises(ConfigError, match="no model 'huge'"):
            await search(ledger, [CUT], worker="huge")

    async def test_the_caller_says_what_is_right(self, ledger: Ledger) -> None:
        found = await search(ledger, [CUT], grade=lambda answer, gold: None)
        assert not found.tried[0].right
        found = await search(ledger, [DIRECT], grade=lambda answer, gold: answer == "what")
        assert found.tried[0].right

    async def test_a_judge_can_break_links_that_are_only_stated(self, ledger: Ledger) -> None:
        asked: list[ChatCall] = []

        def denies(call: ChatCall) -> str:
            asked.append(call)
            return "no"

        chain = Weights(form=Form.CHAIN)
        alone = await search(ledger, [STATED], weights=chain)
        async with MockProvider(answer=denies) as provider:
            client = OpenAIClient()
            judge = Judge(pools.card_at(provider.base_url, "large"), client)
            judged = await search(ledger, [STATED], weights=chain, judge=judge)
            await client.close()
        assert len(asked) == 1
        assert (alone.tried[0].parts.breaks, judged.tried[0].parts.breaks) == (0, 1)
        assert judged.tried[0].parts.tokens == alone.tried[0].parts.tokens
        assert len(judged.calls) == len(alone.calls) + 1

    async def test_words_that_no_worker_has_make_a_candidate_wrong(
        self, nano: Pool, ledger: Ledger
    ) -> None:
        client = PoolClient()
        strange = Given(Plan((Subtask("the capital of France"),), "#1"))
        run = Search(nano, client, ledger, Giving([strange]))
        found = await run.search(ITEM)
        await client.close()
        assert not found.tried[0].right
        assert "France" in (found.tried[0].fault or "")

    async def test_the_ledgers_cap_ends_it(self) -> None:
        with SpendingLedger.open("sqlite://") as capped:
            capped.cap = 1000
            with pytest.raises(CapReached):
                await search(capped, [DIRECT, CUT])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (Weights(1, 0, 0), 3),
        (Weights(0, 0.5, 0), 5),
        (Weights(0, 0, 2), 2),
        (Weights(1, 0.5, 2), 10),
    ],
)
def test_the_score_is_a_weighted_sum(weights: Weights, expected: float) -> None:
    assert weights.score(Parts(subtasks=3, tokens=10, breaks=1)) == expected


class TestRows:
    async def test_a_row_has_the_plan_and_every_candidate_with_its_parts(
        self, ledger: Ledger
    ) -> None:
        made = await process(ledger, [DIRECT, WITH_WASTE, CUT], unreadable=("cut at 9 tokens",))
        assert made["plan"] == "red ; blue ; = #1 #2"
        assert json.loads(made["lines"]) == [["red and blue", "red ; blue ; = #1 #2"]]
        assert made["right"] is True
        first, second, third, lost = json.loads(made["candidates"])
        assert (first["plan"], first["right"], first["fault"]) == ("=", False, None)
        assert (second["subtasks"], second["breaks"], second["right"]) == (3, 1, True)
        assert third["score"] == made["score"] == 2 + 0.1 * third["tokens"]
        assert lost == {"plan": None, "right": False, "fault": "cut at 9 tokens"}

    async def test_a_row_has_the_bill_and_the_weights(self, ledger: Ledger) -> None:
        weights = Weights(2.0, 0.5, 3.0, 0.0, Form.CHAIN)
        made = await process(ledger, [DIRECT, CUT], weights=weights, keep="best_of_all")
        await ledger.flush()
        entries = ledger.entries()
        assert made["calls"] == len(entries) == 3
        assert made["cost"] == sum(entry.cost or 0 for entry in entries)
        assert json.loads(made["settings"]) == {
            "weights": {
                "conciseness": 2.0,
                "practicality": 0.5,
                "coherence": 3.0,
                "tolerance": 0.0,
                "form": "chain",
            },
            "keep": "best_of_all",
            "proposer": "given",
            "worker": "large",
            "judge": None,
        }

    async def test_without_a_right_plan_the_row_says_so(self, ledger: Ledger) -> None:
        made = await process(ledger, [DIRECT, DANGLING])
        assert (made["plan"], made["score"], made["right"]) == (None, None, False)
        assert json.loads(made["lines"]) == []
        assert json.loads(made["candidates"])[1]["score"] is None
        kept = await process(ledger, [DIRECT, DANGLING], keep="best_of_all")
        assert (kept["plan"], kept["right"]) == ("=", False)

    async def test_a_row_that_is_no_item(self, ledger: Ledger) -> None:
        async with AsyncExitStack() as held:
            run = await searching(ledger, [DIRECT], held)
            with pytest.raises(DataError, match="item, query, gold, family"):
                await run.process({"query": "red"})

    async def test_an_unknown_price_makes_the_bill_unknown(
        self, ledger: Ledger, nano: Pool
    ) -> None:
        client = PoolClient()
        free = replace(nano.strongest, price=None)
        pool = replace(nano, workers=(*nano.workers[:-1], free))
        made = await Search(pool, client, ledger, ByRule(propose)).process(
            item_row(Task("12 + 3", "15"), "arithmetic")
        )
        await client.close()
        assert made["cost"] is None
        assert made["right"]

    async def test_rows_in_one_line(self, ledger: Ledger) -> None:
        rows = [
            await process(ledger, [DIRECT, CUT], unreadable=("?",)),
            await process(ledger, [DIRECT, DANGLING]),
        ]
        assert summary(rows) == (
            "2 items, 5 candidates (2 no valid plan): 1 items with a right plan, 1 left out,"
            " 0 answered directly; 4 calls"
        )


@asynccontextmanager
async def open_nano(*, ledger: Ledger) -> AsyncIterator[Process]:
    """Give the process that the shard runner is to run."""
    client = PoolClient()
    try:
        yield Search(load_pool("nano"), client, ledger, ByRule(propose)).process
    finally:
        await client.close()


class TestWithProposers:
    async def test_nano_rules_on_the_nano_pool(
        self, nano: Pool, ledger: Ledger, tmp_path: Path
    ) -> None:
        tasks = [Task("13 + 4 * 7", "41"), Task("walk left twice and run", "")]
        rows = [item_row(task, "nano") for task in tasks]
        job = Job(out=tmp_path / "rows", rows=rows, config={}, form=FORM)
        with SpendingLedger.open("sqlite://") as books:
            await run_shards(job, Factory("test_decompositions:open_nano"), books)
        sums, command = read_shards(job.out)
        assert sums["right"]
        plan = read_plan(sums["plan"], sums["query"])
        assert json.loads(sums["lines"])[0][0] == sums["query"]
        assert arithmetic.value_of(arithmetic.parse(sums["query"])) == 41
        assert plan.is_direct or plan.subtasks[0].text == "4 * 7"
        assert command["plan"] is None
        assert len(json.loads(command["candidates"])) == len(propose(command["query"]))

    async def test_a_prompted_model_proposes_and_the_run_decides(self, ledger: Ledger) -> None:
        plans = ["no idea", pools.plan_json("red", "blue", answer="#1 #2"), "1. red\n2. blue"]

        def answer(call: ChatCall) -> str:
            if call.role == "decomposer":
                return plans[(call.number - 1) % 3]
            return toy_pool.answer(call)

        async with MockProvider(answer=answer) as provider:
            client = OpenAIClient()
            proposer = Prompted(pools.card_at(provider.base_url, "planner"), client, count=3)
            run = Search(toy_pool.pool(provider.base_url), client, ledger, proposer)
            made = await run.process(item_row(ITEM, "shout"))
            await client.close()
        assert made["plan"] == "red ; blue ; = #1 #2"
        assert [c["right"] for c in json.loads(made["candidates"])] == [False, True, False, False]
        assert json.loads(made["settings"])["proposer"] == "planner"
        assert made["calls"] == 3 + 1 + 2 + 2
        await ledger.flush()
        assert made["cost"] == sum(entry.cost or 0 for entry in ledger.entries())
