"""What OpenAI's APIs differ in: how a request is read, and how its answer is written.

Between the two every API goes one way, which `chatting.py` has.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from r2reasoner.chat import DONE, Refusal, event
from r2reasoner.gateway.answers import Writer
from r2reasoner.gateway.parts import Parts
from r2reasoner.gateway.stream import as_events, error_events
from r2reasoner.gateway.wire import Asked, read_asked


class Dialect(Protocol):
    """One request in one of the APIs. A whole answer comes in as a chat completion."""

    @property
    def asked(self) -> Asked:
        """What is asked."""
        ...

    def whole(self, completion: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the body of an answer. Raises Refusal where it cannot be said in this API."""
        ...

    def events(self, parts: Parts, writer: Writer) -> AsyncGenerator[bytes, None]:
        """Yield an answer as it comes. Raises what `parts` raises before the first of them."""
        ...

    def again(self, completion: Mapping[str, Any]) -> bytes:
        """Return a whole answer as a stream."""
        ...

    def failed(self, refusal: Refusal, writer: Writer) -> bytes:
        """Return the end of a stream that breaks off; maybe only comments were sent before."""
        ...


@dataclass(frozen=True, slots=True)
class Chat:
    """A request to /v1/chat/completions."""

    asked: Asked

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Read a request's body. Raises Refusal."""
        return cls(read_asked(body))

    def whole(self, completion: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the completion."""
        return completion

    def events(self, parts: Parts, writer: Writer) -> AsyncGenerator[bytes, None]:
        """Yield chunks."""
        return as_events(parts, writer, include_usage=self.asked.include_usage)

    def again(self, completion: Mapping[str, Any]) -> bytes:
        """Return a completion as chunks."""
        head = {**completion, "object": "chat.completion.chunk"}
        usage, block = head.pop("usage"), head.pop("r2")
        choices = [{"index": number, **choice} for number, choice in enumerate(head.pop("choices"))]
        deltas = [
            {"index": c["index"], "delta": _as_delta(c["message"]), "finish_reason": None}
            for c in choices
        ]
        ends = [
            {"index": c["index"], "delta": {}, "finish_reason": c.get("finish_reason")}
            for c in choices
        ]
        chunks = [event({**head, "choices": deltas}), event({**head, "choices": ends, "r2": block})]
        if self.asked.include_usage:
            chunks.append(event({**head, "choices": [], "usage": usage}))
        return b"".join([*chunks, DONE])

    def failed(self, refusal: Refusal, writer: Writer) -> bytes:
        """Return the error and the end."""
        return error_events(refusal)


def _as_delta(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message as a chunk has it: there tool calls are numbered."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    numbered = [
        {"index": number, **call} if isinstance(call, dict) else call
        for number, call in enumerate(calls)
    ]
    return {**message, "tool_calls": numbered}
