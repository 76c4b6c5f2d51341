"""A request that is passed on as it came: tools, images, JSON, several choices.

Its fields are the caller's to check; here they become the body for one model, and the most tokens
that it can cost. No tokenizer makes more tokens than bytes; an image is counted apart, because its
bytes say nothing of its tokens.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.client.wire import CACHE_KEY, MESSAGE_OVERHEAD, PROMPT_OVERHEAD
from r2reasoner.pool.cards import Card
from r2reasoner.types import Role, Usage

IMAGE_TOKENS: Final = 65_536
"""Above what any provider counts for one image (gpt-4o-mini counts up to 48,169)."""


class RelayingClient(Client, Protocol):
    """A client that also passes whole requests on."""

    async def pass_on(
        self, card: Card, relayed: "Relayed", meter: Meter, deadline: float | None = None
    ) -> tuple[dict[str, Any], Completion]:
        """Return the answer as the endpoint wrote it, and what it came to; see `OpenAIClient`."""
        ...

    def relay(
        self, card: Card, relayed: "Relayed", meter: Meter, deadline: float | None = None
    ) -> AsyncGenerator[dict[str, Any] | Completion, None]:
        """Yield the events of a streamed answer, then a Completion; see `OpenAIClient`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """A request to pass on. `fields` are those of OpenAI's body, `messages` among them.

    Model, limit and streaming are set apart, so that a body cannot choose them. `choices` is how
    many answers `n` asks for, `cache_key` as in ChatRequest; `note` labels the ledger entry.
    """

    fields: Mapping[str, Any]
    max_tokens: int
    choices: int = 1
    note: str | None = None
    cache_key: str | None = None

    @property
    def request(self) -> ChatRequest:
        """What the ledger is told of it."""
        return ChatRequest(
            messages=(), max_tokens=self.max_tokens, role=Role.WORKER, subtask=1, note=self.note
        )

    def encode(self, card: Card, *, stream: bool) -> bytes:
        """Return the JSON body for a model."""
        limit = "max_completion_tokens"
        body: dict[str, Any] = {
            **self.fields,
            "model": card.model,
            limit if limit in card.capabilities else "max_tokens": self.max_tokens,
        }
        if "fixed_temperature" in card.capabilities:
            body.pop("temperature", None)
        if self.cache_key and CACHE_KEY in card.capabilities:
            body[CACHE_KEY] = self.cache_key
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return orjson.dumps(body)

    def bound(self, card: Card) -> Usage:
        """Return the most tokens it can cost."""
        messages = [_without_image_bytes(message) for message in self.fields["messages"]]
        fields = {**self.fields, "messages": [message for message, _ in messages]}
        images = sum(count for _, count in messages)
        text = orjson.dumps(fields)
        overhead = PROMPT_OVERHEAD + MESSAGE_OVERHEAD * len(messages)
        return Usage(
            input_tokens=len(text) + overhead + IMAGE_TOKENS * images,
            output_tokens=self.max_tokens * self.choices,
        )


def _without_image_bytes(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """Return a message without the bytes of its images, and how many images it has."""
    content = message.get("content")
    if not isinstance(content, list):
        return message, 0
    images = 0
    parts = []
    for part in content:
        if part.get("type") == "image_url":
            images += 1
            part = {**part, "image_url": {**part["image_url"], "url": ""}}
        parts.append(part)
    return {**message, "content": parts}, images
