"""Calls to a provider on a real socket, made and answered, for tests of what lies between."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from random import Random
from typing import Any

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.types import Message, Role

TEXT = "walk left twice and then look right"
PRICE = Price(Decimal("0.15"), Decimal("0.60"))


class NoJitter(Random):
    """Draws every back-off as 0, so that retries come at once."""

    def uniform(self, a: float, b: float) -> float:
        return a


def card_at(base_url: str, *, card: dict[str, Any] | None = None, **endpoint: Any) -> Card:
    reached = Endpoint(name="mock", kind="openai", base_url=base_url, **endpoint)
    return Card(name="small", endpoint=reached, model="mock-small", price=PRICE, **(card or {}))


def ask(text: str = TEXT, **settings: Any) -> ChatRequest:
    settings = {"max_tokens": 50, "role": Role.WORKER, **settings}
    return ChatRequest(messages=(Message("user", text),), **settings)


async def gather_stream(
    client: OpenAIClient,
    card: Card,
    request: ChatRequest,
    meter: Meter,
    deadline: float | None = None,
) -> tuple[list[str], Completion]:
    pieces: list[str] = []
    async for piece in client.stream(card, request, meter, deadline):
        if isinstance(piece, Completion):
            completion = piece
        else:
            pieces.append(piece)
    return pieces, completion


async def answer_of(
    client: OpenAIClient,
    card: Card,
    request: ChatRequest,
    meter: Meter,
    deadline: float | None = None,
    *,
    stream: bool,
) -> Completion:
    if not stream:
        return await client.complete(card, request, meter, deadline)
    _, completion = await gather_stream(client, card, request, meter, deadline)
    return completion


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def raw_server(
    raw: bytes, *, at_once: bool = False, hold: bool = False, endless: bytes = b""
) -> AsyncIterator[str]:
    """Answer a request (or a connection) with these bytes; then close, wait, or go on for ever."""
    handlers: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            if not at_once:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
            writer.write(raw)
            while endless:
                writer.write(endless)
                await writer.drain()
            if hold:
                await reader.read()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await server.wait_closed()
        gc.collect()
