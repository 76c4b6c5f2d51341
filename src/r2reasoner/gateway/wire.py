"""A request's body -> `Asked`: everything checked before anything is dispatched.

What is passed on to a provider is made of named fields only. Fields that change what a call costs
beyond its tokens (service tiers, hosted searches, audio out) are refused, because no bound would
hold. Pure functions; raises `chat.Refusal` and nothing else.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal, cast

from r2reasoner.chat import (
    LIMITS,
    Refusal,
    is_text_part,
    limit_name,
    read_flag,
    read_mapping,
    read_number,
    read_object,
    read_stops,
    read_text,
    read_whole,
    wrong,
)
from r2reasoner.types import Message

MAX_BODY_BYTES: Final = 1 << 20
MOST_MESSAGES: Final = 2048
MOST_TOOLS: Final = 128
MOST_CHOICES: Final = 16
MOST_DEPTH: Final = 64
MOST_TOKENS: Final = 1 << 31
MAX_DOLLARS: Final = 1_000_000
MAX_SECONDS: Final = 86_400

ROLES: Final = ("assistant", "developer", "function", "system", "tool", "user")

SAMPLING: Final = frozenset(
    {
        "frequency_penalty",
        "presence_penalty",
        "parallel_tool_calls",
        "reasoning_effort",
        "seed",
        "top_p",
        "verbosity",
    }
)
"""Passed to the model that answers; without meaning where several calls make the answer."""

DROPPED: Final = frozenset(
    {"metadata", "prompt_cache_key", "safety_identifier", "store", "stream_options", "user"}
)
"""Taken and not passed on: they are between a client and OpenAI."""

NEEDS: Final[Mapping[str, str]] = {
    "tools": "tools",
    "tool_choice": "tools",
    "functions": "tools",
    "function_call": "tools",
    "response_format": "json",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "logit_bias": "logit_bias",
    "n": "n",
}
"""Fields that one capable model must answer by itself, and the capability each asks for."""

NUMBERS: Final = {"frequency_penalty": (-2, 2), "presence_penalty": (-2, 2), "top_p": (0, 1)}
WHOLES: Final = {"seed": (-(2**63), 2**63 - 1), "top_logprobs": (0, 20)}
FLAGS: Final = ("logprobs", "parallel_tool_calls", "store")
TEXTS: Final = ("prompt_cache_key", "reasoning_effort", "safety_identifier", "user", "verbosity")
OBJECTS: Final = ("logit_bias", "metadata", "response_format")
CHOICES: Final = ("function_call", "tool_choice")
TOOLS: Final = ("functions", "tools")
TOOL_TYPES: Final = ("custom", "function")
MAX_TEMPERATURE: Final = 2

_COUNTED: Final = frozenset({"max_tokens", "max_completion_tokens", "temperature", "stop"})
_OWN: Final = frozenset({"model", "messages", "stream", "r2"})
KNOWN: Final = _OWN | _COUNTED | SAMPLING | DROPPED | frozenset(NEEDS)
_WISHES: Final = frozenset({"trade_off", "max_cost", "deadline_s", "direct", "cache", "pool"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The `r2` field: how one request is to be answered; None leaves it to the settings."""

    trade_off: float | None = None
    max_cost: Decimal | None = None
    deadline_s: float | None = None
    direct: bool = False
    cache: bool = False
    pool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, checked.

    `forward` are the fields that a single model is sent as they came; `needs` the capabilities
    that it must have; `ignored` the fields without meaning where several models answer.
    """

    model: str
    text: str
    earlier: tuple[Message, ...]
    forward: Mapping[str, Any] = field(repr=False)
    needs: frozenset[str]
    wish: Wish
    max_tokens: int | None
    temperature: float | None
    stop: tuple[str, ...]
    choices: int
    stream: bool
    include_usage: bool

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields that a routed answer takes no notice of."""
        return tuple(sorted(SAMPLING & self.forward.keys()))


def read_asked(body: bytes) -> Asked:
    """Read a request's body. Raises Refusal naming the field that is wrong."""
    return asked_of(read_shallow(body))


def read_shallow(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is. Raises Refusal, also where it is nested deep."""
    data = read_object(body)
    if body.count(b"{") + body.count(b"[") > MOST_DEPTH:
        _check_depth(data)
    return data


def asked_of(data: Mapping[str, Any]) -> Asked:
    """Read the fields of a request. Raises Refusal naming the one that is wrong."""
    refuse_unknown(data, KNOWN)
    model = read_text(data.get("model"), "model")
    messages = _messages(data.get("messages"))
    limit = limit_name(data)
    options = read_mapping(data.get("stream_options"), "stream_options")
    n = read_whole(data.get("n"), "n", 1, MOST_CHOICES)
    _check_fields(data)
    turns, last = _turns(messages)
    return Asked(
        model=model,
        text=last,
        earlier=turns,
        forward={
            key: value
            for key, value in data.items()
            if value is not None and key not in _OWN | DROPPED and key not in LIMITS
        }
        | {"messages": messages},
        needs=frozenset(_needs(data, messages)),
        wish=_wish(data.get("r2")),
        max_tokens=read_whole(data.get(limit), limit, 1, MOST_TOKENS),
        temperature=read_number(data.get("temperature"), "temperature", 0, MAX_TEMPERATURE),
        stop=read_stops(data.get("stop")),
        choices=n or 1,
        stream=read_flag(data.get("stream"), "stream"),
        include_usage=read_flag(options.get("include_usage"), "stream_options.include_usage"),
    )


def refuse_unknown(data: Mapping[str, Any], known: Set[str], where: str = "") -> None:
    """Raise Refusal for a field that is not known; `where` is what its name begins with."""
    unknown = sorted(data.keys() - known)
    if unknown:
        shown = where + unknown[0][:80]
        raise Refusal(
            400,
            f"unrecognized request argument supplied: {shown!r}",
            code="unknown_parameter",
            param=shown,
        )


def _check_depth(data: Any) -> None:
    """Refuse deep nesting, which others' readers may not survive."""
    level: list[Any] = [data]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise Refusal(400, f"the body is nested more than {MOST_DEPTH} deep")


def _check_fields(data: Mapping[str, Any]) -> None:
    for name, (low, high) in NUMBERS.items():
        read_number(data.get(name), name, low, high)
    for name, (least, most) in WHOLES.items():
        read_whole(data.get(name), name, least, most)
    for name in FLAGS:
        read_flag(data.get(name), name)
    for name in TEXTS:
        if data.get(name) is not None:
            read_text(data[name], name)
    for name in OBJECTS:
        read_mapping(data.get(name), name)
    for name in CHOICES:
        if data.get(name) is not None and not isinstance(data[name], str | dict):
            raise wrong(name, "a text or an object", data[name])
    for name in TOOLS:
        tools = data.get(name)
        if tools is not None and (not _are_objects(tools) or len(tools) > MOST_TOOLS):
            raise wrong(name, f"a list of up to {MOST_TOOLS} objects", tools)
    for tool in data.get("tools") or ():
        if tool.get("type") not in TOOL_TYPES:
            raise Refusal(400, "tools: expected functions; no hosted tools here", param="tools")


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or len(value) > MOST_MESSAGES:
        raise wrong("messages", f"a list of 1 to {MOST_MESSAGES}", value)
    for i, message in enumerate(value):
        _check_message(message, f"messages[{i}]")
    if all(message["role"] != "user" for message in value):
        raise Refusal(400, "messages: expected one with the role user", param="messages")
    return value


def _check_message(value: Any, where: str) -> None:
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        raise Refusal(400, f"{where}: expected a role: {', '.join(ROLES)}", param=where)
    calls = value.get("tool_calls")
    if calls is not None and not _are_objects(calls):
        raise Refusal(
            400, f"{where}.tool_calls: expected a list of objects", param=f"{where}.tool_calls"
        )
    content = value.get("content")
    if content is None and (value.get("tool_calls") or value.get("function_call")):
        return
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise Refusal(400, f"{where}.content: expected a text or parts", param=f"{where}.content")
    for part in content:
        if not is_text_part(part) and not is_image_part(part):
            raise Refusal(
                400,
                f"{where}.content: expected parts of type text or image_url",
                param=f"{where}.content",
            )


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def is_image_part(part: Any) -> bool:
    """Tell whether a part of a message's content is an image that a model may be shown."""
    if not isinstance(part, dict) or part.get("type") != "image_url":
        return False
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else None
    return isinstance(url, str) and url.startswith(("data:image/", "https://"))


def _needs(data: Mapping[str, Any], messages: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the capabilities that a request asks for."""
    for name, capability in NEEDS.items():
        value = data.get(name)
        plain = not value or (name, value) in (("n", 1), ("response_format", {"type": "text"}))
        if not plain:
            yield capability
    for message in messages:
        if message["role"] in ("tool", "function") or message.get("tool_calls"):
            yield "tools"
        if isinstance(message.get("content"), list) and any(map(is_image_part, message["content"])):
            yield "images"


def _turns(messages: list[dict[str, Any]]) -> tuple[tuple[Message, ...], str]:
    """Return what was said before the last user turn, and that turn's text.

    What stands after it (a system note, the beginning of an answer) counts as before it.
    """
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    turns = []
    for i, message in enumerate(messages):
        role = {"developer": "system", "tool": "user", "function": "user"}.get(
            message["role"], message["role"]
        )
        text = _text_of(message)
        if i != last and text:
            turns.append(Message(cast(Literal["system", "user", "assistant"], role), text))
    return tuple(turns), _text_of(messages[last])


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content if is_text_part(part))
    return content or ""


def _wish(value: Any) -> Wish:
    wishes = read_mapping(value, "r2")
    unknown = sorted(wishes.keys() - _WISHES)
    if unknown:
        known = ", ".join(sorted(_WISHES))
        raise Refusal(400, f"r2: no {unknown[0][:80]!r}; there are: {known}", param="r2")
    cost = wishes.get("max_cost")
    if isinstance(cost, str):  # exact dollars, as money is written elsewhere
        try:
            cost = float(cost)
        except ValueError:
            raise wrong("r2.max_cost", "dollars", cost) from None
    if cost is not None and not read_number(cost, "r2.max_cost", 0, MAX_DOLLARS):
        raise wrong("r2.max_cost", "dollars above 0", cost)
    seconds = read_number(wishes.get("deadline_s"), "r2.deadline_s", 0, MAX_SECONDS)
    if seconds == 0:
        raise wrong("r2.deadline_s", "seconds above 0", seconds)
    return Wish(
        pool=None if wishes.get("pool") is None else read_text(wishes["pool"], "r2.pool"),
        trade_off=read_number(wishes.get("trade_off"), "r2.trade_off", 0, 1),
        max_cost=None if cost is None else Decimal(str(wishes["max_cost"]).strip()),
        deadline_s=seconds,
        direct=read_flag(wishes.get("direct"), "r2.direct"),
        cache=read_flag(wishes.get("cache"), "r2.cache"),
    )
