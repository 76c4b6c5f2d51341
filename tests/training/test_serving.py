from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from r2reasoner.errors import DataError
from r2reasoner.nano.presets import Shape
from r2reasoner.nano.vocabulary import policy_vocabulary
from r2reasoner.pool.cards import Endpoint
from r2reasoner.pool.load import load_pool
from r2reasoner.training.policies import Policy, load_policy, new_policy
from r2reasoner.training.recipe import load_recipe
from r2reasoner.training.serving import check, convert, policy_card
from tokenizer_files import TEMPLATE, write_tokenizer

ASKED = ["walk left", "12 + 7 * 3", "jump twice and run", "look around right thrice"]


@pytest.fixture
def untrained() -> Policy:
    return new_policy(Shape(16, 1), policy_vocabulary(), seed=0)


def served(policy: Policy, folder: Path) -> Any:
    policy.save(folder / "trained")
    convert(folder / "trained", folder / "served" / "decomposer")
    recipe = load_recipe("tiny")
    return policy_card(load_pool("nano"), recipe, "decomposer", folder / "served" / "decomposer")


def sharpened(policy: Policy, seed: int) -> Policy:
    """Give each token one that follows it for certain, drawn anew for each seed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.normal_(std=1.0)
    return policy


def test_what_is_served_is_what_was_trained(untrained: Policy, tmp_path: Path) -> None:
    card = served(sharpened(untrained, 1), tmp_path)
    assert check(untrained, card, ASKED, 12) == 1.0


def test_a_tie_of_a_policy_that_knows_nothing_is_no_difference(
    untrained: Policy, tmp_path: Path
) -> None:
    with torch.no_grad():
        for parameter in untrained.model.parameters():
            parameter.normal_(std=1e-3)
    card = served(untrained, tmp_path)
    assert check(untrained, card, ASKED, 12) == 1.0


def test_another_policy_is_refused(untrained: Policy, tmp_path: Path) -> None:
    card = served(sharpened(untrained, 1), tmp_path)
    with pytest.raises(DataError, match="agrees with the trained one on"):
        check(sharpened(untrained, 2), card, ASKED, 12)


def test_other_weights_on_disk_are_refused(untrained: Policy, tmp_path: Path) -> None:
    card = served(untrained, tmp_path)
    with pytest.raises(DataError, match="another checksum"):
        check(untrained, replace(card, sha256="0" * 64), ASKED, 12)


def test_a_chat_policy_is_compared_through_its_template(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    write_tokenizer(
        folder,
        tokenizer_class="PreTrainedTokenizerFast",
        chat_template=TEMPLATE,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    config = transformers.Qwen2Config(
        vocab_size=33,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    policy = sharpened(load_policy(folder), 1)
    policy.save(tmp_path / "trained")
    convert(tmp_path / "trained", tmp_path / "served" / "decomposer")
    endpoint = Endpoint(name="policies", kind="embedded", path=tmp_path / "served")
    card = replace(load_pool("nano").workers[0], model="decomposer", endpoint=endpoint, sha256=None)
    assert check(policy, card, ["ab", "walk left", "jump"], 6) == 1.0
    with pytest.raises(DataError, match="agrees with the trained one on"):
        check(sharpened(policy, 2), card, ["ab", "walk left", "jump"], 6)
