"""Speeds that forecasts take for granted: what makes a step longer, and what does not."""

from dataclasses import replace
from typing import Any

import pytest

from r2reasoner.training.recipe import Recipe, load_recipe
from r2reasoner.training.speed import STEP_S, calls_s, grpo_step_s, learning_s, on_gpu


def changed(recipe: Recipe, **grpo: Any) -> Recipe:
    return replace(recipe, grpo=replace(recipe.grpo, **grpo))


@pytest.mark.parametrize(
    ("device", "nano", "large"),
    [("auto", False, True), ("cpu", False, False), ("cuda", True, True)],
)
def test_a_gpu_is_taken_for_granted_for_large_policies(
    device: Any, nano: bool, large: bool
) -> None:
    for name, expected in (("nano", nano), ("qwen2.5-7b", large)):
        recipe = load_recipe(name)
        assert on_gpu(replace(recipe, hardware=replace(recipe.hardware, device=device))) is expected


def test_steps_take_longer_with_more_to_do() -> None:
    recipe = Recipe()
    assert STEP_S < learning_s(recipe, "decomposer", 1e4) < learning_s(recipe, "decomposer", 1e5)
    assert grpo_step_s(recipe, "decomposer") < grpo_step_s(changed(recipe, group=64), "decomposer")
    twice = changed(recipe, num_iterations=2)
    assert grpo_step_s(recipe, "decomposer") < grpo_step_s(twice, "decomposer")


def test_more_processes_share_the_work() -> None:
    one = load_recipe("qwen2.5-7b")
    four = replace(one, hardware=replace(one.hardware, processes=4))
    assert learning_s(four, "decomposer", 1e6) < learning_s(one, "decomposer", 1e6)
    assert grpo_step_s(four, "decomposer") < grpo_step_s(one, "decomposer")


def test_an_adapter_is_quicker_to_train_than_all_of_a_model() -> None:
    adapted = load_recipe("qwen2.5-7b")
    whole = replace(adapted.policies.decomposer, lora=None)
    full = replace(adapted, policies=replace(adapted.policies, decomposer=whole))
    assert learning_s(adapted, "decomposer", 1e6) < learning_s(full, "decomposer", 1e6)


def test_a_policy_of_unknown_size_still_takes_a_step() -> None:
    recipe = load_recipe("qwen2.5-7b")
    other = replace(recipe.policies.decomposer, base="nowhere")
    unknown = replace(recipe, policies=replace(recipe.policies, decomposer=other))
    assert learning_s(unknown, "decomposer", 1e6) == STEP_S
    assert grpo_step_s(unknown, "decomposer") > STEP_S


def test_calls_over_http_go_side_by_side() -> None:
    assert calls_s(0, 1000, 10) == 10 * calls_s(0, 1000, 100)
    assert calls_s(1000, 0, 10) == calls_s(1000, 0, 100)
