"""What an answer is made of on its way to the client, whoever makes it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from r2reasoner.types import Pico, Trace, Usage


@dataclass(frozen=True, slots=True)
class Progress:
    """A line of progress, shown as reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Delta:
    """Choices of one chunk, as OpenAI has them."""

    choices: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The end of an answer. `choices` are those of an answer that is not streamed.

    `finish` are the last chunk's choices; empty where they were sent before. `alone` is what the
    strongest model by itself would have cost, an estimate, in pico-dollars.
    """

    trace: Trace
    choices: list[dict[str, Any]]
    finish: list[dict[str, Any]]
    usage: Usage
    cost: Pico | None
    alone: Pico | None
    notes: Mapping[str, Any]


Part: TypeAlias = Progress | Delta | Done
Parts: TypeAlias = AsyncGenerator[Part, None]
