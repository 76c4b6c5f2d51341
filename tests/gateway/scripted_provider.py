"""A provider that says what it is told word for word, tool calls and nonsense too.

What `MockProvider` leaves out. It checks nothing and keeps the bodies that it was sent.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@dataclass(slots=True)
class Scripted:
    """The provider's address, the messages or lists of deltas to say, and what it was sent."""

    says: list[Any]
    base_url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        said = self.says.pop(0)
        if not body.get("stream"):
            choice = {"index": 0, "message": said, "finish_reason": finish_of(said)}
            return web.json_response(envelope(choice) | {"usage": USAGE})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        deltas: Sequence[Mapping[str, Any]] = said if isinstance(said, list) else [said]
        for delta in deltas:
            await send(response, envelope({"index": 0, "delta": delta, "finish_reason": None}))
        end = {"index": 0, "delta": {}, "finish_reason": finish_of(*deltas)}
        await send(response, envelope(end) | {"usage": USAGE})
        await response.write(b"data: [DONE]\n\n")
        return response


def finish_of(*messages: Mapping[str, Any]) -> str:
    return "tool_calls" if any("tool_calls" in message for message in messages) else "stop"


def envelope(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-scripted", "object": "chat.completion", "choices": [choice]}


async def send(response: web.StreamResponse, value: Mapping[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(value).encode() + b"\n\n")


@asynccontextmanager
async def scripted(*says: Any) -> AsyncIterator[Scripted]:
    """Serve a provider that says these one after the other."""
    provider = Scripted(list(says))
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        provider.base_url = f"http://{host}:{port}/v1"
        yield provider
    finally:
        await runner.cleanup()


def call(identifier: str, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    """Return a tool call as chat completions have it."""
    return {
        "id": identifier,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
        **more,
    }
