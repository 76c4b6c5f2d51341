"""Logged requests from JSON lines: OpenAI's form, the batch API's, or LiteLLM's.

    {"request" or "body": {"model", "messages"}, "response": {"choices", "usage"}}   OpenAI
    {"custom_id", "body": {...}} and {"custom_id", "response": {"body": {...}}}       batch API
    {"call_type", "model", "messages", "response", "prompt_tokens", ...}              LiteLLM

LiteLLM's is its standard logging payload, alone or under `standard_logging_object`. A line's
`gold`, or `metadata.gold`, is its right answer, where somebody knows it. Whatever is no whole chat
of text (failures, embeddings, pictures, tools, redacted messages) is left out and counted by
reason. Keys, headers and users are never read, and errors never show what a line holds.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from r2reasoner.errors import DataError
from r2reasoner.types import Message, Pico, Query, Usage, to_pico

MAX_LINE_BYTES: Final = 16 * 2**20
SHOWN_LINES: Final = 8
OPENAI: Final = "https://api.openai.com/v1"
EXPECTED: Final = (
    'a request log: {"request": {"model", "messages"}, "response": {"choices", "usage"}},'
    " lines of the batch API, or LiteLLM's standard logging payload"
)
_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_CHATS: Final = frozenset({"", "completion", "acompletion", "chat_completion"})
MOST_TOKENS: Final = 2**40


class LeftOut(StrEnum):
    """Why a logged request is not looked at."""

    FAILED = "failed requests"
    CACHED = "answered from a cache"
    NOT_CHAT = "no chat completion"
    REDACTED = "messages redacted in the log"
    NOT_TEXT = "pictures, tools or other content than text"
    NO_QUESTION = "does not end in a user's message"
    NO_ANSWER = "no answer on record"
    NO_REQUEST = "an answer whose request is not in these files"


class _Skip(Exception):
    """A line that is left out."""

    def __init__(self, reason: LeftOut) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Logged:
    """One request and its answer. `cost` is what the log says, pico-dollars; `usage` its tokens.

    `id` is a hash of what was asked, answered and when in order, so that runs agree on it.
    """

    id: str
    where: str
    messages: tuple[Message, ...]
    answer: str
    model: str
    usage: Usage | None
    cost: Pico | None
    base_url: str | None
    gold: str | None

    def query(self) -> Query:
        """Return it as a query: the last message, after the conversation before it."""
        return Query(self.messages[-1].content, self.id, self.messages[:-1])


@dataclass(slots=True)
class Logs:
    """What stands in some log files: requests, and how many lines were left out, by reason.

    `bad` are the places of lines that are no log at all, where those were to be skipped.
    """

    requests: list[Logged] = field(default_factory=list)
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


class _Parts(NamedTuple):
    """The parts of a log line that are read."""

    request: Mapping[str, Any]
    response: Any
    cost: Any
    base_url: Any
    gold: Any


def read_logs(files: Sequence[Path], *, skip_bad: bool = False) -> Logs:
    """Return what stands in some files.

    Raises DataError, naming files and lines, for lines of no known form (with `skip_bad` they are
    counted instead), and where no request is left.
    """
    logs = Logs()
    halves: dict[str, tuple[str, Mapping[str, Any]]] = {}
    answers: dict[str, tuple[str, Mapping[str, Any]]] = {}
    seen: Counter[str] = Counter()

    def take(where: str, parts: _Parts) -> None:
        try:
            logs.requests.append(_logged(where, parts, seen))
        except _Skip as skip:
            logs.left_out[skip.reason] += 1

    for where, row in _rows(files, logs.bad):
        kind = _form(row)
        if kind == "bad":
            logs.bad.append(where)
        elif kind == "batch request":
            halves[str(row["custom_id"])] = (where, row)
        elif kind == "batch answer":
            answers[str(row["custom_id"])] = (where, row)
        else:
            take(where, _parts(row))
    for key, (place, asked) in halves.items():
        answer = answers.pop(key)[1] if key in answers else {}
        take(place, _parts({**asked, "response": answer.get("response")}))
    logs.left_out[LeftOut.NO_REQUEST] += len(answers)
    _check(files, logs, skip_bad=skip_bad)
    return logs


def _check(files: Sequence[Path], logs: Logs, *, skip_bad: bool) -> None:
    if logs.bad and not skip_bad:
        shown = ", ".join(logs.bad[:SHOWN_LINES])
        more = f" and {len(logs.bad) - SHOWN_LINES:,} more" if logs.bad[SHOWN_LINES:] else ""
        raise DataError(
            f"{shown}{more}: expected {EXPECTED}; repair the lines, or leave them out with"
            " --skip-bad"
        )
    if not logs.requests:
        why = ", ".join(f"{n:,} {reason}" for reason, n in logs.left_out.items() if n)
        names = ", ".join(map(str, files))
        raise DataError(f"{names}: no request with its answer in it ({why or 'empty'})")


def _rows(files: Sequence[Path], bad: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in files:
        try:
            with file.open("rb") as stream:
                for number, raw in enumerate(_lines(stream), 1):
                    where = f"{file}:{number}"
                    row = _parsed(raw)
                    if isinstance(row, dict):
                        yield where, row
                    elif raw.strip():
                        bad.append(where)
        except FileNotFoundError:
            raise DataError(f"{file}: no such file; expected {EXPECTED}") from None
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _lines(stream: Any) -> Iterator[bytes]:
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        yield raw
        while len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            raw = stream.readline(MAX_LINE_BYTES + 1)  # the rest of a line that is too long


def _parsed(raw: bytes) -> Any:
    if len(raw) > MAX_LINE_BYTES:
        return None
    try:
        return json.loads(raw.decode(), parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _form(row: Mapping[str, Any]) -> str:
    """Return which form a line has; `bad` where it is no log."""
    if "custom_id" in row and isinstance(row.get("body"), dict) and "response" not in row:
        return "batch request"
    if "custom_id" in row and "response" in row and not _requests(row):
        return "batch answer"
    return "whole" if _requests(_payload(row)) else "bad"


def _payload(row: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = row.get("standard_logging_object")
    return nested if isinstance(nested, dict) else row


def _requests(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what was asked, wherever a form has it; None where it is not there."""
    for name in ("request", "body"):
        if isinstance(part := row.get(name), dict) and ("messages" in part or "input" in part):
            return part
    return row if "messages" in row and ("model" in row or "response" in row) else None


def _parts(row: Mapping[str, Any]) -> _Parts:
    """Return what is read of a line of any form; a reason to leave it out under `skip`."""
    row = _payload(row)
    request: Mapping[str, Any] = _requests(row) or {}
    metadata = row.get("metadata")
    gold = row.get("gold", metadata.get("gold") if isinstance(metadata, dict) else None)
    if str(row.get("call_type") or "") not in _CHATS:
        request = {"skip": LeftOut.NOT_CHAT}
    elif row.get("status") == "failure" or row.get("error"):
        request = {"skip": LeftOut.FAILED}
    elif row.get("cache_hit") is True:
        request = {"skip": LeftOut.CACHED}
    response = row.get("response", {"choices": row["choices"]} if "choices" in row else None)
    if isinstance(response, dict) and isinstance(response.get("body"), dict):
        if response.get("status_code", 200) != 200:
            request = {"skip": LeftOut.FAILED}
        response = response["body"]
    if "model" not in request and "skip" not in request:
        request = {**request, "model": row.get("model")}
    response = _with_usage(response, row)
    url = row.get("api_base") or row.get("base_url") or (OPENAI if "custom_id" in row else None)
    return _Parts(request, response, row.get("response_cost"), url, gold)


def _with_usage(response: Any, row: Mapping[str, Any]) -> Any:
    """Give a response the tokens that stand beside it."""
    inside = response.get("usage") if isinstance(response, dict) else None
    usage = inside or row.get("usage") or (row if "prompt_tokens" in row else None)
    text = response if isinstance(response, str) else None
    held = response if isinstance(response, dict) else {}
    return {**held, "usage": usage, **({"text": text} if text is not None else {})}


def _logged(where: str, parts: _Parts, seen: Counter[str]) -> Logged:
    """Return a request. Raises _Skip."""
    if (reason := parts.request.get("skip")) is not None:
        raise _Skip(reason)
    if "messages" not in parts.request:
        raise _Skip(LeftOut.NOT_CHAT)
    messages = _messages(parts.request["messages"])
    answer = _answer(parts.response)
    model = parts.request.get("model")
    model = model if isinstance(model, str) and model else parts.response.get("model")
    name = model if isinstance(model, str) else ""
    text = json.dumps([name, [(m.role, m.content) for m in messages], answer])
    content = blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
    seen[content] += 1
    return Logged(
        id=content if seen[content] == 1 else f"{content}-{seen[content]}",
        where=where,
        messages=messages,
        answer=answer,
        model=name,
        usage=_usage(parts.response.get("usage")),
        cost=_cost(parts.cost),
        base_url=parts.base_url if isinstance(parts.base_url, str) else None,
        gold=None if parts.gold is None else str(parts.gold),
    )


def _messages(raw: Any) -> tuple[Message, ...]:
    if isinstance(raw, str):
        if "redacted" in raw[:40].lower():
            raise _Skip(LeftOut.REDACTED)
        raw = [{"role": "user", "content": raw}]
    if not isinstance(raw, list) or not raw:
        raise _Skip(LeftOut.NO_QUESTION)
    messages = tuple(_message(one) for one in raw)
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise _Skip(LeftOut.NO_QUESTION)
    if all(m.content.startswith("redacted-by-litellm") for m in messages):
        raise _Skip(LeftOut.REDACTED)
    return messages


def _message(raw: Any) -> Message:
    role = raw.get("role") if isinstance(raw, dict) else None
    if (
        not isinstance(role, str)
        or role not in _ROLES
        or raw.get("tool_calls")
        or raw.get("function_call")
    ):
        raise _Skip(LeftOut.NOT_TEXT)
    return Message(_ROLES[role], _text(raw.get("content")))  # type: ignore[arg-type]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts: Iterable[Any] = content if isinstance(content, list) else ()
    texts = [p.get("text") if isinstance(p, dict) else None for p in parts]
    known = [text for text in texts if isinstance(text, str)]
    if not known or len(known) < len(texts):
        raise _Skip(LeftOut.NOT_TEXT)
    return "\n".join(known)


def _answer(response: Mapping[str, Any]) -> str:
    choices = response.get("choices")
    message: Any = response.get("text")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        first = choices[0].get("message")
        if isinstance(first, dict):
            if first.get("tool_calls"):
                raise _Skip(LeftOut.NOT_TEXT)
            message = first.get("content")
    if message is None:
        raise _Skip(LeftOut.NO_ANSWER)
    text = _text(message)
    if not text.strip():
        raise _Skip(LeftOut.NO_ANSWER)
    if text.startswith("redacted-by-litellm"):
        raise _Skip(LeftOut.REDACTED)
    return text


def _usage(raw: Any) -> Usage | None:
    """Return the tokens, or None where they are not there or impossible."""
    if not isinstance(raw, Mapping):
        return None
    asked = raw.get("prompt_tokens", raw.get("input_tokens"))
    made = raw.get("completion_tokens", raw.get("output_tokens"))
    before = raw.get("prompt_tokens_details")
    after = raw.get("completion_tokens_details")
    cached = before.get("cached_tokens") if isinstance(before, Mapping) else 0
    thought = after.get("reasoning_tokens") if isinstance(after, Mapping) else 0
    counts = (asked, made, cached or 0, thought or 0)
    if any(type(n) is not int or not 0 <= n < MOST_TOKENS for n in counts):
        return None
    usage = Usage(*counts)
    fits = usage.cached_tokens <= usage.input_tokens
    return usage if fits and usage.input_tokens + usage.output_tokens else None


def _cost(raw: Any) -> Pico | None:
    """Return what a log says that a request cost; nothing at all is not known, never free."""
    if isinstance(raw, bool) or not isinstance(raw, int | Decimal):
        return None
    return to_pico(raw) if Decimal(raw).is_finite() and 0 < raw < 10**6 else None
