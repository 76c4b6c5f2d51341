"""Words and digits as tokens: the nano models' text, both ways.

One vocabulary serves workers and policies. A text with a word outside it is refused with
`UnknownWords`, so that a model never answers to `<unk>`.
"""

import re
from collections.abc import Sequence
from typing import Final

from r2reasoner.errors import UnknownWords
from r2reasoner.nano.scan import ACTIONS, WORDS

PAD, BOS, EOS, SEP, UNK = "<pad>", "<bos>", "<eos>", "<sep>", "<unk>"
SPECIAL: Final = (PAD, BOS, EOS, SEP, UNK)
CONTINUE: Final = "..."
MOST_SUBTASKS: Final = 9
PLACEHOLDERS: Final = tuple(f"verb{i}" for i in range(8))

_TOKEN: Final = re.compile(r"I_[A-Z_]+|#\d+|\.\.\.|[A-Za-z_]+\d*|\d|\S")


def vocabulary(*, placeholders: bool = False) -> list[str]:
    """Return the tokens in id order."""
    plan = (";", "=", CONTINUE, *(f"#{i}" for i in range(1, MOST_SUBTASKS + 1)))
    words = (*WORDS, *ACTIONS, *"0123456789", *"+-*()")
    return [*SPECIAL, *words, *plan, *(PLACEHOLDERS if placeholders else ())]


def split_tokens(text: str, known: Sequence[str] | frozenset[str]) -> list[str]:
    """Split a text into tokens: whole words, single digits, signs.

    Raises UnknownWords naming the words that `known` lacks.
    """
    tokens = _TOKEN.findall(text)
    unknown = sorted({t for t in tokens if t not in known or t in SPECIAL})
    if unknown:
        raise UnknownWords(unknown)
    return tokens


def join_tokens(tokens: Sequence[str]) -> str:
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
