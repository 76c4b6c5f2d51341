"""One hard cap over everything that a whole command spends, however many queries are in flight.

A meter caps one query; this caps them together, at the place that no call gets around: the ledger
that records it before its dispatch. A call whose bound does not fit waits while calls in flight
may still turn out cheaper than their bounds; when waiting cannot help, it is refused.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from r2reasoner.errors import R2Error
from r2reasoner.ledger import EntryOpen, Ledger
from r2reasoner.types import Call, Pico, to_dollars

if TYPE_CHECKING:
    from r2reasoner.storage import Store


class CapReached(R2Error):
    """The next call could pass the cap of the whole command, so it was not dispatched."""


class SpendingLedger(Ledger):
    """A ledger that sums up what passes through it and holds that to `cap` (None: no cap).

    `spent` and `reserved` are pico-dollars; `unpriced` counts calls of unknown cost. It serves
    several event loops, one after the other.
    """

    def __init__(self, store: "Store") -> None:
        super().__init__(store)
        self.cap: Pico | None = None
        self.spent: Pico = 0
        self.reserved: Pico = 0
        self.unpriced = 0
        self._bounds: dict[str, Pico] = {}
        self._room = asyncio.Event()

    async def begin(self, entry: EntryOpen, wish: Any = None) -> Any:
        """Reserve a call's bound and record it. Raises CapReached, and LedgerError as Ledger."""
        while not self._fits(entry):
            await self._room.wait()
        self._bounds[entry.id] = entry.bound or 0
        self.reserved += entry.bound or 0
        try:
            return await super().begin(entry, wish)
        except asyncio.CancelledError:
            raise  # its meter settles it, by `finish`
        except BaseException:
            self._release(entry.id)
            raise

    def finish(self, call: Call, wish: Any = None) -> None:
        """Count what a call cost and queue the closing of its entry."""
        self._release(call.id)
        self.spent += call.cost or 0
        self.unpriced += call.cost is None
        super().finish(call, wish)

    def _release(self, call_id: str) -> None:
        self.reserved -= self._bounds.pop(call_id, 0)
        self._room.set()
        self._room = asyncio.Event()  # a new one, because an event stays with its first loop

    def _fits(self, entry: EntryOpen) -> bool:
        """Tell whether a call may go out now, or later. Raises CapReached where it never may."""
        if self.cap is None:
            return True
        if entry.bound is None:
            raise CapReached(
                f"{entry.model}: its price is unknown, so it cannot be held to a cap;"
                " set input_price and output_price in the pool file"
            )
        if self.spent + entry.bound > self.cap:
            raise CapReached(
                f"the cap of ${to_dollars(self.cap):f} is reached: ${to_dollars(self.spent):f} is"
                f" spent, and the next call ({entry.model}) may cost ${to_dollars(entry.bound):f}"
            )
        return self.spent + self.reserved + entry.bound <= self.cap
