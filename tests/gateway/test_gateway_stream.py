"""Streams to a client that leaves."""

import asyncio
import gc
from collections.abc import AsyncGenerator
from typing import Any

from starlette.types import Message

from r2reasoner.chat import Refusal
from r2reasoner.gateway.stream import EventStream


async def test_an_error_at_the_moment_that_the_client_leaves_is_nobodys() -> None:
    complaints: list[dict[str, Any]] = []
    sent: list[Message] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))

    async def failing() -> AsyncGenerator[bytes, None]:
        raise Refusal(502, "no model answered")
        yield b""

    async def leaving() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    stream = EventStream(failing(), {}, keep_alive_s=60, write_timeout_s=60)
    await stream({"type": "http"}, leaving, send)
    gc.collect()
    assert (sent, complaints) == ([], [])
