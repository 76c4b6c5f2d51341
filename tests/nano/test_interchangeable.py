"""Interchangeable words: drawn while learning, fixed otherwise, and a plain Llama on disk."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
transformers = pytest.importorskip("transformers", reason="training needs transformers")

from r2reasoner.nano.fit import MuonAdamW, new_model  # noqa: E402
from r2reasoner.nano.interchangeable import KEY, Interchangeable  # noqa: E402
from r2reasoner.nano.presets import Shape  # noqa: E402
from r2reasoner.nano.vocabulary import policy_vocabulary  # noqa: E402

TOKENS = policy_vocabulary()
VERBS = [TOKENS.index(verb) for verb in ("walk", "look", "run", "jump")]
OTHER = TOKENS.index("left")


@pytest.fixture
def model() -> Any:
    return new_model(Shape(16, 1), len(TOKENS), 0, VERBS)


def ids(*words: str) -> Any:
    return torch.tensor([[TOKENS.index(word) for word in words]])


PHRASE = ("<bos>", "walk", "left", "and", "jump", "<sep>")


def logits(model: Any, rows: Any) -> Any:
    return model(input_ids=rows, use_cache=False).logits


def test_it_has_the_size_of_a_plain_one(model: Any) -> None:
    plain = new_model(Shape(16, 1), len(TOKENS), 0)
    assert isinstance(model, Interchangeable)
    assert not isinstance(plain, Interchangeable)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in plain.parameters())
    assert logits(model, ids(*PHRASE)).shape == logits(plain, ids(*PHRASE)).shape


def test_vectors_are_drawn_anew_for_each_row_and_step_while_it_learns(model: Any) -> None:
    twice = ids(*PHRASE).repeat(2, 1)
    model.generator = torch.Generator().manual_seed(1)
    first, second = logits(model, twice), logits(model, twice)
    assert not torch.allclose(first[0], first[1])
    assert not torch.allclose(first[0], second[0])
    model.generator = torch.Generator().manual_seed(1)
    assert torch.equal(logits(model, twice), first)


def test_they_are_fixed_otherwise(model: Any) -> None:
    rows = ids(*PHRASE).repeat(2, 1)
    with torch.no_grad():
        sampling = logits(model, rows)
    model.eval()
    judging = logits(model, rows)
    assert torch.equal(sampling, judging)
    assert torch.equal(judging[0], judging[1])


def test_words_are_told_apart_within_a_row_and_can_be_copied(model: Any) -> None:
    drawn = model.model(input_ids=ids("walk", "jump", "walk"), use_cache=False)
    hidden = drawn.last_hidden_state
    assert hidden.shape[-1] == 16 + len(VERBS)
    head = model.get_output_embeddings()
    # a hidden state that is like one word's vector of this row gives that word the highest logit
    like = torch.zeros(1, 1, hidden.shape[-1])
    like[..., 16 + 2] = 5.0
    assert head(like).argmax().item() == VERBS[2]


def test_nothing_is_learned_of_them(model: Any) -> None:
    before = model.model.embed_tokens.weight.detach().clone()
    optimizer = MuonAdamW(model)
    for _ in range(3):
        rows = ids(*PHRASE).repeat(4, 1)
        model(input_ids=rows, labels=rows, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = model.model.embed_tokens.weight.detach()
    assert torch.equal(after[VERBS], before[VERBS])
    assert not torch.allclose(after[OTHER], before[OTHER])


def test_it_is_a_plain_llama_on_disk(model: Any, tmp_path: Path) -> None:
    model.eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config[KEY] == VERBS
    with torch.no_grad():
        expected = logits(model, ids(*PHRASE))
        for kind in (transformers.AutoModelForCausalLM, Interchangeable):
            loaded = kind.from_pretrained(tmp_path).eval()
            assert torch.allclose(logits(loaded, ids(*PHRASE)), expected, atol=1e-4)
    assert type(transformers.AutoModelForCausalLM.from_pretrained(tmp_path)) is not Interchangeable


def test_saved_again_it_is_the_same(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "once")
    Interchangeable.from_pretrained(tmp_path / "once").save_pretrained(tmp_path / "twice")
    one, two = (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("once", "twice")
    )
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_generation_is_that_of_the_plain_one(model: Any) -> None:
    asked = {
        "input_ids": ids(*PHRASE),
        "attention_mask": torch.ones(1, len(PHRASE), dtype=torch.long),
        "max_new_tokens": 12,
        "do_sample": False,
    }
    said = model.generate(**asked)  # in training mode, as a trainer samples
    assert torch.equal(said, model.plain().eval().generate(**asked))


def test_trl_gets_the_right_probabilities(model: Any) -> None:
    utils = pytest.importorskip("trl.trainer.utils", reason="training needs trl")
    model.eval()
    rows = ids(*PHRASE)
    with torch.no_grad():
        expected = torch.log_softmax(logits(model, rows)[:, :-1], -1)
        expected = expected.gather(-1, rows[:, 1:, None])[..., 0]
        utils.add_fused_lm_head(model, outputs=("log_probs",))
        fused = model(input_ids=rows, labels=rows, fused_lm_head=True)
    assert torch.allclose(fused.log_probs, expected, atol=1e-5)
