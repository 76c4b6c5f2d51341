"""A Llama in which some words are interchangeable: what it does with one, it does with all.

While it learns, their vectors are drawn anew for every row of every step. So it can copy such a
word but learn nothing about it, as of "jump" in SCAN, which stands alone in training and with
everything else in the test. Otherwise their vectors are fixed. Saved, it is a plain Llama, whose
config also names the words, so that a training may go on.

Inside, hidden states have one more dimension for each word, the likeness to its vector of the row,
and the head takes logits from there; so whoever multiplies hidden states by the head's weight (as
TRL does) gets the right ones.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

KEY: Final = "interchangeable"
"""Where a config names the words, by their ids."""


class Interchangeable(LlamaForCausalLM):  # type: ignore[misc]
    """A Llama with tied embeddings and interchangeable words; `generator` draws their vectors."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {}

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = _Backbone(config)
        self.lm_head = _Head(self.model)
        self.post_init()

    @property
    def generator(self) -> torch.Generator | None:
        """What vectors are drawn with; None: torch's own generator."""
        generator: torch.Generator | None = self.model.generator
        return generator

    @generator.setter
    def generator(self, generator: torch.Generator) -> None:
        self.model.generator = generator

    def plain(self) -> LlamaForCausalLM:
        """Return the Llama that it is when it does not learn."""
        state = self.state_dict()
        with torch.no_grad():
            vectors = self.model.embed_tokens.weight.clone()
            vectors[self.model.words] = self.model.fixed()
        state |= {"model.embed_tokens.weight": vectors, "lm_head.weight": vectors}
        model = LlamaForCausalLM(self.config)
        model.load_state_dict(state)
        return model

    def save_pretrained(self, save_directory: Any, **more: Any) -> None:
        """Write the plain Llama."""
        more.pop("state_dict", None)
        self.plain().save_pretrained(save_directory, **more)


class _Backbone(LlamaModel):  # type: ignore[misc]
    """Draws vectors of words, and says how like them each hidden state is."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.words: list[int] = list(getattr(config, KEY))
        self.generator: torch.Generator | None = None

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **more: Any,
    ) -> Any:
        """Return what a Llama does, hidden states with a dimension more for each word."""
        assert input_ids is not None
        assert inputs_embeds is None
        learns = self.training and torch.is_grad_enabled()
        drawn = self._vectors(len(input_ids), learns=learns)
        vectors = self.embed_tokens(input_ids)
        for i, word in enumerate(self.words):
            vectors = torch.where((input_ids == word)[..., None], drawn[:, None, i], vectors)
        output = super().forward(inputs_embeds=vectors, **more)
        hidden = output.last_hidden_state
        output.last_hidden_state = torch.cat((hidden, hidden @ drawn.mT), -1)
        return output

    @torch.no_grad()
    def fixed(self) -> torch.Tensor:
        """Return the words' vectors when nothing is learned, (words, width): random directions.

        No step changes the directions, and a scale like that of all other words.
        """
        own: torch.Tensor = self.embed_tokens.weight[self.words]
        return own / own.square().mean(-1, keepdim=True).sqrt() * self._scale()

    @torch.no_grad()
    def _vectors(self, rows: int, *, learns: bool) -> torch.Tensor:
        """Return the vectors of each row, (rows, words, width)."""
        fixed = self.fixed()
        if not learns:
            return fixed.expand(rows, -1, -1)
        shape = (rows, *fixed.shape)
        noise = torch.randn(shape, generator=self.generator, device=fixed.device, dtype=fixed.dtype)
        return noise * self._scale()

    def _scale(self) -> torch.Tensor:
        others = torch.ones(self.embed_tokens.num_embeddings, dtype=torch.bool)
        others[self.words] = False
        scale: torch.Tensor = self.embed_tokens.weight[others].std()
        return scale


class _Head(nn.Module):
    """The tied head: of words it takes the dimensions that the backbone has for them."""

    bias = None

    def __init__(self, backbone: _Backbone) -> None:
        super().__init__()
        self._backbone = [backbone]  # in a list, it is no part of this module

    @property
    def weight(self) -> torch.Tensor:
        """The matrix from hidden states to logits, (vocabulary, width + words)."""
        (backbone,) = self._backbone
        words = torch.tensor(backbone.words)
        vectors = backbone.embed_tokens.weight
        own = vectors.new_zeros(len(vectors), len(words))
        own[words, torch.arange(len(words))] = 1.0
        return torch.cat((vectors.index_fill(0, words.to(vectors.device), 0.0), own), 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (rows, length, vocabulary)."""
        return nn.functional.linear(hidden, self.weight)


def with_words(config: LlamaConfig, words: Sequence[int]) -> LlamaConfig:
    """Put interchangeable words into a config, by their ids."""
    setattr(config, KEY, list(words))
    return config
