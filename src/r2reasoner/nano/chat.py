"""OpenAI's chat format from the server's side: what is asked, what is answered, what is refused.

Pure functions for `serve.py`. A nano model gives one answer, decodes greedily and calls no tools;
a request for what it cannot do is refused, not ignored. One field is ours: `r2_rank` asks for the
next-likeliest answer, by which a greedy policy repairs itself.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from r2reasoner.types import Message, Usage

HIGHEST_RANK: Final = 7
MOST_STOPS: Final = 4
ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

_WORD: Final = re.compile(r"\s*\S+(?:\s+$)?")


class Refusal(Exception):
    """A request that is answered with an error in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


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
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Refusal(400, f"expected a JSON object, got {type(data).__name__}")
    _check_abilities(data)
    limit_name = "max_completion_tokens" if "max_completion_tokens" in data else "max_tokens"
    options = data.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _wrong("stream_options", "an object", options)
    return Ask(
        model=_text(data.get("model"), "model"),
        messages=_messages(data.get("messages")),
        max_tokens=_whole(data.get(limit_name), limit_name, 1, 1 << 31),
        stop=_stops(data.get("stop")),
        rank=_whole(data.get("r2_rank"), "r2_rank", 0, HIGHEST_RANK) or 0,
        stream=_flag(data.get("stream"), "stream"),
        include_usage=_flag(options.get("include_usage"), "stream_options.include_usage"),
        logprobs=_flag(data.get("logprobs"), "logprobs"),
    )


def _check_abilities(data: Mapping[str, Any]) -> None:
    if (n := data.get("n")) is not None and (type(n) is not int or n != 1):
        raise _wrong("n", "1: a nano model gives one answer", n)
    temperature = data.get("temperature")
    if temperature is not None and (
        isinstance(temperature, bool)
        or not isinstance(temperature, int | float)
        or not 0 <= temperature <= 2
    ):
        raise _wrong("temperature", "a number from 0 to 2 (decoding is greedy)", temperature)
    wanted = data.get("response_format") or {"type": "text"}
    if not isinstance(wanted, dict) or wanted.get("type") != "text":
        raise Refusal(400, "a nano model writes no JSON: only text", param="response_format")
    for name in ("tools", "functions"):
        if data.get(name):
            raise Refusal(400, "a nano model calls no tools", param=name)


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong("messages", "a list that is not empty", value)
    messages = tuple(_message(m, f"messages[{i}]") for i, m in enumerate(value))
    if all(m.role != "user" for m in messages):
        raise Refusal(400, "messages: expected one with the role user", param="messages")
    return messages


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        raise Refusal(400, f"{where}: expected a role: {', '.join(ROLES)}", param=where)
    content = value.get("content")
    if isinstance(content, list) and all(_is_text_part(part) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise Refusal(400, f"{where}.content: expected a text", param=f"{where}.content")
    return Message(ROLES[value["role"]], content)  # type: ignore[arg-type]


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(s, str) and s for s in stops)
    ):
        raise _wrong("stop", f"a text or a list of up to {MOST_STOPS}", value)
    return tuple(stops)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(name, "a text", value)
    return value


def _flag(value: Any, name: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return bool(value)


def _whole(value: Any, name: str, low: int, high: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise _wrong(name, f"a whole number from {low} to {high}", value)
    return value


def _wrong(name: str, expected: str, got: Any) -> Refusal:
    return Refusal(400, f"{name}: expected {expected}, got {json.dumps(got)[:80]}", param=name)


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
            yield _event({**head, "choices": [], "usage": usage_object(self.usage)})
        yield b"data: [DONE]\n\n"

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
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage_object(usage: Usage) -> dict[str, int]:
    """Return a usage as OpenAI reports it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def error_object(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """Return an error body as OpenAI writes it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
