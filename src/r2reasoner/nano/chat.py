"""OpenAI's chat format from the server's side: what is asked, what is answered, what is refused.

Pure functions for `serve.py`. A nano model gives one answer, decodes greedily and calls no tools;
a request for what it cannot do is refused, not ignored. One field is ours: `r2_rank` asks for the
next-likeliest answer, by which a greedy policy repairs itself.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from r2reasoner.chat import (
    DONE,
    Refusal,
    envelope,
    event,
    is_text_part,
    limit_name,
    read_flag,
    read_mapping,
    read_number,
    read_object,
    read_stops,
    read_text,
    read_whole,
    usage_object,
    wrong,
)
from r2reasoner.types import Message, Usage

HIGHEST_RANK: Final = 7
ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

_WORD: Final = re.compile(r"\s*\S+(?:\s+$)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. `max_tokens` None leaves it to the model's card; `rank` 0 is the likeliest."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None
    stop: tuple[str, ...]
    rank: int
    stream: bool
    include_usage: bool
    logprobs: bool


def read_ask(body: bytes) -> Ask:
    """Read a request's body. Raises Refusal (400) naming the field that is wrong."""
    data = read_object(body)
    _check_abilities(data)
    limit = limit_name(data)
    options = read_mapping(data.get("stream_options"), "stream_options")
    return Ask(
        model=read_text(data.get("model"), "model"),
        messages=_messages(data.get("messages")),
        max_tokens=read_whole(data.get(limit), limit, 1, 1 << 31),
        stop=read_stops(data.get("stop")),
        rank=read_whole(data.get("r2_rank"), "r2_rank", 0, HIGHEST_RANK) or 0,
        stream=read_flag(data.get("stream"), "stream"),
        include_usage=read_flag(options.get("include_usage"), "stream_options.include_usage"),
        logprobs=read_flag(data.get("logprobs"), "logprobs"),
    )


def _check_abilities(data: Mapping[str, Any]) -> None:
    if (n := data.get("n")) is not None and (type(n) is not int or n != 1):
        raise wrong("n", "1: a nano model gives one answer", n)
    read_number(data.get("temperature"), "temperature", 0, 2, " (decoding is greedy)")
    wanted = data.get("response_format") or {"type": "text"}
    if not isinstance(wanted, dict) or wanted.get("type") != "text":
        raise Refusal(400, "a nano model writes no JSON: only text", param="response_format")
    for name in ("tools", "functions"):
        if data.get(name):
            raise Refusal(400, "a nano model calls no tools", param=name)


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise wrong("messages", "a list that is not empty", value)
    messages = tuple(_message(m, f"messages[{i}]") for i, m in enumerate(value))
    if all(m.role != "user" for m in messages):
        raise Refusal(400, "messages: expected one with the role user", param="messages")
    return messages


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        raise Refusal(400, f"{where}: expected a role: {', '.join(ROLES)}", param=where)
    content = value.get("content")
    if isinstance(content, list) and all(is_text_part(part) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise Refusal(400, f"{where}.content: expected a text", param=f"{where}.content")
    return Message(ROLES[value["role"]], content)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, to be written in one of OpenAI's two forms. `created` is a Unix time, seconds.

    `logprobs` are those of `tokens`; None where they were not asked for, or a stop word cut the
    text.
    """

    id: str
    created: int
    model: str
    text: str
    finish_reason: str
    usage: Usage
    tokens: Sequence[str] = ()
    logprobs: Sequence[float] | None = None

    def as_object(self) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": self.finish_reason,
            "logprobs": self._logprobs(),
        }
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage_object(self.usage),
        }

    def as_events(self, *, include_usage: bool) -> Iterator[bytes]:
        """Yield the server-sent events of a stream, a word at a time, `[DONE]` included."""
        yield self._chunk({"role": "assistant", "content": ""})
        for word in _WORD.findall(self.text):
            yield self._chunk({"content": word})
        yield self._chunk({}, self.finish_reason, self._logprobs())
        if include_usage:
            head = self._head("chat.completion.chunk")
            yield event({**head, "choices": [], "usage": usage_object(self.usage)})
        yield DONE

    def _logprobs(self) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        content: list[dict[str, Any]] = [
            {"token": token, "logprob": logprob, "bytes": None, "top_logprobs": []}
            for token, logprob in zip(self.tokens, self.logprobs, strict=True)
        ]
        return {"content": content, "refusal": None}

    def _chunk(
        self,
        delta: dict[str, str],
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return envelope(kind, self.id, self.created, self.model)
