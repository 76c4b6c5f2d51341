"""Text to tokens and back for models run in process.

Two codecs: word level (`codec.json` says `words`), where a text with a word outside the
vocabulary is refused instead of answered to `<unk>`; and Hugging Face (`tokenizer.json`), with the
chat template of `tokenizer_config.json` where there is one.
"""

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from r2reasoner.errors import ConfigError, UnknownWords
from r2reasoner.types import Message

PAD, BOS, EOS, SEP, UNK = "<pad>", "<bos>", "<eos>", "<sep>", "<unk>"
SPECIAL: Final = (PAD, BOS, EOS, SEP, UNK)

_WORD: Final = re.compile(r"[A-Za-z_]+\d*|#\d+|\.\.\.|\d|\S")


def split_words(text: str, known: Collection[str]) -> list[str]:
    """Split a text into whole words, single digits and signs.

    Raises UnknownWords naming the words that `known` lacks.
    """
    tokens = _WORD.findall(text)
    unknown = sorted({t for t in tokens if t not in known or t in SPECIAL})
    if unknown:
        raise UnknownWords(unknown)
    return tokens


def join_words(tokens: Sequence[str]) -> str:
    """Join tokens to text: neighbouring digits make one number, the rest is spaced."""
    parts: list[str] = []
    digit_before = False
    for token in tokens:
        digit = token.isdigit()
        if digit and digit_before:
            parts[-1] += token
        else:
            parts.append(token)
        digit_before = digit
    return " ".join(parts)


class TextCodec(Protocol):
    """Messages to prompt tokens, answer tokens to text."""

    end_token: str

    def prompt(self, messages: Sequence[Message]) -> list[str]:
        """Return the prompt's tokens. Raises UnknownWords."""
        ...

    def text(self, tokens: Sequence[str]) -> str:
        """Return the text of generated tokens."""
        ...


class WordCodec:
    """Word level: `<bos> last user text <sep>`; such a model takes the last user turn only."""

    end_token = EOS

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._known = frozenset(vocabulary)

    def prompt(self, messages: Sequence[Message]) -> list[str]:
        """Return the prompt's tokens of the last user message. Raises UnknownWords."""
        last = next(m for m in reversed(messages) if m.role == "user")
        return [BOS, *split_words(last.content, self._known), SEP]

    def text(self, tokens: Sequence[str]) -> str:
        """Return the text of generated tokens."""
        return join_words([t for t in tokens if t not in SPECIAL])


class HuggingFaceCodec:
    """A `tokenizer.json`, and the model's own chat template."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config_file = folder / "tokenizer_config.json"
        config: dict[str, Any] = json.loads(config_file.read_text()) if config_file.exists() else {}
        end = config.get("eos_token")
        self.end_token = str(end["content"] if isinstance(end, dict) else end)
        self._template = config.get("chat_template")

    def prompt(self, messages: Sequence[Message]) -> list[str]:
        """Return the prompt's tokens after the chat template."""
        tokens: list[str] = self._tokenizer.encode(
            self._rendered(messages), add_special_tokens=self._template is None
        ).tokens
        return tokens

    def text(self, tokens: Sequence[str]) -> str:
        """Return the text of generated tokens."""
        ids = [self._tokenizer.token_to_id(t) for t in tokens]
        text: str = self._tokenizer.decode([i for i in ids if i is not None])
        return text

    def _rendered(self, messages: Sequence[Message]) -> str:
        if self._template is None:
            return "\n\n".join(m.content for m in messages)
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        template = ImmutableSandboxedEnvironment().from_string(self._template)
        return template.render(
            messages=[{"role": m.role, "content": m.content} for m in messages],
            add_generation_prompt=True,
        )


def open_codec(folder: Path) -> TextCodec:
    """Return the codec of a converted model's folder. Raises ConfigError where it has none."""
    marker = folder / "codec.json"
    if marker.exists() and json.loads(marker.read_text()).get("codec") == "words":
        return WordCodec(json.loads((folder / "vocabulary.json").read_text()))
    if (folder / "tokenizer.json").exists():
        return HuggingFaceCodec(folder)
    raise ConfigError(f"{folder}: expected codec.json or tokenizer.json beside the model")
