"""The policy that is trained: its model and tokenizer, and how it is asked and answers.

A nano policy starts from random weights and speaks in words (`<bos> question <sep> answer`); any
other starts from a Hugging Face folder and speaks through its chat template, all of it trained
or, with LoRA, an adapter. Serving it is left to `serve`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import datasets
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from r2reasoner.client.text import BOS, EOS, PAD, SEP, UNK, join_words, split_words
from r2reasoner.errors import ConfigError
from r2reasoner.nano.fit import new_model
from r2reasoner.nano.interchangeable import KEY as WORDS_KEY
from r2reasoner.nano.interchangeable import Interchangeable
from r2reasoner.nano.presets import Shape
from r2reasoner.nano.vocabulary import policy_vocabulary
from r2reasoner.training.arguments import lora_arguments, seed_of
from r2reasoner.training.bases import find_base
from r2reasoner.training.pairs import Pair
from r2reasoner.training.recipe import Lora, PolicyName, Recipe

WORDS_CODEC: Final = "codec.json"
datasets.disable_progress_bars()
disable_progress_bar()


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy in training. `tokens`: its words, where it speaks in words; None for chat."""

    model: Any
    tokenizer: Any
    tokens: tuple[str, ...] | None

    def prompt(self, asked: str) -> Any:
        """Return a prompt as trainers take it: text of words, or chat messages."""
        if self.tokens is None:
            return [{"role": "user", "content": asked}]
        return " ".join((BOS, *split_words(asked, frozenset(self.tokens)), SEP))

    def text(self, completion: Any) -> str:
        """Return what a completion of a trainer says."""
        if self.tokens is None:
            return str(completion[0]["content"])
        return join_words(str(completion).split())

    def said(self, decoded: str) -> str:
        """Return what decoded tokens of the policy say."""
        return decoded if self.tokens is None else self.text(decoded)

    def encode(self, asked: Sequence[str]) -> Any:
        """Return a padded batch of prompts: `input_ids` and `attention_mask`, (prompts, tokens)."""
        prompts = [self.prompt(text) for text in asked]
        if self.tokens is None:
            prompts = [
                self.tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True)
                for p in prompts
            ]
        # the template writes its own special tokens, and so does a prompt of words
        return self.tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        )

    def answer_ids(self, said: str) -> list[int]:
        """Return the tokens of an answer, with the end."""
        if self.tokens is None:
            ids = self.tokenizer(said, add_special_tokens=False)["input_ids"]
        else:
            words = split_words(said, frozenset(self.tokens))
            ids = self.tokenizer.convert_tokens_to_ids(words)
        return [*ids, self.tokenizer.eos_token_id]

    def row(self, pair: Pair) -> dict[str, Any]:
        """Return a pair as a trainer's row: token ids with a mask of the answer, or messages."""
        if self.tokens is None:
            return {
                "prompt": self.prompt(pair.asked),
                "completion": [{"role": "assistant", "content": pair.written}],
            }
        known = frozenset(self.tokens)
        question = [BOS, *split_words(pair.asked, known), SEP]
        answer = [*split_words(pair.written, known), EOS]
        ids = self.tokenizer.convert_tokens_to_ids([*question, *answer])
        return {"input_ids": ids, "completion_mask": [0] * len(question) + [1] * len(answer)}

    def save(self, folder: Path) -> None:
        """Write model and tokenizer into a folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.tokens is not None:
            (folder / WORDS_CODEC).write_text(json.dumps({"codec": "words"}))


def word_tokenizer(tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words for text whose tokens stand apart."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    numbers = {token: i for i, token in enumerate(tokens)}
    inner = Tokenizer(WordLevel(numbers, unk_token=UNK))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        additional_special_tokens=[SEP],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def new_policy(
    shape: Shape, tokens: Sequence[str], seed: int, interchangeable: Sequence[str] = ()
) -> Policy:
    """Return an untrained nano policy; what it does with an interchangeable word, with all."""
    words = [tokens.index(word) for word in interchangeable]
    model = new_model(shape, len(tokens), seed, words)
    return Policy(model, word_tokenizer(tokens), tuple(tokens))


def open_base(recipe: Recipe, name: PolicyName) -> Policy:
    """Return the policy that a recipe starts from: a new nano model, or its base."""
    policy = recipe.policies[name]
    if policy.shape is not None:
        seed = seed_of(recipe, f"base {name}")
        return new_policy(Shape(*policy.shape), policy_vocabulary(), seed, policy.interchangeable)
    return load_policy(find_base(policy.base), dtype=policy.dtype, lora=policy.lora)


def load_policy(folder: Path, *, dtype: str = "auto", lora: Lora | None = None) -> Policy:
    """Load a policy from a Hugging Face folder. Raises ConfigError where there is none."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: expected a Hugging Face model folder (config.json)")
    adapter = (folder / "adapter_config.json").is_file()
    torch_dtype = dtype if dtype == "auto" else getattr(torch, dtype)
    own = json.loads((folder / "config.json").read_text()).get(WORDS_KEY)
    kind: Any = Interchangeable if own else AutoModelForCausalLM
    model: Any = kind.from_pretrained(folder, dtype=torch_dtype)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    words = (folder / WORDS_CODEC).is_file()
    tokens = tuple(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))) if words else None
    if lora is not None and not adapter:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(**lora_arguments(lora)),
        )
    return Policy(model, tokenizer, tokens)
