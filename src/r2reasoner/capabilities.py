"""What models can do beyond text, found out by asking: tools, images, JSON, several answers.

One short request for each, passed on as the gateway passes requests on. A capability counts where
the answer shows it, not where it was merely not refused: many servers ignore fields that they do
not know. Leaves out `logit_bias`, which no answer shows, and models that take no chat messages.
"""

import asyncio
import base64
import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from r2reasoner.budget import Meter
from r2reasoner.client.relay import Relayed, RelayingClient
from r2reasoner.errors import CallError, CallFault, R2Error
from r2reasoner.pool.cards import Card

MOST_TOKENS: Final = 1024
"""Of a probe's answer, most of them for models that think before they write."""
REFUSED: Final = frozenset({CallFault.BAD_REQUEST, CallFault.NOT_FOUND})
TOOL: Final = "look_up"
COLOUR: Final = re.compile(r"\bred\b", re.IGNORECASE)

Message = Mapping[str, Any]


class Found(NamedTuple):
    """Whether a model can do something; None where it was not found out, and why."""

    can: bool | None
    why: str = ""


class _Probe(NamedTuple):
    fields: Mapping[str, Any]
    shown: Callable[[list[Message]], bool]
    """Tell by the messages of an answer's choices whether the model can."""


async def probe(
    client: RelayingClient, card: Card, meter: Meter, deadline: float | None
) -> dict[str, Found]:
    """Return what a chat model at an endpoint can do, by capability. Every call is recorded."""
    found = await asyncio.gather(
        *(_ask(client, card, name, meter, deadline) for name in CAPABILITIES)
    )
    return dict(zip(CAPABILITIES, found, strict=True))


def can_be_probed(card: Card) -> bool:
    """Tell whether a model is at an endpoint and takes chat messages."""
    return card.endpoint.kind == "openai" and card.prompt == "chat"


def line(card: Card, found: Mapping[str, Found]) -> str:
    """Return the line of a pool file with all that a card says of itself and that was found."""
    has = {name for name, one in found.items() if one.can}
    has |= {name for name in card.capabilities if name not in found or found[name].can is None}
    return f"capabilities = {json.dumps(sorted(has))}"


async def _ask(
    client: RelayingClient, card: Card, name: str, meter: Meter, deadline: float | None
) -> Found:
    fields, shown = _PROBES[name]
    relayed = Relayed(
        fields=fields,
        max_tokens=min(MOST_TOKENS, card.max_tokens),
        choices=fields.get("n", 1),
        note=f"check {name}",
    )
    try:
        body, completion = await client.pass_on(card, relayed, meter, deadline)
    except CallError as error:
        return Found(False if error.fault in REFUSED else None, str(error))
    except R2Error as error:
        return Found(None, str(error))
    try:
        can = shown([choice["message"] for choice in body["choices"]])
    except (AttributeError, LookupError, TypeError):
        return Found(False, "the answer has another shape")
    if can:
        return Found(True)
    if completion.finish_reason == "length":
        return Found(None, f"no answer within {relayed.max_tokens} tokens")
    return Found(False, "the answer does not show it")


def _is_called(messages: list[Message]) -> bool:
    calls = messages[0].get("tool_calls") or ()
    return any(call.get("function", {}).get("name") == TOOL for call in calls)


def _is_seen(messages: list[Message]) -> bool:
    return COLOUR.search(messages[0].get("content") or "") is not None


def _is_json(messages: list[Message]) -> bool:
    try:
        answer = json.loads(messages[0].get("content") or "")
    except ValueError:
        return False
    return isinstance(answer, dict) and set(answer) == {"greeting"}


def _are_two(messages: list[Message]) -> bool:
    return len(messages) == 2


def _asking(content: Any, **fields: Any) -> Mapping[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **fields}


def _picture() -> str:
    """Return a small picture of one colour, as the address of a PNG file."""
    size, red = 32, b"\xff\x00\x00"

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\x00" + red * size) * size)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


_SCHEMA: Final = {
    "type": "object",
    "properties": {"greeting": {"type": "string"}},
    "required": ["greeting"],
    "additionalProperties": False,
}
_FUNCTION: Final = {
    "name": TOOL,
    "description": "Look up today's temperature in a town.",
    "parameters": {
        "type": "object",
        "properties": {"town": {"type": "string"}},
        "required": ["town"],
    },
}
_PROBES: Final[Mapping[str, _Probe]] = {
    "tools": _Probe(
        _asking(
            f"How warm is it in Lyon today? Use {TOOL}.",
            tools=[{"type": "function", "function": _FUNCTION}],
        ),
        _is_called,
    ),
    "images": _Probe(
        _asking(
            [
                {"type": "text", "text": "Which colour is this? Answer with one word."},
                {"type": "image_url", "image_url": {"url": _picture()}},
            ]
        ),
        _is_seen,
    ),
    "json": _Probe(
        _asking(
            "Say hello.",
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "greeting", "strict": True, "schema": _SCHEMA},
            },
        ),
        _is_json,
    ),
    "n": _Probe(_asking("Say hello.", n=2), _are_two),
}
CAPABILITIES: Final = tuple(_PROBES)
