"""OpenAI's chat format, both ways, as pure functions: a request's bytes, a body's meaning.

Nothing a provider sends is trusted: whatever the bytes are, the result is a `Reply`, with a fault
when they are no answer. Leaves out: sockets, retries and money (`openai.py`), tool calls and
several choices (the engine asks for one text).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean
from typing import Any, Final

import orjson

from r2reasoner.client.base import ChatRequest
from r2reasoner.errors import CallFault
from r2reasoner.pool.cards import Card
from r2reasoner.types import Message, Usage

MAX_TOKENS_BELIEVED: Final = 10**9
"""No call has more tokens than this; a larger count is nonsense (and would overflow the ledger)."""

MAX_SURPRISE_BELIEVED: Final = 1e6
"""No log-probability lies further below 0 than this (some providers write -9999 for unlikely)."""

MAX_BODY_BYTES: Final = 32 << 20
MAX_EVENT_BYTES: Final = 1 << 20
MAX_FINISH_REASON_CHARS: Final = 64

CACHE_KEY: Final = "prompt_cache_key"
"""OpenAI's field for what begins alike, so that it meets its cache; and who takes it."""

PROMPT_OVERHEAD: Final = 64
"""Input tokens a chat template may add once: a built-in system turn, the opening of the answer."""

MESSAGE_OVERHEAD: Final = 16
"""Input tokens a chat template may add around each message."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a 2xx body came to. With a `fault` it is no answer, and `detail` says why.

    `usage` is None when none was reported or when it is not believed (`doubt` says why).
    `logprob` is the mean log-probability of the tokens, None where it was not told. `body` is
    that of an answer that is not streamed, as it came.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    doubt: str | None = None
    fault: CallFault | None = None
    detail: str = ""
    logprob: float | None = None
    body: dict[str, Any] | None = None


class _Unusable(Exception):
    """A body that breaks the format."""

    def __init__(self, fault: CallFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


def messages_of(card: Card, request: ChatRequest) -> tuple[Message, ...]:
    """Return what is sent: every message, or the last user turn alone to a plain-prompt model."""
    if card.prompt == "plain":
        return tuple(m for m in request.messages if m.role == "user")[-1:]
    return request.messages


def encode(card: Card, request: ChatRequest, *, stream: bool) -> bytes:
    """Return the JSON body of a request.

    Of a card's capabilities, `max_completion_tokens` says that the limit goes by that name,
    `fixed_temperature` that the endpoint refuses to be given one, `no_logprobs` that it refuses to
    be asked for log-probabilities, and `prompt_cache_key` that it takes one.
    """
    limit = "max_completion_tokens"
    body: dict[str, Any] = {
        "model": card.model,
        "messages": [{"role": m.role, "content": m.content} for m in messages_of(card, request)],
        limit if limit in card.capabilities else "max_tokens": request.max_tokens,
    }
    if "fixed_temperature" not in card.capabilities:
        body["temperature"] = request.temperature
    if request.stop:
        body["stop"] = list(request.stop)
    if request.response_format is not None:
        body["response_format"] = request.response_format
    if request.logprobs and "no_logprobs" not in card.capabilities:
        body["logprobs"] = True
    if request.cache_key and CACHE_KEY in card.capabilities:
        body[CACHE_KEY] = request.cache_key
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def bound(card: Card, request: ChatRequest) -> Usage:
    """Return the most tokens a request can cost: no tokenizer makes more tokens than bytes."""
    messages = messages_of(card, request)
    size = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)
    if request.response_format is not None:  # providers put the schema into the prompt
        size += len(json.dumps(request.response_format))
    overhead = PROMPT_OVERHEAD + MESSAGE_OVERHEAD * len(messages)
    return Usage(input_tokens=size + overhead, output_tokens=request.max_tokens)


def read_answer(body: bytes, *, relayed: bool = False) -> Reply:
    """Return what the body of a call without streaming says. Never raises.

    `relayed`: for somebody who also takes an answer without a text (a tool call, a refusal).
    """
    try:
        data = _object(body)
    except _Unusable as error:
        return Reply(fault=error.fault, detail=error.detail)
    usage, doubt = read_usage(data.get("usage"))
    try:
        choice = _first_choice(data)
        if choice is None:
            raise _Unusable(CallFault.MALFORMED, "expected one choice, got none")
        message = _mapping(choice.get("message"), "message")
        text = _text(message.get("content"))
        finish = _finish_reason(choice)
        if relayed:
            _check_choices(data, "message")
        elif not text.strip():
            raise _no_text(message, finish)
    except _Unusable as error:
        return Reply(usage=usage, doubt=doubt, fault=error.fault, detail=error.detail)
    usage, doubt = _believe(usage, doubt, text)
    return Reply(text, finish, usage, doubt, logprob=_mean(_logprobs(choice)), body=data)


def read_usage(raw: object) -> tuple[Usage | None, str | None]:
    """Return the usage reported, and why it is not believed if it is not.

    Output is what the total says beyond the input when that is more, because some providers
    bill reasoning tokens that only their total counts.
    """
    if raw is None:
        return None, None
    if not isinstance(raw, dict):
        return None, f"usage not believed: expected an object, got {type(raw).__name__}"
    try:
        prompt = _count(raw, "prompt_tokens")
        completion = _count(raw, "completion_tokens")
        total = _count(raw, "total_tokens", default=0)
        cached = _detail(raw, "prompt_tokens_details", "cached_tokens")
        reasoning = _detail(raw, "completion_tokens_details", "reasoning_tokens")
    except ValueError as error:
        return None, f"usage not believed: {error}"
    output = max(completion, total - prompt)
    if cached > prompt:
        return None, f"usage not believed: {cached} cached of {prompt} input tokens"
    if reasoning > output:
        return None, f"usage not believed: {reasoning} reasoning of {output} output tokens"
    return Usage(prompt, output, cached, reasoning), None


class EventParser:
    """Cuts a byte stream into the data of server-sent events, whatever the chunk boundaries.

    An event ends at its blank line; what stands after the last blank line is never given out.
    Lines end with LF or CRLF (the bare CR that the standard also allows is unknown among
    providers).
    """

    __slots__ = ("_data", "_size", "_tail")

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that a chunk completes. Raises ValueError past 1 MiB."""
        self._size += len(chunk)
        if b"\n" not in chunk:  # joined once its end has come: linear, however small the chunks
            self._tail.append(chunk)
            self._check_size()
            return []
        first, *lines = b"".join((*self._tail, chunk)).split(b"\n")
        last = lines.pop()
        self._tail = [last]
        events = []
        for line in (first, *lines):
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        self._size = len(last) + sum(map(len, self._data))
        self._check_size()
        return events

    def _check_size(self) -> None:
        if self._size > MAX_EVENT_BYTES:
            raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")


class StreamReader:
    """Gathers a streamed answer. `done`: the terminal marker came, or the stream is unusable.

    `relayed`: for somebody who also takes an answer without a text, and takes the chunks as they
    came out of `chunks`.
    """

    def __init__(self, *, relayed: bool = False) -> None:
        self.done = False
        self.chunks: list[dict[str, Any]] = []
        self._relayed = relayed
        self.usage: Usage | None = None
        self._events = EventParser()
        self._head = b""
        self._size = 0
        self._seen_event = False
        self._pieces: list[str] = []
        self._finish: str | None = None
        self._doubt: str | None = None
        self._broken: _Unusable | None = None
        self._odd: dict[str, Any] = {}
        self._logprobs: list[float] = []

    def feed(self, chunk: bytes) -> list[str]:
        """Return the pieces of text in a chunk. Never raises; a broken stream is `done`."""
        if not self._seen_event and len(self._head) < 1024:
            self._head += chunk[:1024]
        self._size += len(chunk)
        pieces = []
        try:
            if self._size > MAX_BODY_BYTES:
                raise ValueError(f"a stream of more than {MAX_BODY_BYTES} bytes")
            for data in self._events.feed(chunk):
                self._seen_event = True
                if data == b"[DONE]":
                    self.done = True
                    break
                if piece := self._take(_object(data)):
                    pieces.append(piece)
        except _Unusable as error:
            self._broken = error
        except ValueError as error:
            self._broken = _Unusable(CallFault.MALFORMED, str(error))
        self.done = self.done or self._broken is not None
        self._pieces += pieces
        return pieces

    def reply(self) -> Reply:
        """Return what the stream came to; a fault unless it was whole."""
        text = "".join(self._pieces)
        error = self._error(text)
        if error is not None:
            return Reply("", self._finish, self.usage, self._doubt, error.fault, error.detail)
        usage, doubt = _believe(self.usage, self._doubt, text)
        return Reply(text, self._finish, usage, doubt, logprob=_mean(self._logprobs))

    def _take(self, event: dict[str, Any]) -> str:
        choice = _first_choice(event)
        piece = ""
        if choice is not None:
            delta = _mapping(choice.get("delta") or {}, "delta")
            piece = _text(delta.get("content"))
            self._finish = _finish_reason(choice) or self._finish
            self._logprobs += _logprobs(choice)
            if not piece:
                self._odd.update({k: v for k, v in delta.items() if k in _NOT_TEXT and v})
        raw = event.get("usage")
        # Some providers report a running count with every piece; only a final one is the bill.
        if raw is not None and (choice is None or self._finish):
            self.usage, self._doubt = read_usage(raw)
        if self._relayed:
            _check_choices(event, "delta")
            self.chunks.append(event)
        return piece

    def _error(self, text: str) -> _Unusable | None:
        if self._broken is not None:
            return self._broken
        if not self._seen_event:
            head = self._head.decode("utf-8", "replace")
            return _Unusable(CallFault.MALFORMED, f"expected a stream of events, got: {head}")
        if not self.done:
            return _Unusable(CallFault.CUT, "the stream ended without [DONE]")
        if self._finish is None:
            return _Unusable(CallFault.CUT, "the stream ended without a finish reason")
        return None if text.strip() or self._relayed else _no_text(self._odd, self._finish)


_NOT_TEXT: Final = ("tool_calls", "function_call", "refusal")


def _object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object that is no error report."""
    try:
        value = _loads(data)
    except UnicodeDecodeError as error:
        raise _Unusable(CallFault.MALFORMED, f"not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError):
        excerpt = data[:1024].decode("utf-8", "replace")
        raise _Unusable(CallFault.MALFORMED, f"expected JSON, got: {excerpt}") from None
    if not isinstance(value, dict):
        raise _Unusable(CallFault.MALFORMED, f"expected an object, got {type(value).__name__}")
    if value.get("error"):
        raise _Unusable(CallFault.MALFORMED, f"an error inside a 200: {error_text(value)}")
    return value


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:  # stricter than some providers: half surrogate pairs, NaN
        return json.loads(data.decode())


def error_text(body: Mapping[str, Any]) -> str:
    """Return the message of an error body, in any of the shapes that providers use."""
    error = body.get("error", body)
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return error if isinstance(error, str) else json.dumps(error)


def _first_choice(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = data.get("choices") or []
    if not isinstance(choices, list):
        raise _Unusable(CallFault.MALFORMED, "expected a list of choices")
    return _mapping(choices[0], "choice") if choices else None


def _check_choices(data: Mapping[str, Any], what: str) -> None:
    """Check that each choice says something: who passes them on reads all."""
    for choice in data.get("choices") or ():
        _mapping(_mapping(choice, "choice").get(what) or {}, what)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Unusable(
            CallFault.MALFORMED, f"expected {name} to be an object, got {type(value).__name__}"
        )
    return value


def _text(value: object) -> str:
    """Return a text that can be written as UTF-8: half surrogate pairs are replaced."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _Unusable(
            CallFault.MALFORMED, f"expected content to be a text, got {type(value).__name__}"
        )
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _finish_reason(choice: Mapping[str, Any]) -> str | None:
    value = choice.get("finish_reason")
    if value is None or isinstance(value, str):
        return _text(value)[:MAX_FINISH_REASON_CHARS] or None
    raise _Unusable(
        CallFault.MALFORMED, f"expected finish_reason to be a text, got {type(value).__name__}"
    )


def _logprobs(choice: Mapping[str, Any]) -> list[float]:
    """Return the log-probabilities of a choice's tokens; one that is none spoils them all."""
    told = choice.get("logprobs")
    tokens = told.get("content") if isinstance(told, dict) else None
    if not isinstance(tokens, list):
        return []
    return [_logprob(token) for token in tokens]


def _logprob(token: object) -> float:
    value = token.get("logprob") if isinstance(token, dict) else None
    if isinstance(value, int | float) and -MAX_SURPRISE_BELIEVED <= value <= 0:
        return nan if isinstance(value, bool) else float(value)
    return nan


def _mean(logprobs: list[float]) -> float | None:
    mean = fmean(logprobs) if logprobs else nan
    return None if isnan(mean) else mean


def _no_text(message: Mapping[str, Any], finish: str | None) -> _Unusable:
    """Say why a whole answer has no text."""
    if message.get("tool_calls") or message.get("function_call"):
        return _Unusable(CallFault.MALFORMED, "a tool call instead of text")
    if message.get("refusal") or finish == "content_filter":
        return _Unusable(CallFault.REFUSED_INPUT, "the provider refused to answer")
    if finish == "length":
        return _Unusable(CallFault.EMPTY, "max_tokens was used up before any text came")
    return _Unusable(CallFault.EMPTY, "the answer has no text")


def _believe(usage: Usage | None, doubt: str | None, text: str) -> tuple[Usage | None, str | None]:
    if usage is not None and text and not usage.output_tokens:
        return None, "usage not believed: 0 output tokens for a text"
    return usage, doubt


def _count(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 0 <= value <= MAX_TOKENS_BELIEVED:
        raise ValueError(f"{key} {str(value)[:40]}")
    return value


def _detail(raw: Mapping[str, Any], group: str, key: str) -> int:
    details = raw.get(group)
    if details is None:
        return 0
    if not isinstance(details, dict):
        raise ValueError(f"{group} is no object")
    return _count(details, key, default=0)
