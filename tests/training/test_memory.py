"""Memory of a policy in training: parameters as the real models have them, and what fits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from r2reasoner.errors import ConfigError
from r2reasoner.training.memory import GIB, KNOWN, memory, shape_of, vllm_shortage
from r2reasoner.training.recipe import Lora, PolicySettings, Recipe, load_recipe

SEVEN = "Qwen2.5-7B-Instruct"


@pytest.fixture
def qwen() -> Recipe:
    return load_recipe("qwen2.5-7b")


class TestParameters:
    @pytest.mark.parametrize("base", ["8x1", "24x2", "128x4"])
    def test_of_a_nano_policy_as_it_is_made(self, base: str) -> None:
        pytest.importorskip("torch", reason="training needs torch")
        from r2reasoner.nano.fit import new_model
        from r2reasoner.nano.presets import Shape
        from r2reasoner.nano.vocabulary import policy_vocabulary

        policy = PolicySettings(base=base)
        assert policy.shape is not None
        model = new_model(Shape(*policy.shape), len(policy_vocabulary()), 0)
        shape = shape_of(policy)
        assert shape is not None
        assert shape.parameters == sum(p.numel() for p in model.parameters())

    def test_of_published_models(self) -> None:
        assert {name: shape.parameters for name, shape in KNOWN.items()} == {
            "Qwen2.5-0.5B-Instruct": 494_032_768,
            "Qwen2.5-1.5B-Instruct": 1_543_714_304,
            "Qwen2.5-3B-Instruct": 3_085_938_688,
            SEVEN: 7_615_616_512,
        }

    @pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's
    def test_of_seven_billion_and_its_adapter_as_the_libraries_make_them(
        self, tmp_path: Path
    ) -> None:
        torch = pytest.importorskip("torch", reason="training needs torch")
        transformers = pytest.importorskip("transformers", reason="training needs transformers")
        peft = pytest.importorskip("peft", reason="training needs peft")
        from r2reasoner.training.arguments import lora_arguments

        known = KNOWN[SEVEN]
        config = transformers.Qwen2Config(
            hidden_size=known.hidden,
            intermediate_size=known.intermediate,
            num_hidden_layers=known.layers,
            num_attention_heads=known.heads,
            num_key_value_heads=known.kv_heads,
            vocab_size=known.vocabulary,
            tie_word_embeddings=False,
        )
        config.save_pretrained(tmp_path)
        assert shape_of(PolicySettings(base=str(tmp_path))) == known
        with torch.device("meta"):
            model = transformers.Qwen2ForCausalLM(config)
            assert sum(p.numel() for p in model.parameters()) == known.parameters
            lora = load_recipe("qwen2.5-7b").policies.decomposer.lora
            assert lora is not None
            adapted = peft.get_peft_model(model, peft.LoraConfig(**lora_arguments(lora)))
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        assert trained == known.adapter(lora)

    def test_an_adapter_of_no_layer_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="q_porj: no such layer; known: q_proj"):
            KNOWN[SEVEN].adapter(Lora(targets=("q_porj",)))


class TestShape:
    def test_what_is_not_there_is_not_known(self) -> None:
        assert shape_of(PolicySettings(base="somebody/something-30B")) is None

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"num_attention_heads": "many"}'])
    def test_a_config_that_is_none_is_refused(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match="expected the config of a Llama-like model"):
            shape_of(PolicySettings(base=str(tmp_path)))

    def test_a_llama_has_no_bias_unless_it_says(self, tmp_path: Path) -> None:
        config = {
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 100,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        shape = shape_of(PolicySettings(base=str(tmp_path)))
        assert shape is not None
        assert (shape.bias, shape.kv_heads) == (False, 4)


class TestMemory:
    def test_seven_billion_with_an_adapter_fits_a_large_gpu_only(self, qwen: Recipe) -> None:
        needed = memory(qwen, "decomposer", on_gpu=True)
        assert needed is not None
        assert needed.weights == 2 * KNOWN[SEVEN].parameters
        assert needed.optimizer == 2 * needed.gradients == 2 * needed.adapter
        assert needed.vllm == int(0.35 * 80 * GIB)
        assert needed.fits
        small = replace(qwen, hardware=replace(qwen.hardware, gpu_memory_gib=24))
        less = memory(small, "decomposer", on_gpu=True)
        assert less is not None
        assert not less.fits

    def test_without_an_adapter_everything_learns(self, qwen: Recipe) -> None:
        whole = replace(qwen.policies, decomposer=replace(qwen.policies.decomposer, lora=None))
        needed = memory(replace(qwen, policies=whole), "decomposer", on_gpu=True)
        assert needed is not None
        assert needed.adapter == 0
        assert needed.gradients == needed.weights
        assert not needed.fits

    def test_what_takes_turns_is_not_added_up(self, qwen: Recipe) -> None:
        awake = memory(qwen, "decomposer", on_gpu=True)
        vllm = replace(qwen.grpo.vllm, sleep=True)
        asleep = memory(
            replace(qwen, grpo=replace(qwen.grpo, vllm=vllm)), "decomposer", on_gpu=True
        )
        assert awake is not None
        assert asleep is not None
        assert awake.needs - asleep.needs == min(awake.activations, awake.vllm)

    def test_a_smaller_micro_batch_takes_less(self, qwen: Recipe) -> None:
        sizes = []
        for rows in (1, 2, 8):
            sft = replace(qwen.sft.decomposer, micro_batch=rows)
            smaller = replace(
                qwen,
                grpo=replace(qwen.grpo, micro_batch=rows),
                sft=replace(qwen.sft, decomposer=sft),
            )
            needed = memory(smaller, "decomposer", on_gpu=True)
            assert needed is not None
            sizes.append(needed.activations)
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[-1]

    def test_a_cpu_has_no_limit_and_no_vllm(self) -> None:
        needed = memory(Recipe(), "allocator", on_gpu=False)
        assert needed is not None
        assert (needed.limit, needed.vllm, needed.context) == (None, 0, 0)
        assert needed.fits

    def test_unknown_stays_unknown(self, qwen: Recipe) -> None:
        other = replace(qwen.policies.allocator, base="nowhere")
        recipe = replace(qwen, policies=replace(qwen.policies, allocator=other))
        assert memory(recipe, "allocator", on_gpu=True) is None
        assert vllm_shortage(recipe, other) is None

    def test_vllm_needs_room_for_its_own_weights(self, qwen: Recipe) -> None:
        assert vllm_shortage(qwen, qwen.policies.decomposer) is None
        vllm = replace(qwen.grpo.vllm, memory_share=0.15)
        tight = replace(qwen, grpo=replace(qwen.grpo, vllm=vllm))
        said = vllm_shortage(tight, tight.policies.decomposer)
        assert said is not None
        assert "gives vLLM 12 GiB, but its copy" in said
