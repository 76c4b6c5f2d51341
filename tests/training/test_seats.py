"""The policies' seats: who leaves, and what a policy on a base of its own is billed like."""

from dataclasses import replace
from pathlib import Path

import pytest

import pools
from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Pool
from r2reasoner.training.recipe import Recipe, load_recipe
from r2reasoner.training.seats import billed_like, check_seats, with_policy
from r2reasoner.types import Role


@pytest.fixture
def pool() -> Pool:
    return pools.pool_at("http://localhost:1/v1")


def recipe_on(tmp_path: Path, *bases: str) -> Recipe:
    """Return a recipe with these bases, of the decomposer and of the allocator."""
    file = tmp_path / "mine.toml"
    lines = ["[data]", 'nano_set = "none"', 'proposer = "prompted"', 'proposer_model = "large"']
    lines += ["[[data.sources]]", 'benchmark = "items.jsonl"']
    for name, base in zip(("decomposer", "allocator"), bases, strict=True):
        lines += [f"[policies.{name}]", f'base = "{base}"']
    file.write_text("\n".join(lines))
    return load_recipe(file)


def test_a_policy_takes_its_seat_and_the_one_before_leaves(pool: Pool) -> None:
    trained = pools.card_at("http://localhost:1/v1", "trained")
    other = pools.card_at("http://localhost:1/v1", "other")
    first = with_policy(pool, Role.DECOMPOSER, trained)
    assert (first.decomposer, list(first.policies)) == ("trained", ["trained"])
    assert first.allocator == pool.allocator
    both = with_policy(first, Role.ALLOCATOR, other)
    assert (both.decomposer, both.allocator) == ("trained", "other")
    assert set(both.policies) == {"trained", "other"}
    again = with_policy(both, Role.DECOMPOSER, replace(trained, model="better"))
    assert again.policies["trained"].model == "better"
    assert set(again.policies) == {"trained", "other"}
    assert set(pool.policies) == {"planner"}


def test_a_base_that_is_a_worker_is_billed_like_it(pool: Pool, tmp_path: Path) -> None:
    recipe = recipe_on(tmp_path, "elsewhere/small", "/models/medium/")
    assert billed_like(pool, recipe, "decomposer").name == "small"
    assert billed_like(pool, recipe, "allocator").name == "medium"
    check_seats(pool, recipe)


def test_any_other_is_billed_like_the_policy_that_it_replaces(pool: Pool, tmp_path: Path) -> None:
    recipe = recipe_on(tmp_path, "some/base", "16x1")
    assert billed_like(pool, recipe, "decomposer").name == "planner"
    check_seats(pool, recipe)


def test_a_pool_without_the_policy_is_refused(pool: Pool, tmp_path: Path) -> None:
    recipe = recipe_on(tmp_path, "16x1", "some/base")
    with pytest.raises(ConfigError, match=r"does not say what the allocator \(base\) costs"):
        check_seats(pool, recipe)
    # a worker in the seat is no policy
    with pytest.raises(ConfigError, match="no decomposer policy"):
        check_seats(
            replace(pool, decomposer="large", policies={}), recipe_on(tmp_path, "a/b", "16x1")
        )


def test_a_policy_without_a_price_is_refused(pool: Pool, tmp_path: Path) -> None:
    planner = replace(pool.policies["planner"], price=None)
    unpriced = replace(pool, policies={"planner": planner})
    with pytest.raises(ConfigError, match="planner: set its input_price"):
        check_seats(unpriced, recipe_on(tmp_path, "some/base", "16x1"))


def test_nano_policies_ask_nothing_of_a_pool(pool: Pool, tmp_path: Path) -> None:
    check_seats(replace(pool, policies={}, decomposer="large"), recipe_on(tmp_path, "16x2", "8x1"))
