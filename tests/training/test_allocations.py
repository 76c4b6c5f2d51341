"""Grouped search on the shipped nano pool, and on a pool of which every answer is known."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pools
import toy_pool
from r2reasoner.budget import Meter
from r2reasoner.client import PoolClient
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.executor import Executor
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, Fault, MockProvider
from r2reasoner.nano import arithmetic
from r2reasoner.nano.propose import propose
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.plan import expand, in_context
from r2reasoner.pool.cards import Group, Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.training.allocations import FORM, GroupedSearch, SearchConfig, summary
from r2reasoner.training.groups import Ladder
from r2reasoner.training.optimum import gap
from r2reasoner.training.rows import Row, item_row, plan_text, read_plan
from r2reasoner.training.shard_folder import Job, read_shards
from r2reasoner.training.shards import Factory, Process, run_shards
from r2reasoner.types import Plan, Query, Subtask, Task

DEV: frozenset[arithmetic.Side] = frozenset({"dev"})


def right_plan(node: arithmetic.Node) -> Plan:
    """Return the plan of one operation at a time that a perfect worker gets right."""
    for candidate in propose(arithmetic.render(node)):
        answers: dict[int, str] = {}
        try:
            for number, subtask in enumerate(candidate.plan.subtasks, 1):
                text = expand(subtask.text, answers)
                answers[number] = str(arithmetic.value_of(arithmetic.parse(text)))
        except ValueError:
            continue
        steps = len(list(arithmetic.operations(node)))
        if len(answers) == steps and expand(candidate.plan.answer, answers) == str(node.value):
            return candidate.plan
    raise AssertionError("no candidate is right")


def rows_of(operands: tuple[int, ...], seed: int = 0) -> list[Row]:
    """Return expressions that no worker was trained on, with plans of one step an operation."""
    rng = random.Random(f"allocations {seed}")
    nodes = [arithmetic.sample(count, DEV, rng) for count in operands]
    queries = [arithmetic.render(node) for node in nodes]
    return [
        item_row(Task(query, str(node.value)), "arithmetic")
        | {"plan": plan_text(right_plan(node), query)}
        for query, node in zip(queries, nodes, strict=True)
    ]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[OutcomeStore]:
    with OutcomeStore.open(tmp_path / "outcomes") as opened:
        yield opened


@pytest.fixture
async def client(store: OutcomeStore) -> AsyncIterator[RecordedClient]:
    recorded = RecordedClient(PoolClient(), store)
    yield recorded
    await recorded.close()


class TestOnTheNanoPool:
    async def test_a_row_can_be_kept_and_is_true(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        config = SearchConfig(thresholds=(-0.5, -0.1))
        search = GroupedSearch(nano, client, ledger, config)
        for row in rows_of((2, 3, 4, 4, 3, 2)):
            made = await search.process(row)
            assert FORM.checked(row, made) == made
            plan = read_plan(row["plan"], row["query"])
            models = json.loads(made["models"])
            meter = Meter(ledger, "again")
            answer, _ = await Executor(client, nano).execute(
                Query(row["query"], "again"),
                plan,
                pools.given(plan, *models),
                meter,
                lambda event: None,
                started=0.0,
            )
            assert made["right"] == (answer.text == row["gold"])
            assert made["cost"] == sum(call.cost or 0 for call in meter.calls)
            assert made["cost"] <= made["reference_cost"]
            texts = [in_context(plan, n) for n in range(1, len(plan.subtasks) + 1)]
            assert json.loads(made["subtasks"]) == texts

    @pytest.mark.parametrize("far", [False, True])
    async def test_no_single_move_is_right_and_cheaper(
        self, nano: Pool, client: RecordedClient, ledger: Ledger, far: bool
    ) -> None:
        ladder = Ladder(nano.workers)
        names = [card.name for card in ladder.cards]
        search = GroupedSearch(nano, client, ledger, SearchConfig(far=far))
        ended = 0
        for row in rows_of((2, 3, 3, 4, 4), seed=1):
            made = await search.process(row)
            path = json.loads(made["path"])
            tried = {tuple(t["models"]): t for t in path["trials"]}
            assert made["trials"] == len(path["trials"]) == len(tried)
            kept = json.loads(made["models"])
            if path["end"] != "no move helps":
                continue
            ended += 1
            for place, model in enumerate(kept):
                for across in (False, True):
                    for rung in ladder.below(names.index(model), across=across, far=far):
                        moved = (*kept[:place], names[rung], *kept[place + 1 :])
                        assert not tried[moved]["right"] or tried[moved]["cost"] >= made["cost"]
            assert made["cost"] == min(t["cost"] for t in path["trials"] if t["right"])
        assert ended >= 3

    async def test_a_subtask_starts_where_its_difficulty_belongs(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        row = rows_of((4,), seed=2)[0]
        middle = {Group.SMALL: "16x1", Group.MEDIUM: "32x2", Group.LARGE: "96x3"}
        told = await GroupedSearch(nano, client, ledger).logprobs(row)
        assert len(told) == 3
        assert all(logprob < 0 for logprob in told)
        low, middling, high = sorted(told)
        config = SearchConfig(thresholds=(middling, high))
        made = await GroupedSearch(nano, client, ledger, config).process(row)
        difficulty = json.loads(made["difficulty"])
        expected = {low: Group.LARGE, middling: Group.MEDIUM, high: Group.SMALL}
        assert difficulty["model"] == "32x2"
        assert difficulty["logprobs"] == told
        assert difficulty["groups"] == [expected[logprob] for logprob in told]
        assert difficulty["note"] is None
        trials = json.loads(made["path"])["trials"]
        assert [t["move"] for t in trials[:3]] == ["trial", "strongest", "start"]
        assert trials[2]["models"] == [middle[expected[logprob]] for logprob in told]

    async def test_the_trial_model_can_be_named(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        search = GroupedSearch(nano, client, ledger, SearchConfig(trial_model="24x2"))
        made = await search.process(rows_of((3,))[0])
        trials = json.loads(made["path"])["trials"]
        assert trials[0] | {"right": 0, "cost": 0} == {
            "move": "trial",
            "models": ["24x2", "24x2"],
            "right": 0,
            "cost": 0,
        }

    async def test_what_nobody_solves_is_kept_as_wrong_with_the_strongest(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        row = rows_of((3,))[0] | {"gold": "none of this"}
        made = await GroupedSearch(nano, client, ledger).process(row)
        assert made["right"] is False
        assert json.loads(made["models"]) == ["128x4", "128x4"]
        assert made["cost"] == made["reference_cost"] > 0
        assert json.loads(made["path"])["end"] == "never right"
        assert made["trials"] <= len(nano.workers)

    async def test_trials_are_not_overspent(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        for row in rows_of((4, 4, 3)):
            search = GroupedSearch(nano, client, ledger, SearchConfig(max_trials=4))
            made = await search.process(row)
            trials = json.loads(made["path"])["trials"]
            assert made["trials"] == len(trials) <= 4
            assert json.loads(made["path"])["end"] == "trials spent"
            assert made["right"] == any(t["right"] for t in trials)

    async def test_nothing_is_paid_for_twice(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        row = rows_of((4,))[0]
        search = GroupedSearch(nano, client, ledger)
        first = await search.process(row)
        await ledger.flush()
        paid = len(ledger.entries())
        assert await search.process(row) == first
        await ledger.flush()
        assert len(ledger.entries()) == paid > 0

    async def test_joins_get_no_model(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        plan = Plan((Subtask("walk left"), Subtask("run"), Subtask("#1 #1 #2")), "#3 #2")
        row = item_row(Task("a command", "I_TURN_LEFT I_WALK " * 2 + "I_RUN I_RUN"), "scan")
        row |= {"plan": plan_text(plan, "a command")}
        search = GroupedSearch(nano, client, ledger)
        made = await search.process(row)
        models = json.loads(made["models"])
        assert made["right"]
        assert models[2] is None
        assert None not in models[:2]
        found = await search.exhaustive(row)
        assert found.trials == 81
        assert found.cost is not None
        assert found.cost <= made["cost"] < made["reference_cost"]

    async def test_the_optimum_is_that_of_all_single_calls(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        row = rows_of((2,), seed=5)[0]
        assert row["plan"] == "="
        executor = Executor(client, nano)
        plan = read_plan("=", row["query"])
        costs = []
        for card in nano.workers:
            meter = Meter(ledger, "q")
            answer, _ = await executor.execute(
                Query(row["query"], "q"),
                plan,
                pools.given(plan, card.name),
                meter,
                lambda event: None,
                started=0.0,
            )
            if answer.text == row["gold"]:
                costs.append(meter.calls[0].cost)
        found = await GroupedSearch(nano, client, ledger).exhaustive(row)
        assert found == (min(c for c in costs if c is not None), 9, 9)

    async def test_grouped_search_is_near_the_optimum_and_saves_most_of_it(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        rows = rows_of((2, 3) * 8, seed=6)
        search = GroupedSearch(nano, client, ledger)
        told = [logprob for row in rows for logprob in await search.logprobs(row)]
        config = search.config.with_thresholds(told)
        search = GroupedSearch(nano, client, ledger, config)
        found = gap([await search.compare(row) for row in rows])
        assert found.total_ratio >= 1
        assert found.optimal >= 0.6
        assert found.trials < found.all_trials / 3
        assert found.calls < found.all_calls / 2

    async def test_too_many_allocations_are_not_tried(
        self, nano: Pool, client: RecordedClient, ledger: Ledger
    ) -> None:
        search = GroupedSearch(nano, client, ledger)
        with pytest.raises(DataError, match="729 allocations; at most 700"):
            await search.exhaustive(rows_of((4,))[0], most=700)
        assert ledger.entries() == []

    async def test_it_runs_under_the_shard_runner(self, nano: Pool, tmp_path: Path) -> None:
        rows = rows_of((2, 3, 4), seed=7)
        job = Job(out=tmp_path / "rows", rows=rows, config={"seed": 7}, form=FORM)
        kwargs = {"pool": nano.name, "store": tmp_path / "answers"}
        with SpendingLedger.open("sqlite://") as ledger:
            manifest = await run_shards(
                job, Factory("test_allocations:open_search", kwargs), ledger
            )
        assert manifest.whole
        made = list(read_shards(job.out))
        assert [row["item"] for row in made] == [row["item"] for row in rows]
        assert summary(made).startswith("3 items, ")


@asynccontextmanager
async def open_search(*, ledger: Ledger, pool: str, store: Path) -> AsyncIterator[Process]:
    """Give the process that the shard runner is to run."""
    async with AsyncExitStack() as held:
        inner = PoolClient()
        held.push_async_callback(inner.close)
        client = RecordedClient(inner, held.enter_context(OutcomeStore.open(store)))
        yield GroupedSearch(load_pool(pool), client, ledger).process


TOY_PLAN = Plan((Subtask("red"), Subtask("white")), "#1 #2")
"""`middle` can do the first of them, `large` both; `small` says nothing."""


def toy_row(plan: Plan = TOY_PLAN, gold: str = "RED WHITE") -> Row:
    task = Task("red and white", gold)
    return item_row(task, "shout") | {"plan": plan_text(plan, task.query)}


async def shouted(
    ledger: Ledger,
    provider: MockProvider | None = None,
    row: Row | None = None,
    *,
    config: SearchConfig | None = None,
    **pool: Any,
) -> tuple[Row, list[dict[str, Any]]]:
    async with AsyncExitStack() as held:
        running = await held.enter_async_context(provider or MockProvider(answer=toy_pool.answer))
        client = OpenAIClient(pools.NoJitter())
        held.push_async_callback(client.close)
        workers = replace(toy_pool.pool(running.base_url), **pool)
        made = await GroupedSearch(workers, client, ledger, config).process(row or toy_row())
    return made, json.loads(made["path"])["trials"]


class TestOnAToyPool:
    async def test_only_what_went_wrong_moves_up(self, ledger: Ledger) -> None:
        made, trials = await shouted(ledger)
        assert [t["models"] for t in trials[:3]] == [
            ["middle", "middle"],
            ["large", "large"],
            ["middle", "large"],
        ]
        assert [t["move"] for t in trials[:3]] == ["trial", "strongest", "up"]
        assert json.loads(made["models"]) == ["middle", "large"]
        assert made["right"]

    async def test_without_a_right_run_to_compare_with_all_move_up(self, ledger: Ledger) -> None:
        _, trials = await shouted(ledger, row=toy_row(gold="something else"))
        assert [t["models"] for t in trials] == [["middle", "middle"], ["large", "large"]]

    async def test_a_model_whose_place_another_took_is_not_right(self, ledger: Ledger) -> None:
        row = toy_row(Plan((Subtask("red"),), "#1"), "RED")
        made, trials = await shouted(ledger, row=row)
        small = next(t for t in trials if t["models"] == ["small"])
        assert not small["right"]
        assert small["fault"] == "no answer of small"
        assert json.loads(made["models"]) == ["middle"]

    async def test_where_no_probabilities_are_told_the_row_says_so(self, ledger: Ledger) -> None:
        made, _ = await shouted(ledger, config=SearchConfig(thresholds=(-2, -1)))
        difficulty = json.loads(made["difficulty"])
        assert difficulty["groups"] == ["medium", "medium"]
        assert difficulty["logprobs"] == [None, None]
        assert "no token probabilities" in difficulty["note"]
        assert made["right"]

    async def test_they_are_asked_of_the_trial_model_alone(self, ledger: Ledger) -> None:
        asked: set[tuple[str, object]] = set()

        def note(call: ChatCall) -> str:
            asked.add((call.model, call.body.get("logprobs")))
            return toy_pool.answer(call)

        provider = MockProvider(answer=note, logprob=lambda call: -3.0)
        config = SearchConfig(thresholds=(-2, -1))
        made, _ = await shouted(ledger, provider, config=config)
        assert json.loads(made["difficulty"])["groups"] == ["large", "large"]
        assert {told for model, told in asked if model != "middle"} == {None}
        assert ("middle", True) in asked

    async def test_an_endpoint_that_refuses_to_tell_is_asked_without(self, ledger: Ledger) -> None:
        def refuses(call: ChatCall) -> Fault | None:
            return Fault.BAD_REQUEST if call.body.get("logprobs") else None

        provider = MockProvider(answer=toy_pool.answer, faults=refuses)
        made, trials = await shouted(ledger, provider, config=SearchConfig(thresholds=(-2, -1)))
        difficulty = json.loads(made["difficulty"])
        assert difficulty["logprobs"] == [None, None]
        assert "no token probabilities" in difficulty["note"]
        assert trials[0]["models"] == ["middle", "middle"]
        assert "fault" not in trials[0]
        assert json.loads(made["models"]) == ["middle", "large"]

    async def test_the_strongest_may_give_the_trial_answers(self, ledger: Ledger) -> None:
        provider = MockProvider(answer=toy_pool.answer, logprob=lambda call: -1.5)
        config = SearchConfig(trial_model="large", thresholds=(-2, -1))
        made, trials = await shouted(ledger, provider, config=config)
        assert json.loads(made["difficulty"])["logprobs"] == [-1.5, -1.5]
        assert trials[0]["models"] == ["large", "large"]
        assert made["reference_cost"] == trials[0]["cost"]

    async def test_without_thresholds_all_start_in_the_middle(self, ledger: Ledger) -> None:
        provider = MockProvider(answer=toy_pool.answer, logprob=lambda call: -0.1)
        made, _ = await shouted(ledger, provider)
        difficulty = json.loads(made["difficulty"])
        assert difficulty["groups"] == ["medium", "medium"]
        assert difficulty["logprobs"] == [-0.1, -0.1]
        assert "no thresholds" in difficulty["note"]

    async def test_the_caller_says_what_is_right(self, ledger: Ledger) -> None:
        async with MockProvider(answer=toy_pool.answer) as provider:
            client = OpenAIClient()
            search = GroupedSearch(
                toy_pool.pool(provider.base_url), client, ledger, grade=lambda answer, gold: None
            )
            made = await search.process(toy_row())
            await client.close()
        assert made["right"] is False

    async def test_the_ledgers_cap_ends_it(self) -> None:
        with SpendingLedger.open("sqlite://") as ledger:
            ledger.cap = 3000
            with pytest.raises(CapReached):
                await shouted(ledger)

    async def test_costs_are_needed(self, ledger: Ledger) -> None:
        workers = toy_pool.pool("http://127.0.0.1:1/v1").workers
        unpriced = (replace(workers[0], price=None), *workers[1:])
        with pytest.raises(ConfigError, match="of small no price"):
            await shouted(ledger, workers=unpriced)

    async def test_an_unknown_trial_model(self, ledger: Ledger) -> None:
        with pytest.raises(ConfigError, match="no worker 'huge'"):
            await shouted(ledger, config=SearchConfig(trial_model="huge"))

    @pytest.mark.parametrize("plan", [None, "", "red ; blue #7"])
    async def test_a_row_without_a_plan(self, ledger: Ledger, plan: str | None) -> None:
        with pytest.raises(DataError, match="item"):
            await shouted(ledger, row=toy_row() | {"plan": plan})


@given(st.lists(st.floats(-20, 0), min_size=1))
def test_thresholds_part_the_data_at_their_quantiles(logprobs: list[float]) -> None:
    config = SearchConfig(quantiles=(0.25, 0.75)).with_thresholds(logprobs)
    assert config.thresholds is not None
    hard, easy = config.thresholds
    assert hard <= easy
    assert {hard, easy} <= set(logprobs)
    large = sum(config.group(logprob) is Group.LARGE for logprob in logprobs)
    small = sum(config.group(logprob) is Group.SMALL for logprob in logprobs)
    assert large <= 0.25 * len(logprobs) + 1
    assert small >= 0.25 * len(logprobs) - 1


def test_without_data_there_are_no_thresholds() -> None:
    assert SearchConfig(thresholds=(-2, -1)).with_thresholds([]).thresholds is None
    assert SearchConfig().group(-5.0) is Group.MEDIUM


def test_the_summary_is_one_line() -> None:
    rows = [
        {"right": True, "cost": 10, "reference_cost": 100, "trials": 4},
        {"right": False, "cost": 500, "reference_cost": 500, "trials": 8},
    ]
    assert summary(rows) == (
        "2 items, 1 solved, at 10.0% of what the strongest model costs everywhere, in 6.0 trials an"
        " item"
    )
    assert summary([]).startswith("0 items")
