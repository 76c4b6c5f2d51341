"""A recipe's settings as the full keyword sets of TRL: nothing is left to a default of theirs.

`sft_arguments` and `grpo_arguments` name every field of SFTConfig and GRPOConfig (TRL 1.16) but
those in `LEFT_OUT`, each with its reason; a test compares them with the classes. What a recipe does
not choose stands here with its reason. Leaves out torch and TRL: these are plain values.

Saving is ours: TRL's `save_strategy` is "no", and a callback that sets `control.should_save` at the
end of a step makes the trainer write a whole checkpoint at a boundary between generations.
"""

import hashlib
from pathlib import Path
from typing import Any, Final, Literal

from r2reasoner.errors import ConfigError
from r2reasoner.training.recipe import Grpo, Learning, Lora, PolicyName, Recipe

Device = Literal["cpu", "cuda"]

OPTIMIZERS: Final = {
    "adamw": "adamw_torch",
    "adamw_fused": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "adafactor": "adafactor",
    # made by us and handed to the trainer, which then does not read this
    "muon": "adamw_torch",
}
SCHEDULES: Final = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant_with_warmup",
    "trapezoid": "warmup_stable_decay",
}
LEFT_OUT: Final = {
    "fields of the launcher: `accelerate launch --config_file` decides how processes share work": (
        *("fsdp", "fsdp_config", "deepspeed", "parallelism_config", "local_rank"),
        *("ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_static_graph"),
    ),
    "nothing is sent anywhere (push_to_hub, report_to)": (
        *("hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"),
        *("hub_revision", "log_completions_hub_repo", "project", "trackio_space_id"),
        *("trackio_bucket_id", "trackio_static_space_id"),
    ),
    "read by scripts of transformers, not by its trainer": (
        *("do_train", "do_eval", "do_predict", "resume_from_checkpoint"),
    ),
    "deprecated, and set by their successors": (
        *("pad_token", "use_transformers_paged", "vllm_importance_sampling_cap"),
    ),
    "follows from generation_batch_size": ("steps_per_generation",),
    "losses that a recipe cannot choose": (
        *("sapo_temperature_neg", "sapo_temperature_pos", "vespo_k_pos", "vespo_lambda_pos"),
        *("vespo_k_neg", "vespo_lambda_neg"),
    ),
}
"""Fields that are not set here, by the reason why their default decides nothing."""


def seed_of(recipe: Recipe, stage: str) -> int:
    """Return a stage's own seed, below 2**31; the same recipe and stage always have the same."""
    content = f"{recipe.run.seed} {stage}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=4).digest()) % 2**31


def sft_arguments(
    recipe: Recipe, name: PolicyName, out: Path, device: Device, processes: int = 1
) -> dict[str, Any]:
    """Return SFTConfig's keywords for fine-tuning a policy; `out` is the trainer's folder.

    `processes` is how many train side by side. No row is cut: rows longer than the policy's
    limits are to be left out before. Raises ConfigError where the device cannot do it.
    """
    sft, policy = recipe.sft[name], recipe.policies[name]
    rows = _per_device(f"[sft.{name}] batch", sft.batch, sft.micro_batch, processes)
    measured = sft.validation > 0
    return {
        **_learning(sft, sft.steps, sft.learning_rate, rows, f"[sft.{name}]"),
        **_machine(device, policy.dtype, f"[policies.{name}]", checkpointing=policy.shape is None),
        **_housekeeping(out, seed_of(recipe, f"sft {name} {sft.seed}"), f"{recipe.run.name} sft"),
        "num_train_epochs": sft.epochs or 1.0,  # not read where there are steps
        "eval_strategy": "steps" if measured else "no",
        "eval_steps": sft.evaluate_every,
        "eval_on_start": measured,
        "metric_for_best_model": "eval_loss" if measured else None,
        "greater_is_better": False if measured else None,
        "remove_unused_columns": True,
        "shuffle_dataset": True,
        # the data
        "chat_template_path": None,
        "dataset_text_field": "text",
        "dataset_kwargs": None,
        "dataset_num_proc": None,
        "eos_token": None,
        "max_length": None,
        "truncation_mode": "keep_start",
        "packing": False,
        "packing_strategy": "bfd",
        "eval_packing": False,
        "padding_free": False,
        # the loss: on what the policy writes, not on what it is asked
        "loss_type": "nll",
        "completion_only_loss": True,
        "assistant_only_loss": False,
        "activation_offloading": False,
    }


def grpo_arguments(
    recipe: Recipe,
    name: PolicyName,
    round_: int,
    out: Path,
    device: Device,
    processes: int = 1,
) -> dict[str, Any]:
    """Return GRPOConfig's keywords for one phase: a policy's steps in a round (from 1).

    A step generates `prompts_per_step` x `group` completions over all processes and learns from
    them at once, so training is on-policy while `num_iterations` is 1. Raises ConfigError where
    the device cannot do it.
    """
    grpo, policy = recipe.grpo, recipe.policies[name]
    rows = _per_device(
        "[grpo] prompts_per_step x group", grpo.completions, grpo.micro_batch, processes
    )
    updates = grpo.steps(name) * grpo.num_iterations
    return {
        **_learning(grpo, updates, grpo.learning_rate(name), rows, "[grpo]"),
        **_machine(device, policy.dtype, f"[policies.{name}]", checkpointing=policy.shape is None),
        **_housekeeping(out, seed_of(recipe, f"grpo {name} {round_}"), f"{recipe.run.name} grpo"),
        "num_train_epochs": 1.0,  # not read: there are steps
        "eval_strategy": "no",  # the greedy, served policy is what is measured
        "eval_steps": None,
        "eval_on_start": False,
        "metric_for_best_model": None,
        "greater_is_better": None,
        "remove_unused_columns": False,  # the reward reads them
        "shuffle_dataset": True,
        # sampling
        "num_generations": grpo.group,
        "num_generations_eval": grpo.group,
        "generation_batch_size": grpo.completions,
        "max_completion_length": policy.max_completion,
        "temperature": grpo.temperature,
        "top_p": grpo.top_p,
        "top_k": grpo.top_k,
        "min_p": None,
        "repetition_penalty": 1.0,
        "generation_kwargs": None,
        "chat_template_kwargs": None,
        "cache_implementation": None,
        "use_transformers_continuous_batching": False,
        "transformers_continuous_batching_config": None,
        "max_tool_calling_iterations": None,
        "ds3_gather_for_generation": True,
        **_vllm(grpo, policy.max_prompt + policy.max_completion),
        **_loss(grpo),
        # what is logged: sample rollouts are written by us
        "log_completions": False,
        "log_multimodal": False,
        "num_completions_to_print": None,
        "log_unique_prompts": False,
    }


def lora_arguments(lora: Lora) -> dict[str, Any]:
    """Return LoraConfig's keywords for an adapter."""
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.targets),
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "task_type": "CAUSAL_LM",
    }


def _loss(grpo: Grpo) -> dict[str, Any]:
    return {
        "loss_type": grpo.loss_type,
        "beta": grpo.beta,
        "num_iterations": grpo.num_iterations,
        "epsilon": grpo.epsilon,
        "epsilon_high": grpo.epsilon_high,
        "delta": None,
        "importance_sampling_level": grpo.importance_sampling_level,
        "reward_weights": None,
        "multi_objective_aggregation": "sum_then_normalize",
        "scale_rewards": grpo.scale_rewards,
        "mask_truncated_completions": grpo.mask_truncated,
        # the KL is to the policy that the phase starts from, which stays
        "sync_ref_model": False,
        "ref_model_mixup_alpha": 0.6,
        "ref_model_sync_steps": 512,
        # the gradient of the KL itself, not that of its estimate
        "use_bias_correction_kl": True,
        "off_policy_mask_threshold": None,
        "top_entropy_quantile": 1.0,
        "entropy_coef": grpo.entropy,
        "use_adaptive_entropy": False,
        "entropy_coef_min": 0.0,
        "entropy_coef_max": 1.0,
        "entropy_coef_delta": 0.005,
        "entropy_target": 0.2,
        # with dropout the ratio of a fresh sample would not be 1
        "disable_dropout": True,
        "cast_lm_head_to_fp32": False,
    }


def _vllm(grpo: Grpo, length: int) -> dict[str, Any]:
    vllm = grpo.vllm
    return {
        "use_vllm": vllm.mode != "off",
        "vllm_mode": "server" if vllm.mode == "server" else "colocate",
        "vllm_model_impl": "vllm",
        "vllm_enable_sleep_mode": vllm.sleep,
        "vllm_structured_outputs_regex": None,
        "vllm_server_base_url": vllm.url or None,
        # not read where there is a base_url
        "vllm_server_host": "0.0.0.0",
        "vllm_server_port": 8000,
        "vllm_server_timeout": vllm.timeout_s,
        "vllm_group_port": 51216,
        "vllm_gpu_memory_utilization": vllm.memory_share,
        "vllm_max_model_length": length,
        "vllm_tensor_parallel_size": vllm.tensor_parallel,
        # vLLM's probabilities are not the trainer's to the last bit
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": 3.0,
        "vllm_importance_sampling_clip_min": None,
    }


def _learning(
    learning: Learning, steps: int, rate: float, rows: tuple[int, int], where: str
) -> dict[str, Any]:
    each, accumulated = rows
    return {
        "max_steps": steps or -1,
        "learning_rate": rate,
        "lr_scheduler_type": SCHEDULES[learning.schedule],
        "lr_scheduler_kwargs": _decay(learning, steps, where),
        "warmup_steps": learning.warm_up,  # below 1: a share of all steps
        "optim": OPTIMIZERS[learning.optimizer],
        "optim_args": None,
        "optim_target_modules": None,
        "weight_decay": learning.weight_decay,
        "adam_beta1": learning.adam_beta1,
        "adam_beta2": learning.adam_beta2,
        "adam_epsilon": learning.adam_epsilon,
        "max_grad_norm": learning.max_grad_norm,
        "per_device_train_batch_size": each,
        "per_device_eval_batch_size": each,
        "gradient_accumulation_steps": accumulated,
        "logging_steps": learning.log_every,
        "save_steps": learning.checkpoint_every,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "router_aux_loss_coef": 0.0,
        "auto_find_batch_size": False,
        "average_tokens_across_devices": True,
    }


def _decay(learning: Learning, steps: int, where: str) -> dict[str, Any] | None:
    if learning.schedule != "trapezoid":
        return None
    if not steps:
        raise ConfigError(f"{where} schedule: trapezoid needs steps; by epochs take linear")
    return {"num_decay_steps": round(learning.decay_share * steps), "decay_type": "linear"}


def _machine(device: Device, dtype: str, where: str, *, checkpointing: bool) -> dict[str, Any]:
    gpu = device == "cuda"
    if dtype == "bfloat16" and not gpu:
        raise ConfigError(f'{where} dtype: bfloat16 needs a GPU; on a CPU take "float32"')
    # layers are computed twice to save memory; a nano policy has memory enough
    twice = gpu and checkpointing
    how = {"use_reentrant": False} if twice else None
    return {
        "use_cpu": not gpu,
        "bf16": dtype == "bfloat16",
        "fp16": False,
        "bf16_full_eval": False,
        "fp16_full_eval": False,
        "tf32": False if gpu else None,
        "activation_checkpointing": twice,
        "activation_checkpointing_kwargs": how,
        # their older names, which must agree
        "gradient_checkpointing": twice,
        "gradient_checkpointing_kwargs": how,
        "use_cache": False,
        "torch_compile": False,
        "torch_compile_backend": None,
        "torch_compile_mode": None,
        "torch_empty_cache_steps": None,
        "use_liger_kernel": False,
        "liger_kernel_config": None,
        "model_init_kwargs": None,  # the model is made by us
        "trust_remote_code": False,
        "pad_to_multiple_of": None,
        "full_determinism": False,
        "dataloader_pin_memory": gpu,
        "dataloader_drop_last": False,
        "dataloader_num_workers": 0,
        "dataloader_persistent_workers": False,
        "dataloader_prefetch_factor": None,
        "dataloader_multiprocessing_context": None,
        "dataloader_in_order": True,
        "ddp_find_unused_parameters": False,
        # others wait while one process builds data or asks workers
        "ddp_timeout": 7200,
        "accelerator_config": {
            "split_batches": False,
            "dispatch_batches": None,
            "even_batches": True,
            "use_seedable_sampler": True,
            "non_blocking": False,
        },
        "skip_memory_metrics": True,
        "debug": "",
    }


def _housekeeping(out: Path, seed: int, run_name: str) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "run_name": run_name,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": True,
        "log_level": "warning",
        "log_level_replica": "warning",
        "log_on_each_node": False,
        "logging_strategy": "steps",
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a NaN must be seen
        "include_num_input_tokens_seen": "no",  # TRL counts tokens itself
        "save_strategy": "no",
        "save_total_limit": None,
        "save_only_model": False,
        "save_on_each_node": False,
        "enable_jit_checkpoint": False,
        "load_best_model_at_end": False,
        "ignore_data_skip": False,
        "restore_callback_states_from_checkpoint": False,
        "eval_delay": 0,
        "eval_accumulation_steps": None,
        "eval_do_concat_batches": True,
        "eval_use_gather_object": False,
        "batch_eval_metrics": False,
        "prediction_loss_only": True,
        "include_for_metrics": [],
        "label_names": None,
        "train_sampling_strategy": "random",
        "length_column_name": "length",
    }


def _per_device(where: str, rows: int, micro_batch: int, processes: int) -> tuple[int, int]:
    """Return rows on a device at once, and how many times that makes a step."""
    each, rest = divmod(rows, processes)
    size = micro_batch or each
    if rest or each % size:
        raise ConfigError(
            f"{where} is {rows}: expected a multiple of {processes} processes"
            + (f" x micro_batch {micro_batch}" if micro_batch else "")
        )
    return size, each // size
