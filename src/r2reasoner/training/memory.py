"""How much memory a policy needs in training: estimated from its shape, before anything is loaded.

Weights, adapter, gradients and Adam's states are counted exactly; activations and buffers are
estimates, for one device. Left out: what FSDP or
DeepSpeed would spread over devices, and the frozen policy, which is served elsewhere.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from r2reasoner.errors import ConfigError
from r2reasoner.nano.vocabulary import policy_vocabulary
from r2reasoner.training.recipe import Lora, PolicyName, PolicySettings, Recipe

GIB: Final = 2**30
BYTES: Final = {"float32": 4, "bfloat16": 2}
CONTEXT_GIB: Final = 1.5
"""What a CUDA context, kernels and the allocator's slack take, of a GPU."""
ADAM_STATES: Final = 2
FULL_PRECISION: Final = 4
LEAST_CACHE_GIB: Final = 1.0
"""Least that vLLM should have beside the weights, for keys and values."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions of a Llama-like model. `bias`: of queries, keys and values."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    bias: bool = False

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """A layer's matrices by name, each (inputs, outputs)."""
        keys = self.hidden // self.heads * self.kv_heads
        return {
            "q_proj": (self.hidden, self.hidden),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (self.hidden, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def parameters(self) -> int:
        """How many parameters such a model has."""
        matrices = self.matrices
        layer = sum(a * b for a, b in matrices.values()) + 2 * self.hidden
        if self.bias:
            layer += sum(matrices[name][1] for name in ("q_proj", "k_proj", "v_proj"))
        embedding = self.vocabulary * self.hidden
        return self.layers * layer + self.hidden + embedding * (1 if self.tied else 2)

    def adapter(self, lora: Lora) -> int:
        """Return how many parameters an adapter has. Raises ConfigError for an unknown layer."""
        unknown = [name for name in lora.targets if name not in self.matrices]
        if unknown:
            known = ", ".join(self.matrices)
            raise ConfigError(f"lora targets: {', '.join(unknown)}: no such layer; known: {known}")
        sizes = (sum(self.matrices[name]) for name in lora.targets)
        return self.layers * lora.rank * sum(sizes)

    def cache_bytes(self, width: int) -> int:
        """Return what keys and values of one token take, at `width` bytes a number."""
        return 2 * self.layers * self.hidden // self.heads * self.kv_heads * width


KNOWN: Final = {
    "Qwen2.5-0.5B-Instruct": ModelShape(896, 4864, 24, 14, 2, 151_936, tied=True, bias=True),
    "Qwen2.5-1.5B-Instruct": ModelShape(1536, 8960, 28, 12, 2, 151_936, tied=True, bias=True),
    "Qwen2.5-3B-Instruct": ModelShape(2048, 11_008, 36, 16, 2, 151_936, tied=True, bias=True),
    "Qwen2.5-7B-Instruct": ModelShape(3584, 18_944, 28, 28, 4, 152_064, tied=False, bias=True),
}
"""Shapes of models that are commonly named before they are downloaded."""


class Memory(NamedTuple):
    """Bytes on one training device, by what they are for. `limit`: what a GPU has; None: a CPU.

    `generation`: keys and values where transformers generates; `vllm`: all that colocated vLLM
    takes, which it gives back while the policy learns where it `sleeps`.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    generation: int
    vllm: int
    context: int
    sleeps: bool
    limit: int | None

    @property
    def needs(self) -> int:
        """The most that is needed at one time; generating and learning take turns."""
        lasting = self.weights + self.adapter + self.gradients + self.optimizer + self.context
        if self.sleeps:
            return lasting + max(self.activations, self.generation, self.vllm)
        return lasting + max(self.activations, self.generation) + self.vllm

    @property
    def fits(self) -> bool:
        """Whether a GPU holds it; a CPU's memory is not looked at."""
        return self.limit is None or self.needs <= self.limit


def shape_of(policy: PolicySettings) -> ModelShape | None:
    """Return the shape of a policy's base; None where it cannot be told before a download.

    Raises ConfigError for a folder whose config.json is none of a Llama-like model.
    """
    if policy.shape is not None:
        width, layers = policy.shape
        heads = max(1, width // 16)
        words = len(policy_vocabulary())
        return ModelShape(width, 2 * width, layers, heads, heads, words, tied=True)
    file = Path(policy.base).expanduser() / "config.json"
    if file.is_file():
        return _from_config(file)
    return KNOWN.get(policy.base.rsplit("/", 1)[-1])


def _from_config(file: Path) -> ModelShape:
    try:
        config: Any = json.loads(file.read_text())
        heads = int(config["num_attention_heads"])
        return ModelShape(
            int(config["hidden_size"]),
            int(config["intermediate_size"]),
            int(config["num_hidden_layers"]),
            heads,
            int(config.get("num_key_value_heads") or heads),
            int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            bias=bool(config.get("attention_bias", config.get("model_type") == "qwen2")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: expected the config of a Llama-like model: {error!r}") from None


def memory(recipe: Recipe, name: PolicyName, *, on_gpu: bool) -> Memory | None:
    """Return what training a policy takes on one device; None where its shape is unknown."""
    policy, grpo, sft = recipe.policies[name], recipe.grpo, recipe.sft[name]
    shape = shape_of(policy)
    if shape is None:
        return None
    width = BYTES[policy.dtype]
    adapter, trained, precision = 0, shape.parameters, width
    if policy.lora is not None:
        trained, precision = shape.adapter(policy.lora), FULL_PRECISION  # peft keeps it in float32
        adapter = trained * precision
    processes = recipe.hardware.processes
    generated = grpo.completions // processes
    rows = max(grpo.micro_batch or generated, sft.micro_batch or sft.batch // processes)
    length = policy.max_prompt + policy.max_completion
    limit = int(recipe.hardware.gpu_memory_gib * GIB) if on_gpu else None
    by_vllm = limit is not None and grpo.vllm.mode == "colocate"
    return Memory(
        weights=shape.parameters * width,
        adapter=adapter,
        gradients=trained * precision,
        optimizer=ADAM_STATES * trained * precision,
        activations=_activations(shape, rows * length, width, checkpointing=on_gpu),
        generation=generated * length * shape.cache_bytes(width) if grpo.vllm.mode == "off" else 0,
        vllm=int(grpo.vllm.memory_share * (limit or 0)) if by_vllm else 0,
        context=int(CONTEXT_GIB * GIB) if on_gpu else 0,
        sleeps=grpo.vllm.sleep,
        limit=limit,
    )


def vllm_shortage(recipe: Recipe, policy: PolicySettings) -> str | None:
    """Return what is wrong where colocated vLLM's share cannot hold the policy's weights."""
    shape, grpo = shape_of(policy), recipe.grpo
    if shape is None or grpo.vllm.mode != "colocate":
        return None
    share = grpo.vllm.memory_share * recipe.hardware.gpu_memory_gib
    own = shape.parameters * BYTES[policy.dtype] / GIB / grpo.vllm.tensor_parallel
    if share >= own + LEAST_CACHE_GIB:
        return None
    return (
        f"[grpo.vllm] memory_share gives vLLM {share:.0f} GiB, but its copy of {policy.base} takes"
        f" {own:.0f} GiB and its cache some more; raise it, or tensor_parallel"
    )


def _activations(shape: ModelShape, tokens: int, width: int, *, checkpointing: bool) -> int:
    """Return what must be kept of a forward pass for the way back.

    With checkpointing: each layer's input, and all of one layer at a time. Beside it stand one
    tile of logits, since they are never whole, and attention without its matrix.
    """
    one_layer = tokens * (10 * shape.hidden + 4 * shape.intermediate) * width
    inputs = tokens * shape.hidden * width * (shape.layers + 2)
    logits = min(tokens, 4096) * shape.vocabulary * FULL_PRECISION
    return inputs + logits + one_layer * (1 if checkpointing else shape.layers)
