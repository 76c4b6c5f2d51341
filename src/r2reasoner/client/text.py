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

from r2reasoner.errors import CallError, CallFault, ConfigError, UnknownWords
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

        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing narrower
            raise ConfigError(f"{folder}/tokenizer.json cannot be read: {error}") from error
        config = _read_json(folder / "tokenizer_config.json")
        self._marks = {name: _token(config.get(name)) for name in ("bos_token", "eos_token")}
        self.end_token = self._marks["eos_token"]
        if not self.end_token:
            raise ConfigError(f"{folder}/tokenizer_config.json: expected eos_token, the end token")
        own_file = folder / "chat_template.jinja"
        template = own_file.read_text() if own_file.is_file() else config.get("chat_template")
        self._template = None if template is None else _compile(folder, template)

    def prompt(self, messages: Sequence[Message]) -> list[str]:
        """Return the prompt's tokens after the chat template.

        Raises CallError where the template refuses the messages.
        """
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
        try:
            text: str = self._template.render(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                add_generation_prompt=True,
                **self._marks,
            )
        except Exception as error:  # a template is a program of the model's makers
            raise CallError(
                CallFault.REFUSED_INPUT, f"the chat template refuses the messages: {error}"
            ) from error
        return text


def _compile(folder: Path, template: Any) -> Any:
    """Return a chat template, sandboxed. Raises ConfigError."""
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ConfigError(
            f"{folder}: its chat template needs Jinja2: pip install 'r2reasoner[embedded]'"
        ) from None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(template)
    except Exception as error:
        raise ConfigError(f"{folder}: its chat template cannot be read: {error}") from error


def _refuse(reason: str) -> None:
    raise ValueError(reason)


def _token(value: Any) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object from a file, empty where there is none. Raises ConfigError."""
    try:
        value = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: expected a JSON object")
    return value


def open_codec(folder: Path) -> TextCodec:
    """Return the codec of a converted model's folder. Raises ConfigError where it has none."""
    if _read_json(folder / "codec.json").get("codec") == "words":
        return WordCodec(_read_vocabulary(folder / "vocabulary.json"))
    if (folder / "tokenizer.json").is_file():
        return HuggingFaceCodec(folder)
    raise ConfigError(f"{folder}: expected codec.json or tokenizer.json beside the model")


def _read_vocabulary(file: Path) -> list[str]:
    try:
        tokens = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ConfigError(f"{file}: expected a JSON list of tokens")
    return tokens
