"""A server in a thread with an event loop of its own, for what blocks: commands, other clients."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar


class Serves(Protocol):
    """What can be started and closed in an event loop."""

    async def start(self) -> None:
        """Listen."""
        ...

    async def close(self) -> None:
        """Stop listening, and drop every connection."""
        ...


Server = TypeVar("Server", bound=Serves)


@contextmanager
def in_thread(server: Server) -> Iterator[Server]:
    """Serve from a thread until the end of the block. Raises what `start` raises."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
