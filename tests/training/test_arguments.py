"""Arguments for TRL: every field is set by us or left out for a reason, and its trainers run."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import ConfigError
from r2reasoner.training.arguments import (
    LEFT_OUT,
    grpo_arguments,
    lora_arguments,
    seed_of,
    sft_arguments,
)
from r2reasoner.training.recipe import Grpo, Lora, Recipe, load_recipe

OUT = Path("out")
LEFT = {name for names in LEFT_OUT.values() for name in names}


def with_grpo(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, grpo=replace(recipe.grpo, **changes))


def with_sft(recipe: Recipe, **changes: Any) -> Recipe:
    decomposer = replace(recipe.sft.decomposer, **changes)
    return replace(recipe, sft=replace(recipe.sft, decomposer=decomposer))


class TestEveryField:
    """A new version of TRL with a new field fails here, so it decides nothing silently."""

    def test_of_fine_tuning_is_set_or_left_out_for_a_reason(self) -> None:
        trl = pytest.importorskip("trl", reason="training needs trl")
        theirs = {f.name for f in fields(trl.SFTConfig) if f.init}
        ours = set(sft_arguments(Recipe(), "decomposer", OUT, "cpu"))
        assert ours - theirs == set(), "no such field any more"
        assert theirs - ours - LEFT == set(), "decided by TRL"
        assert not ours & LEFT

    def test_of_reinforcement_is_set_or_left_out_for_a_reason(self) -> None:
        trl = pytest.importorskip("trl", reason="training needs trl")
        theirs = {f.name for f in fields(trl.GRPOConfig) if f.init}
        ours = set(grpo_arguments(Recipe(), "decomposer", 1, OUT, "cpu"))
        assert ours - theirs == set(), "no such field any more"
        assert theirs - ours - LEFT == set(), "decided by TRL"
        assert not ours & LEFT

    def test_what_is_left_out_is_a_field_of_theirs(self) -> None:
        trl = pytest.importorskip("trl", reason="training needs trl")
        theirs = {f.name for kind in (trl.SFTConfig, trl.GRPOConfig) for f in fields(kind)}
        assert theirs >= LEFT


class TestFineTuning:
    def test_has_the_recipes_settings(self) -> None:
        recipe = with_sft(Recipe(), steps=100, batch=24, learning_rate=0.5, max_grad_norm=0.1)
        made = sft_arguments(recipe, "decomposer", OUT, "cpu")
        wanted = {
            "max_steps": 100,
            "per_device_train_batch_size": 24,
            "gradient_accumulation_steps": 1,
            "learning_rate": 0.5,
            "max_grad_norm": 0.1,
            "output_dir": "out",
            "eval_strategy": "steps",
        }
        assert {name: made[name] for name in wanted} == wanted

    def test_by_epochs_has_no_steps(self) -> None:
        made = sft_arguments(with_sft(Recipe(), steps=0, epochs=2.5), "decomposer", OUT, "cpu")
        assert (made["max_steps"], made["num_train_epochs"]) == (-1, 2.5)

    def test_without_validation_measures_nothing(self) -> None:
        made = sft_arguments(with_sft(Recipe(), validation=0.0), "decomposer", OUT, "cpu")
        assert (made["eval_strategy"], made["eval_on_start"]) == ("no", False)
        assert made["metric_for_best_model"] is None

    def test_cuts_no_row_and_counts_only_answers(self) -> None:
        made = sft_arguments(Recipe(), "allocator", OUT, "cpu")
        assert made["max_length"] is None
        assert made["completion_only_loss"] is True

    def test_a_trapezoid_falls_over_its_share_and_needs_steps(self) -> None:
        recipe = with_sft(Recipe(), schedule="trapezoid", steps=200, decay_share=0.25)
        made = sft_arguments(recipe, "decomposer", OUT, "cpu")
        assert made["lr_scheduler_type"] == "warmup_stable_decay"
        assert made["lr_scheduler_kwargs"] == {"num_decay_steps": 50, "decay_type": "linear"}
        with pytest.raises(ConfigError, match="trapezoid needs steps"):
            sft_arguments(with_sft(recipe, steps=0, epochs=1.0), "decomposer", OUT, "cpu")


class TestReinforcement:
    def test_is_on_policy_and_has_the_recipes_settings(self) -> None:
        made = grpo_arguments(Recipe(), "allocator", 1, OUT, "cpu")
        wanted = {
            "generation_batch_size": 32 * 16,
            "num_generations": 16,
            "per_device_train_batch_size": 32 * 16,
            "gradient_accumulation_steps": 1,
            "num_iterations": 1,
            "max_steps": Grpo().steps_allocator,
            "learning_rate": Grpo().learning_rate_allocator,
            "scale_rewards": "none",
            "loss_type": "dr_grpo",
            "beta": 0.0,
            "use_vllm": False,
            "remove_unused_columns": False,
            "save_strategy": "no",
        }
        assert {name: made[name] for name in wanted} == wanted

    def test_several_updates_on_a_sample_make_more_steps(self) -> None:
        recipe = with_grpo(Recipe(), num_iterations=3, steps_decomposer=10)
        assert grpo_arguments(recipe, "decomposer", 1, OUT, "cpu")["max_steps"] == 30

    @pytest.mark.parametrize(
        ("micro_batch", "processes", "each", "accumulated"),
        [(0, 1, 512, 1), (64, 1, 64, 8), (0, 4, 128, 1), (32, 4, 32, 4)],
    )
    def test_a_step_is_shared_by_devices_and_micro_batches(
        self, micro_batch: int, processes: int, each: int, accumulated: int
    ) -> None:
        recipe = with_grpo(Recipe(), micro_batch=micro_batch)
        made = grpo_arguments(recipe, "decomposer", 1, OUT, "cpu", processes)
        shared = (made["per_device_train_batch_size"], made["gradient_accumulation_steps"])
        assert shared == (each, accumulated)
        assert each * accumulated * processes == made["generation_batch_size"]

    def test_a_step_that_cannot_be_shared_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="is 512: expected a multiple of 3 processes"):
            grpo_arguments(Recipe(), "decomposer", 1, OUT, "cpu", 3)

    def test_vllm_has_room_for_prompt_and_completion(self) -> None:
        made = grpo_arguments(load_recipe("qwen2.5-7b"), "decomposer", 1, OUT, "cuda")
        assert made["use_vllm"] is True
        assert made["vllm_mode"] == "colocate"
        assert made["vllm_max_model_length"] == 1024 + 512
        assert made["vllm_gpu_memory_utilization"] == 0.35
        served = with_grpo(
            load_recipe("qwen2.5-7b"),
            vllm=replace(Grpo().vllm, mode="server", url="http://localhost:8000"),
        )
        made = grpo_arguments(served, "decomposer", 1, OUT, "cuda")
        assert made["vllm_mode"] == "server"
        assert made["vllm_server_base_url"] == "http://localhost:8000"


class TestDevice:
    def test_a_cpu_computes_in_full_precision(self) -> None:
        made = sft_arguments(Recipe(), "decomposer", OUT, "cpu")
        assert made["use_cpu"] is True
        assert not any(made[n] for n in ("bf16", "fp16", "tf32", "dataloader_pin_memory"))
        assert made["activation_checkpointing"] is made["gradient_checkpointing"] is False
        assert made["report_to"] == "none"

    def test_a_large_policy_on_a_gpu_in_bfloat16_with_checkpointing(self) -> None:
        made = grpo_arguments(load_recipe("qwen2.5-7b"), "allocator", 1, OUT, "cuda")
        assert made["use_cpu"] is False
        assert made["bf16"] is made["dataloader_pin_memory"] is True
        assert made["activation_checkpointing"] is made["gradient_checkpointing"] is True
        assert made["activation_checkpointing_kwargs"] == {"use_reentrant": False}

    def test_a_nano_policy_on_a_gpu_needs_no_checkpointing(self) -> None:
        made = grpo_arguments(Recipe(), "allocator", 1, OUT, "cuda")
        assert (made["use_cpu"], made["bf16"]) == (False, False)
        assert made["activation_checkpointing"] is False

    def test_bfloat16_on_a_cpu_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="bfloat16 needs a GPU"):
            sft_arguments(load_recipe("qwen2.5-7b"), "decomposer", OUT, "cpu")


class TestSeeds:
    def test_every_stage_has_its_own_and_keeps_it(self) -> None:
        first, other = load_recipe("tiny"), load_recipe("tiny", ["recipe.seed=1"])
        names = ["sft decomposer 0", "sft allocator 0", "grpo decomposer 1", "grpo decomposer 2"]
        seeds = [seed_of(recipe, name) for recipe in (first, other) for name in names]
        assert len(set(seeds)) == len(seeds)
        assert all(0 <= seed < 2**31 for seed in seeds)
        assert seed_of(load_recipe("tiny"), names[0]) == seeds[0]

    def test_a_fit_of_its_own(self) -> None:
        again = with_sft(Recipe(), seed=1)
        seeds = {sft_arguments(r, "decomposer", OUT, "cpu")["seed"] for r in (Recipe(), again)}
        assert len(seeds) == 2


def test_an_adapter_keeps_its_settings() -> None:
    peft = pytest.importorskip("peft", reason="training needs peft")
    made = peft.LoraConfig(**lora_arguments(Lora(rank=8, alpha=4, targets=("q_proj",))))
    assert (made.r, made.lora_alpha, made.target_modules) == (8, 4, {"q_proj"})


# transformers warns where TRL itself reads a name that is to go
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
class TestTrainers:
    """TRL's own trainers take the arguments, for a nano policy on a CPU."""

    @pytest.fixture
    def small(self) -> Recipe:
        recipe = with_grpo(
            load_recipe("tiny"), prompts_per_step=2, steps_decomposer=2, micro_batch=4
        )
        return with_sft(recipe, steps=3, batch=4, micro_batch=2, log_every=1, evaluate_every=3)

    @pytest.fixture
    def policy(self, small: Recipe) -> Any:
        for package in ("torch", "trl", "datasets"):
            pytest.importorskip(package, reason=f"training needs {package}")
        from r2reasoner.nano.presets import Shape
        from r2reasoner.nano.vocabulary import policy_vocabulary
        from r2reasoner.training.policies import new_policy

        assert small.policies.decomposer.shape is not None
        return new_policy(Shape(*small.policies.decomposer.shape), policy_vocabulary(), 0)

    def test_fine_tuning(self, small: Recipe, policy: Any, tmp_path: Path) -> None:
        trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
        words = policy.tokenizer.convert_tokens_to_ids(["<bos>", "walk", "<sep>", "=", "<eos>"])
        row = {"input_ids": words, "completion_mask": [0, 0, 0, 1, 1]}
        trainer = trl.SFTTrainer(
            model=policy.model,
            args=trl.SFTConfig(**sft_arguments(small, "decomposer", tmp_path, "cpu")),
            train_dataset=datasets.Dataset.from_list([row] * 8),
            eval_dataset=datasets.Dataset.from_list([row] * 2),
            processing_class=policy.tokenizer,
        )
        trainer.train()
        log = trainer.state.log_history
        losses = [line["eval_loss"] for line in log if "eval_loss" in line]
        assert len(losses) == 2, "at the start, and after the last step"
        assert losses[1] < losses[0]
        rates = [line["learning_rate"] for line in log if "learning_rate" in line]
        assert len(rates) == 3
        assert not list(tmp_path.glob("checkpoint-*"))

    def test_reinforcement(self, small: Recipe, policy: Any, tmp_path: Path) -> None:
        trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
        asked: list[int] = []

        def reward(completions: Sequence[str], **columns: Any) -> list[float]:
            asked.append(len(completions))
            return [float(len(c.split()) % 3) for c in completions]

        trainer = trl.GRPOTrainer(
            model=policy.model,
            reward_funcs=reward,
            args=trl.GRPOConfig(**grpo_arguments(small, "decomposer", 1, tmp_path, "cpu")),
            train_dataset=datasets.Dataset.from_list([{"prompt": "<bos> walk left <sep>"}] * 8),
            processing_class=policy.tokenizer,
        )
        trainer.train()
        # two prompts, four completions each, once for every step: on-policy
        assert asked == [8, 8]
        assert trainer.state.global_step == 2
        assert all(math.isfinite(line.get("loss", 0.0)) for line in trainer.state.log_history)
