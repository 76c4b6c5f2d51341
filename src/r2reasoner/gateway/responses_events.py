"""A response of OpenAI's Responses API as it grows: what comes in is told in typed events.

The last event has the response, so a whole answer and a stream cannot differ. Reasoning is our
plan and its steps; a model's own is left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from r2reasoner.chat import Refusal, event

Event: TypeAlias = dict[str, Any]

INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""A finish reason of chat completions -> why a response is incomplete."""

FAILED: Final = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
"""An error's status -> what a failed response calls it, which has few words for it."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A text that grows in an item: its events' name, and where it stands whole.

    In a `part` it stands in a list of the item, which is called `of`.
    """

    name: str
    text: str
    part: str | None = None
    of: str = "content"
    in_event: Mapping[str, Any] = field(default_factory=dict)
    in_part: Mapping[str, Any] = field(default_factory=dict)


TEXT: Final = _Kind(
    "output_text",
    "text",
    "content_part",
    in_event={"logprobs": []},
    in_part={"type": "output_text", "annotations": [], "logprobs": []},
)
REFUSAL: Final = _Kind("refusal", "refusal", "content_part", in_part={"type": "refusal"})
SUMMARY: Final = _Kind(
    "reasoning_summary_text",
    "text",
    "reasoning_summary_part",
    of="summary",
    in_part={"type": "summary_text"},
)
ARGUMENTS: Final = _Kind("function_call_arguments", "arguments")


class _Item:
    """One item of the output; its methods tell what they do in events."""

    def __init__(self, index: int, fields: Mapping[str, Any]) -> None:
        self.fields = {**fields, "status": "in_progress"}
        self.is_open = True
        self._index = index
        self._kind: _Kind | None = None
        self._pieces: list[str] = []

    def as_object(self) -> dict[str, Any]:
        """Return the item as it is now."""
        return {k: list(v) if isinstance(v, list) else v for k, v in self.fields.items()}

    def added(self) -> Event:
        return self._event("response.output_item.added", item=self.as_object())

    def grow(self, kind: _Kind, text: str) -> Iterator[Event]:
        if self._kind is not kind:
            yield from self._end_text()
            self._kind = kind
            if kind.part:
                part = {**kind.in_part, kind.text: ""}
                yield self._at(kind, f"response.{kind.part}.added", part=part)
        if text:
            self._pieces.append(text)
            yield self._at(kind, f"response.{kind.name}.delta", delta=text, **kind.in_event)

    def close(self, status: str) -> Iterator[Event]:
        yield from self._end_text()
        self.is_open = False
        self.fields["status"] = status
        yield self._event("response.output_item.done", item=self.as_object())

    def _end_text(self) -> Iterator[Event]:
        kind, text = self._kind, "".join(self._pieces)
        if kind is None:
            return
        whole = {kind.text: text}
        yield self._at(kind, f"response.{kind.name}.done", **whole, **kind.in_event)
        if kind.part:
            part = {**kind.in_part, **whole}
            yield self._at(kind, f"response.{kind.part}.done", part=part)
            self.fields[kind.of].append(part)
        else:
            self.fields |= whole
        self._kind, self._pieces = None, []

    def _at(self, kind: _Kind, name: str, **more: Any) -> Event:
        place = {f"{kind.of}_index": len(self.fields[kind.of])} if kind.part else {}
        return self._event(name, item_id=self.fields["id"], **place, **more)

    def _event(self, name: str, **more: Any) -> Event:
        return {"type": name, "output_index": self._index, **more}


class Growing:
    """One response from its first event to its last."""

    def __init__(
        self, trace_id: str, created: int, model: str, repeated: Mapping[str, Any]
    ) -> None:
        self._trace_id = trace_id
        self._head = {
            "id": f"resp_{trace_id}",
            "object": "response",
            "created_at": created,
            "model": model,
            **repeated,
        }
        self._items: list[_Item] = []
        self._speaking: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._finish: str | None = None
        self._told = 0

    def encode(self, events: Iterable[Event]) -> bytes:
        """Return events as they are sent, numbered in this order."""
        sent = [
            b"event: %b\n%b" % (told["type"].encode(), event({**told, "sequence_number": number}))
            for number, told in enumerate(events, self._told)
        ]
        self._told += len(sent)
        return b"".join(sent)

    def tell(self, completion: Mapping[str, Any]) -> Iterator[Event]:
        """Tell a whole answer from a chat completion. Raises Refusal."""
        yield from self.begin()
        yield from self.take([{**c, "delta": c["message"]} for c in completion["choices"]])
        yield from self.end(completion["usage"], completion["r2"])

    def begin(self) -> Iterator[Event]:
        """Tell that there is a response."""
        for name in ("response.created", "response.in_progress"):
            yield {"type": name, "response": self._response("in_progress")}

    def progress(self, text: str) -> Iterator[Event]:
        """Tell a line of progress, as a summary of reasoning."""
        yield from self._speak("reasoning", SUMMARY, text)

    def take(self, choices: Sequence[Mapping[str, Any]]) -> Iterator[Event]:
        """Tell what the choices of a chunk say. Raises Refusal where a tool call is none."""
        if not choices:
            return
        delta = choices[0].get("delta") or {}
        for kind, name in ((TEXT, "content"), (REFUSAL, "refusal")):
            if (text := delta.get(name)) and isinstance(text, str):
                yield from self._speak("message", kind, text)
        for call in _calls(delta.get("tool_calls")):
            yield from self._call(call)
        self._finish = choices[0].get("finish_reason") or self._finish

    def end(self, usage: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[Event]:
        """Tell that the response is whole, or cut off by a limit."""
        reason = INCOMPLETE.get(self._finish or "")
        status = "incomplete" if reason else "completed"
        if not any(item.fields["type"] != "reasoning" for item in self._items):
            yield from self._speak("message", TEXT, "")
        for item in self._items:
            if item.is_open:
                yield from item.close(status)
        yield {
            "type": f"response.{status}",
            "response": {
                **self._response(status),
                "incomplete_details": {"reason": reason} if reason else None,
                "usage": _usage(usage),
                "r2": block,
            },
        }

    def fail(self, refusal: Refusal) -> Iterator[Event]:
        """Tell, at whatever point, that there will be no more; the output is what there was.

        The error stands in its event twice: beside the type, where OpenAI documents it, and in
        `error`, where OpenAI sends it and the official clients look for it.
        """
        if not self._told:
            yield from self.begin()
        error = refusal.as_object()["error"]
        beside = {name: error[name] for name in ("code", "message", "param")}
        yield {"type": "error", **beside, "error": error}
        for item in self._items:
            if item.is_open:
                list(item.close("incomplete"))
        code = FAILED.get(refusal.status, "server_error")
        told = {"code": code, "message": error["message"]}
        yield {"type": "response.failed", "response": {**self._response("failed"), "error": told}}

    def _response(self, status: str) -> dict[str, Any]:
        return {
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": [item.as_object() for item in self._items],
            "usage": None,
        }

    def _speak(self, what: str, kind: _Kind, text: str) -> Iterator[Event]:
        """Go on with the message or the reasoning that is being told, or begin one."""
        item = self._speaking
        if item is None or item.fields["type"] != what:
            yield from self._fall_silent()
            fields: dict[str, Any] = {"type": what, kind.of: []}
            if what == "message":
                fields["role"] = "assistant"
            item = self._speaking = self._add({"message": "msg", "reasoning": "rs"}[what], fields)
            yield item.added()
        yield from item.grow(kind, text)

    def _fall_silent(self) -> Iterator[Event]:
        if self._speaking is not None:
            yield from self._speaking.close("completed")
            self._speaking = None

    def _call(self, call: "_Call") -> Iterator[Event]:
        """Go on with a function call, or begin one. All end together, as they may come mixed."""
        item = self._calls.get(call.index)
        if item is None or (call.id and call.id != item.fields["call_id"]):
            if not call.name:
                raise _bad_call()
            yield from self._fall_silent()
            number = len(self._items)
            fields = {
                "type": "function_call",
                "call_id": call.id or f"call_{self._trace_id}_{number}",
                "name": call.name,
                "arguments": "",
            }
            item = self._calls[call.index] = self._add("fc", fields)
            yield item.added()
        yield from item.grow(ARGUMENTS, call.arguments)

    def _add(self, prefix: str, fields: Mapping[str, Any]) -> _Item:
        number = len(self._items)
        item = _Item(number, {"id": f"{prefix}_{self._trace_id}_{number}", **fields})
        self._items.append(item)
        return item


@dataclass(frozen=True, slots=True)
class _Call:
    """What one chunk says of a function call; a call's later chunks leave out `id` and `name`."""

    index: int
    id: str
    name: str
    arguments: str


def _calls(value: Any) -> list[_Call]:
    """Read tool calls, which are a provider's words. Raises Refusal (502)."""
    listed = value or []
    if not isinstance(listed, list):
        raise _bad_call()
    return [_read_call(call, position) for position, call in enumerate(listed)]


def _read_call(call: Any, position: int) -> _Call:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise _bad_call()
    index = call.get("index")
    words = (call.get("id"), function.get("name"), function.get("arguments"))
    if not isinstance(index, int | None) or not all(isinstance(w, str | None) for w in words):
        raise _bad_call()
    return _Call(position if index is None else index, *(word or "" for word in words))


def _bad_call() -> Refusal:
    return Refusal(502, "the model made a tool call that is none", code="upstream_malformed")


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a usage of chat completions in the names of this API.

    Tokens that a provider wrote to its cache are counted as any others, so none are told apart.
    """
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {**usage["prompt_tokens_details"], "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": usage["completion_tokens_details"],
        "total_tokens": usage["total_tokens"],
    }
