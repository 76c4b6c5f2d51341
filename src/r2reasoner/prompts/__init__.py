"""Prompts as text files; each trace records their hash."""

import re
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from r2reasoner.types import Message

OWN: Final = "The conversation has instructions of its own, which the final answer keeps to:"

_MARK: Final = re.compile(r"<(?=\s*/?\s*data)", re.IGNORECASE)


@cache
def read(name: str) -> str:
    """Return a prompt's text."""
    return files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8")


def opening(name: str, earlier: Sequence[Message]) -> tuple[Message, ...]:
    """Return a prompt and the conversation before the query, with one system turn at its head.

    The conversation's own system turns stand in it too: many chat templates take no second one.
    """
    own = [turn.content for turn in earlier if turn.role == "system"]
    text = "\n\n".join((read(name), *([OWN, *own] if own else ())))
    return (Message("system", text), *(turn for turn in earlier if turn.role != "system"))


def as_data(text: str) -> str:
    """Return a text between `<data>` marks, which it can neither open nor close itself."""
    return f"<data>\n{_MARK.sub('&lt;', text)}\n</data>"


@cache
def digest() -> str:
    """Return a short hash over all prompts."""
    texts = sorted(
        (entry.name, entry.read_text(encoding="utf-8"))
        for entry in files(__name__).iterdir()
        if entry.name.endswith(".txt")
    )
    return sha256(repr(texts).encode()).hexdigest()[:12]
