"""Forecasts: calls and dollars that can be counted by hand, and what is refused beforehand."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import toy_pool
from r2reasoner.budget import Meter
from r2reasoner.client import ChatRequest
from r2reasoner.client.wire import bound
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.training.forecast import (
    Forecast,
    check_budget,
    check_items,
    check_pool,
    forecast,
)
from r2reasoner.training.recipe import Recipe, Source, load_recipe, stages
from r2reasoner.types import Message, Role, Usage, to_dollars

ITEMS = toy_pool.items(6)


@pytest.fixture
def pool() -> Pool:
    return toy_pool.pool("http://localhost:1")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The tiny recipe over six items, each of which has three candidates."""
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"query": i.query, "answer": i.gold}) + "\n" for i in ITEMS))
    tiny = load_recipe("tiny", ["evaluate.items=10", "data.search.exhaustive_items=0"])
    source = Source(benchmark=str(file), scorer="sequence")
    return replace(tiny, data=replace(tiny.data, sources=(source,)))


def with_grpo(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, grpo=replace(recipe.grpo, **changes))


def with_cap(recipe: Recipe, dollars: Decimal) -> Recipe:
    return replace(recipe, run=replace(recipe.run, cap=dollars))


def by_stage(made: Forecast) -> dict[str, int]:
    return {stage.name: stage.calls for stage in made.stages}


class TestCounts:
    def test_decompositions_are_counted_exactly(self, recipe: Recipe, pool: Pool) -> None:
        made = forecast(recipe, pool, ["decompositions"])
        # directly, and cut in two in either order
        (stage,) = made.stages
        assert dict(stage.models).keys() == {"large"}
        assert stage.calls == 6 * (1 + 2 + 2)
        large = pool.card("large").price
        assert large is not None
        # 3 words asked in 2 parts, 2 words answered, and the tokens around them
        assert stage.cost == 30 * large.cost(Usage(4, 2))

    def test_a_worker_of_ones_own_runs_them(self, recipe: Recipe, pool: Pool) -> None:
        own = replace(recipe, data=replace(recipe.data, worker="small"))
        made = forecast(own, pool, ["decompositions"])
        assert made.models.keys() == {"small"}
        strongest = forecast(recipe, pool, ["decompositions"])
        assert made.known_cost * 100 == strongest.known_cost

    def test_a_prompted_proposer_is_asked_for_every_candidate_but_one(
        self, recipe: Recipe, pool: Pool
    ) -> None:
        data = replace(recipe.data, proposer="prompted", proposer_model="middle", candidates=4)
        made = forecast(replace(recipe, data=data), pool, ["decompositions"])
        assert made.models["middle"].calls == 6 * 3
        assert made.models["large"].calls == 6 * (1 + 3 * 4)

    def test_the_stages_of_a_run_that_cost_something(self, recipe: Recipe, pool: Pool) -> None:
        made = forecast(recipe, pool)
        names = [stage.name for stage in made.stages]
        assert names == [n for n in stages(recipe) if n not in ("workers", "pool")]
        assert made.calls == sum(by_stage(made).values())
        assert made.hours == sum(stage.hours for stage in made.stages) > 0
        assert made.cost == sum(paid.cost or 0 for paid in made.models.values())

    def test_fine_tuning_calls_nobody(self, recipe: Recipe, pool: Pool) -> None:
        made = forecast(recipe, pool, ["sft-decomposer", "sft-allocator"])
        assert (made.calls, made.cost) == (0, 0)
        assert made.hours > 0

    def test_what_is_left_out_of_a_recipe_is_left_out_here(
        self, recipe: Recipe, pool: Pool
    ) -> None:
        none = replace(recipe.sft.decomposer, steps=0)
        less = replace(recipe, sft=replace(recipe.sft, decomposer=none))
        assert "sft-decomposer" not in by_stage(forecast(less, pool))

    def test_evaluation_answers_everything_at_every_setting(
        self, recipe: Recipe, pool: Pool
    ) -> None:
        made = forecast(recipe, pool, ["evaluate"])
        answers = 2 * 10 * 3  # splits, items, settings
        assert made.models["policy decomposer"].calls == answers
        assert made.models["policy allocator"].calls == answers * 2
        workers = sum(made.models[card.name].calls for card in pool.workers)
        assert workers == answers * 2

    def test_an_answer_is_paid_once(self, recipe: Recipe, pool: Pool) -> None:
        """More steps over the same items meet the same subtasks."""
        few, many = (
            by_stage(forecast(with_grpo(recipe, steps_allocator=n), pool))["grpo-1-allocator"]
            for n in (50, 5000)
        )
        assert few == many
        again = forecast(with_grpo(recipe, rounds=2, steps_allocator=50), pool)
        workers = {card.name for card in pool.workers}
        last = next(stage for stage in again.stages if stage.name == "grpo-2-allocator")
        assert sum(paid.calls for name, paid in last.models.items() if name in workers) == 0

    def test_a_nano_policy_is_billed_by_its_size(self, recipe: Recipe, pool: Pool) -> None:
        larger = replace(recipe.policies.allocator, base="32x2")
        changed = replace(recipe, policies=replace(recipe.policies, allocator=larger))
        costs = [
            forecast(r, pool, ["grpo-1-allocator"]).models["policy allocator"].cost
            for r in (recipe, changed)
        ]
        assert costs[0] is not None
        assert costs[1] is not None
        assert 0 < costs[0] < costs[1]


class TestUnknown:
    def test_a_price_makes_the_cost_unknown_and_is_told(self, recipe: Recipe, pool: Pool) -> None:
        large = replace(pool.workers[-1], price=None)
        made = forecast(recipe, replace(pool, workers=(*pool.workers[:-1], large)))
        assert made.cost is None
        assert made.known_cost > 0
        assert made.models["large"].cost is None
        assert any("no known price: large; under the cap" in note for note in made.notes)

    def test_a_policy_that_is_not_there(self, recipe: Recipe, pool: Pool) -> None:
        unknown = replace(recipe.policies.decomposer, base="nowhere")
        changed = replace(recipe, policies=replace(recipe.policies, decomposer=unknown))
        made = forecast(changed, pool)
        assert made.memory["decomposer"] is None
        assert any("memory of the decomposer unknown" in note for note in made.notes)

    def test_a_file_of_items(self, recipe: Recipe, pool: Pool) -> None:
        later = Source(benchmark="later.jsonl", count=5)
        made = forecast(replace(recipe, data=replace(recipe.data, sources=(later,))), pool)
        assert made.notes[0] == "later.jsonl: not there yet; its items are assumed"
        with pytest.raises(DataError, match=r"later\.jsonl: no such file"):
            check_items(made)
        check_items(forecast(recipe, pool))


class TestBudget:
    async def test_the_reserve_of_a_group_is_what_its_calls_hold(
        self, recipe: Recipe, pool: Pool, ledger: Ledger
    ) -> None:
        made = forecast(recipe, pool)
        assert made.group_reserve is not None
        large = pool.card("large")
        subtask = ChatRequest(
            messages=(Message("user", "red"),), max_tokens=large.max_tokens, role=Role.WORKER
        )
        meter = Meter(ledger, new_id(), made.group_reserve)

        async def reserve() -> None:
            usage = bound(large, subtask)
            await meter.open(large, usage, role=Role.WORKER, subtask=1, attempt=1, note=None)

        # two subtasks each
        for _ in range(recipe.grpo.group * 2):
            await reserve()
        assert made.group_reserve < 2 * meter.reserved

    def test_a_cap_below_it_is_refused(self, recipe: Recipe, pool: Pool) -> None:
        made = forecast(recipe, pool)
        assert made.group_reserve is not None
        enough = to_dollars(made.group_reserve)
        check_budget(with_cap(recipe, enough), made)
        little = with_cap(recipe, enough - Decimal("0.000000000001"))
        with pytest.raises(ConfigError, match="too small for one group: its 4 rollouts") as error:
            check_budget(little, made)
        assert "raise cap" in str(error.value)

    def test_a_cap_that_ends_the_training_early_is_told(self, recipe: Recipe, pool: Pool) -> None:
        made = forecast(with_cap(recipe, Decimal("0.001")), pool)
        assert any("will end the training early" in note for note in made.notes)
        assert not forecast(recipe, pool).notes

    def test_without_any_price_nothing_can_be_called(self, recipe: Recipe, pool: Pool) -> None:
        free = tuple(replace(card, price=None) for card in pool.workers)
        made = forecast(recipe, replace(pool, workers=free))
        with pytest.raises(ConfigError, match=r"no worker of pool .* has a known price"):
            check_budget(recipe, made)

    def test_stages_without_calls_need_no_budget(self, recipe: Recipe, pool: Pool) -> None:
        made = forecast(recipe, pool, ["sft-decomposer"])
        check_budget(with_cap(recipe, Decimal("0.000000000001")), made)


class TestPool:
    @pytest.mark.parametrize("key", ["worker", "proposer_model"])
    def test_models_that_it_lacks_are_refused(self, key: str, recipe: Recipe, pool: Pool) -> None:
        other: dict[str, Any] = {key: "huge"}
        with pytest.raises(ConfigError, match="no model 'huge' in pool 'toy'"):
            check_pool(replace(recipe, data=replace(recipe.data, **other)), pool)

    def test_more_workers_than_an_allocator_can_name(self, recipe: Recipe, pool: Pool) -> None:
        many = tuple(replace(pool.workers[0], name=f"w{n}") for n in range(13))
        with pytest.raises(ConfigError, match="13 workers; an allocator policy can name 12"):
            forecast(recipe, replace(pool, workers=many))


class TestPaper:
    """The paper's pool and the 7B recipe: real list prices, nothing reached."""

    def test_what_cannot_be_known_is_said(self) -> None:
        recipe = load_recipe("qwen2.5-7b")
        made = forecast(recipe, load_pool(recipe.run.pool))
        assert made.cost is None
        assert made.models["gpt-4o"].cost
        assert made.models["policy decomposer"].cost == 0
        assert "policies run on your own machines: in hours, not in dollars" in made.assumptions
        assert any(n.startswith("no known price: Qwen2.5-0.5B-Instruct") for n in made.notes)
        check_budget(recipe, made)

    def test_a_gpu_that_is_too_small_is_told(self) -> None:
        recipe = load_recipe("qwen2.5-7b", ["hardware.gpu_memory_gib=24"])
        notes = forecast(recipe, load_pool(recipe.run.pool)).notes
        assert any("the decomposer needs about" in note for note in notes)
        assert any("memory_share gives vLLM 8 GiB" in note for note in notes)
