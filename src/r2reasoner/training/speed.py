"""How long training steps and calls are likely to take; rough, for forecasts alone.

On two CPU cores as measured with nano policies; on a GPU as an H100 should do, not measured.
"""

from typing import Final

from r2reasoner.training.memory import ModelShape, shape_of
from r2reasoner.training.recipe import POLICIES, PolicyName, Recipe

EMBEDDED_CALLS_PER_S: Final = 1500.0
HTTP_CALL_S: Final = 3.0
STEP_S: Final = 0.06
"""What an update takes beside its arithmetic."""
CPU_FLOPS: Final = 6e9
GPU_FLOPS: Final = 3e14
"""Useful operations a second."""
CPU_DECODE_S: Final = 0.004
GPU_DECODE_S: Final = 0.03
"""Seconds for one more token of all completions, where transformers generates."""
VLLM_SPEED: Final = 2e13
"""Tokens x parameters that vLLM generates in a second on one GPU."""
FORWARD_FLOPS: Final = 2


def on_gpu(recipe: Recipe) -> bool:
    """Tell whether a GPU is taken for granted: where a policy is large, unless the recipe says."""
    if recipe.hardware.device != "auto":
        return recipe.hardware.device == "cuda"
    return any(recipe.policies[name].shape is None for name in POLICIES)


def learning_s(recipe: Recipe, name: PolicyName, tokens: float) -> float:
    """Return seconds of one update of a policy on so many tokens."""
    policy = recipe.policies[name]
    shape = shape_of(policy)
    if shape is None:
        return STEP_S
    gpu = on_gpu(recipe)
    # forward, backward (of frozen weights only its half), and forward again to save memory
    passes = 1 + (1 if policy.lora is not None else 2) + gpu
    speed = GPU_FLOPS * recipe.hardware.processes if gpu else CPU_FLOPS
    return STEP_S + FORWARD_FLOPS * passes * _computing(shape) * tokens / speed


def grpo_step_s(recipe: Recipe, name: PolicyName) -> float:
    """Return seconds of one GRPO step, the calls behind its rewards aside."""
    grpo, policy = recipe.grpo, recipe.policies[name]
    # half full on average
    tokens = grpo.completions * (policy.max_prompt + policy.max_completion) / 2
    learning = grpo.num_iterations * learning_s(recipe, name, tokens)
    shape = shape_of(policy)
    if grpo.vllm.mode != "off" and shape is not None:
        speed = VLLM_SPEED / shape.parameters * recipe.hardware.processes
        return learning + grpo.completions * policy.max_completion / 2 / speed
    return learning + policy.max_completion * (GPU_DECODE_S if on_gpu(recipe) else CPU_DECODE_S)


def calls_s(local: float, remote: float, in_flight: int) -> float:
    """Return seconds of calls in process and over HTTP, so many in flight."""
    return local / EMBEDDED_CALLS_PER_S + remote * HTTP_CALL_S / in_flight


def _computing(shape: ModelShape) -> int:
    """Return the parameters that compute on each token: all but a table that is only looked up."""
    return shape.parameters - (0 if shape.tied else shape.vocabulary * shape.hidden)
