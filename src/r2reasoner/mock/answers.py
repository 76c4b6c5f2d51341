"""What the fake provider says: a call as it read it, and an answer in OpenAI's two forms.

A word is a token, and a stream sends one word an event, so that what was delivered before a cut
is known exactly.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import time
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from r2reasoner.types import Message

TOKENS_PER_MESSAGE: Final = 4
_ROLES: Final[Mapping[str, Literal["system", "user", "assistant"]]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}
_TOKEN: Final = re.compile(r"\s*\S+(?:\s+$)?")


class Piece(NamedTuple):
    """Bytes of a body, and how many output tokens they deliver."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall:
    """One request as the provider read it, `body` whole. `role` is that of header `x-r2-role`."""

    number: int
    model: str
    role: str | None
    messages: tuple[Message, ...]
    max_tokens: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    choices: int
    body: Mapping[str, Any]

    @property
    def last_user(self) -> str:
        """The last user turn's text."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def input_tokens(self) -> int:
        """What the prompt counts as."""
        return sum(count_tokens(m.content) + TOKENS_PER_MESSAGE for m in self.messages)


Answerer: TypeAlias = Callable[[ChatCall], str]


def echo(call: ChatCall) -> str:
    """Answer with the last user turn."""
    return call.last_user


def count_tokens(text: str) -> int:
    """Return the number of words."""
    return len(text.split())


def read_call(body: bytes, number: int, role: str | None) -> ChatCall:
    """Read a request. Raises ValueError saying what is wrong with it."""
    data = json.loads(body)
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, got {type(data).__name__}")
    model, messages, stop = data.get("model"), data.get("messages"), data.get("stop") or ()
    if not isinstance(model, str) or not model:
        raise ValueError("expected model to be a name")
    if not isinstance(messages, list) or not messages:
        raise ValueError("expected messages to be a list that is not empty")
    choices = data.get("n", 1)
    if type(choices) is not int or choices < 1:
        raise ValueError(f"expected n to be 1 or more, got {choices!r}")
    limit = data.get("max_completion_tokens", data.get("max_tokens"))
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"expected max_tokens to be 1 or more, got {limit!r}")
    options = data.get("stream_options") or {}
    return ChatCall(
        number=number,
        model=model,
        role=role,
        messages=tuple(_message(m) for m in messages),
        max_tokens=limit,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        stream=bool(data.get("stream")),
        include_usage=bool(options.get("include_usage")),
        choices=choices,
        body=data,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer before it is written. `usage` is what is reported, None for nothing.

    `billed_output` tokens are billed when it is delivered whole; of `billed_input`,
    `billed_cached` at the rate for what was in the cache.
    """

    call: ChatCall
    text: str
    finish_reason: str | None
    usage: Mapping[str, Any] | None
    billed_input: int
    billed_output: int
    billed_cached: int = 0
    tool_call: bool = False
    done: bool = True
    logprob: float | None = None

    @classmethod
    def to(cls, call: ChatCall, text: str, logprob: float | None = None) -> "Answer":
        """Return a text as an honest answer: cut at stop words and at max_tokens.

        `logprob` is that of each token, told where the call asks for it.
        """
        for stop in call.stop:
            text = text.partition(stop)[0]
        words = split_tokens(text)
        finish = "stop"
        if call.max_tokens is not None and len(words) > call.max_tokens:
            words, finish = words[: call.max_tokens], "length"
        billed = len(words) * call.choices
        return cls(
            call=call,
            text="".join(words),
            finish_reason=finish,
            usage=usage_object(call.input_tokens, billed),
            billed_input=call.input_tokens,
            billed_output=billed,
            logprob=logprob if call.body.get("logprobs") else None,
        )

    def cached(self, tokens: int) -> "Answer":
        """Return the answer with so many input tokens reported and billed as cached."""
        details = {"prompt_tokens_details": {"cached_tokens": tokens}}
        return replace(self, usage={**(self.usage or {}), **details}, billed_cached=tokens)

    def pieces(self) -> list[Piece]:
        """Return the body in the form that was asked for."""
        if self.call.stream:
            return self.as_events()
        return [Piece(self.as_object(), self.billed_output)]

    def as_object(self) -> bytes:
        """Return the body of an answer that is not streamed."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.tool_call:
            message |= {"content": None, "tool_calls": [_TOOL_CALL]}
        choice = {
            "message": message,
            "finish_reason": self.finish_reason,
            "logprobs": self._logprobs(split_tokens(self.text)),
        }
        choices = [{"index": index} | choice for index in range(self.call.choices)]
        body = self._envelope("chat.completion") | {"choices": choices}
        if self.usage is not None:
            body["usage"] = self.usage
        return json.dumps(body).encode()

    def as_events(self) -> list[Piece]:
        """Return the events of a stream."""
        envelope = self._envelope("chat.completion.chunk")

        def chunks(
            delta: Mapping[str, Any], tokens: int = 0, finish: str | None = None
        ) -> list[Piece]:
            """Return a chunk for each choice; all say the same, and `tokens` each."""
            words = [delta["content"]] if delta.get("content") else []
            choice = {"delta": delta, "finish_reason": finish, "logprobs": self._logprobs(words)}
            choices = [{"index": index} | choice for index in range(self.call.choices)]
            return [Piece(event(envelope | {"choices": [one]}), tokens) for one in choices]

        pieces = chunks({"role": "assistant", "content": ""})
        words = [] if self.tool_call else split_tokens(self.text)
        if self.tool_call:
            pieces += chunks({"tool_calls": [{"index": 0} | _TOOL_CALL]})
        for word in words:
            pieces += chunks({"content": word}, 1)
        rest = self.billed_output // self.call.choices - len(words)
        if self.finish_reason is not None:
            pieces += chunks({}, rest, self.finish_reason)
        if self.call.include_usage and self.usage is not None:
            pieces.append(Piece(event(envelope | {"choices": [], "usage": self.usage})))
        if self.done:
            pieces.append(Piece(b"data: [DONE]\n\n"))
        return pieces

    def _logprobs(self, words: list[str]) -> dict[str, Any] | None:
        if self.logprob is None:
            return None
        return {"content": [{"token": word, "logprob": self.logprob} for word in words]}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-mock-{self.call.number}",
            "object": kind,
            "created": int(time()),
            "model": self.call.model,
        }


def usage_object(prompt: int, completion: int) -> dict[str, int]:
    """Return a usage as OpenAI reports it."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def error_object(status: int, message: str) -> bytes:
    """Return an error body as OpenAI writes it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    return json.dumps({"error": error}).encode()


def event(value: Mapping[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def split_tokens(text: str) -> list[str]:
    """Split a text into words with the white space before them; joined, they give it again.

    A text of white space alone has no tokens.
    """
    return _TOKEN.findall(text)


_TOOL_CALL: Final = {
    "id": "call_mock",
    "type": "function",
    "function": {"name": "look_up", "arguments": "{}"},
}


def _message(raw: object) -> Message:
    if not isinstance(raw, dict) or raw.get("role") not in _ROLES:
        raise ValueError(f"expected each message to have a role: {', '.join(_ROLES)}")
    content = raw.get("content")
    if content is None and raw.get("tool_calls"):
        content = ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise ValueError("expected each message's content to be a text")
    return Message(_ROLES[raw["role"]], content)
