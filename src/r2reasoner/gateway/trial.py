"""Trying the router on live traffic: a canary share that it answers, a shadow that it repeats.

Both concern requests that name a model of the pool. A canary request is answered by the router
instead; a shadowed one is answered as before and routed in the background, so that costs can be
compared; the operator pays for that, not the key. A conversation stays on its side of the draw.
"""

import asyncio
import hashlib
from collections.abc import Coroutine
from typing import Any, Final

from r2reasoner.gateway.wire import Asked

MOST_SHADOWS: Final = 16
"""Shadow runs in flight; beyond that requests are not shadowed, so that they slow nothing down."""


class Trial:
    """Draws which requests take part, and keeps the shadow runs."""

    def __init__(self, shadow: float, canary: float) -> None:
        self._shadow = shadow
        self._canary = canary
        self._tasks: set[asyncio.Task[None]] = set()

    def is_canary(self, asked: Asked, who: str) -> bool:
        """Tell whether the router answers a request that names a model."""
        return bool(self._canary) and not asked.needs and _draw("canary", asked, who) < self._canary

    def is_shadowed(self, asked: Asked, who: str) -> bool:
        """Tell whether a request that names a model is also routed in the background."""
        return (
            bool(self._shadow)
            and not asked.needs
            and len(self._tasks) < MOST_SHADOWS
            and _draw("shadow", asked, who) < self._shadow
        )

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """End what runs in the background; its calls are settled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _draw(what: str, asked: Asked, who: str) -> float:
    """Return a number from 0 to 1 that stays the same through a conversation."""
    first = next((turn.content for turn in asked.earlier if turn.role == "user"), asked.text)
    digest = hashlib.sha256(f"{what}\0{who}\0{first}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6]) / 2**48
