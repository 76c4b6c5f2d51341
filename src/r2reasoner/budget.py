"""Reserve before a call, settle after it: one meter per query, exact under concurrency.

A call is dispatched only if the most it can cost (its bound) still fits under the cap, so
`reserved + spent` never exceeds the cap, however many calls are in flight. Each call is written
to the ledger before dispatch and closed there after.

Left out: how a bound is estimated (the client knows its prompt) and retries (the client's too).
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeAlias

from r2reasoner.errors import BudgetExceeded, ConfigError, LedgerError
from r2reasoner.ledger import EntryOpen, Ledger, new_id
from r2reasoner.pool.cards import Card, Price
from r2reasoner.types import Call, CallOutcome, Pico, Role, Usage, to_dollars

MOST_TOKENS: Final = 2**40
MOST_PICO: Final = 2**63 - 1


OpenCall: TypeAlias = EntryOpen
"""A call that is reserved and recorded, but not settled: its entry as it was opened."""


class Meter:
    """The running bill of one query (or of one command): every call it causes goes through it.

    `cap` and `spent` and `reserved` are in pico-dollars; no cap means no limit. `calls` lists
    the settled calls in order of settlement. A meter belongs to one event loop.
    """

    def __init__(self, ledger: Ledger, query_id: str, cap: Pico | None = None) -> None:
        if cap is not None and cap < 0:
            raise ConfigError(f"a budget is 0 dollars or more, not {to_dollars(cap)}")
        self._ledger = ledger
        self.query_id = query_id
        self._open: dict[str, OpenCall] = {}
        self.cap = cap
        self.spent: Pico = 0
        self.reserved: Pico = 0
        self.calls: list[Call] = []

    def left(self) -> Pico | None:
        """Return what may still be reserved, in pico-dollars; None when there is no cap.

        Negative only where a provider used more than the bound that it was given.
        """
        return None if self.cap is None else self.cap - self.spent - self.reserved

    def fits(self, card: Card, bound: Usage) -> bool:
        """Return whether a call with this bound could be opened now."""
        left = self.left()
        return left is None or (card.price is not None and _worst(card.price, bound) <= left)

    async def open(
        self,
        card: Card,
        bound: Usage,
        *,
        role: Role,
        subtask: int | None,
        attempt: int,
        note: str | None,
    ) -> OpenCall:
        """Reserve the cost of `bound` and record the call; return when the record is committed.

        Raises BudgetExceeded when it does not fit, or its price is unknown under a cap, and
        LedgerError when it cannot be recorded. Either way nothing is reserved and nothing may be
        dispatched.
        """
        call = OpenCall(
            id=new_id(),
            query_id=self.query_id,
            role=role,
            model=card.name,
            subtask=subtask,
            attempt=attempt,
            bound=self._afford(card, bound),
            bound_usage=bound,
            price=card.price,
            started_at=time.time(),
            note=note,
            card=card,
        )
        self._open[call.id] = call
        self.reserved += call.bound or 0
        try:
            await self._record(call)
        except asyncio.CancelledError:
            with suppress(LedgerError):
                self.settle(
                    call,
                    CallOutcome.FAILED,
                    usage=None,
                    latency_s=0.0,
                    error="cancelled before dispatch",
                )
            raise
        except BaseException:
            self._release(call)
            raise
        return call

    def settle(
        self,
        call: OpenCall,
        outcome: CallOutcome,
        *,
        usage: Usage | None,
        latency_s: float,
        ttft_s: float | None = None,
        finish_reason: str | None = None,
        error: str | None = None,
    ) -> Call:
        """Turn a reservation into a cost and queue the closing of its entry; return the call.

        OK costs what `usage` costs, even above the bound. FAILED costs nothing. UNKNOWN, and OK
        with a usage that is missing or impossible, cost the bound. Times are in seconds.
        Raises RuntimeError for a call that this meter has not open (settled before), and
        LedgerError when the ledger is closed; the meter has counted the call by then.
        """
        if outcome is CallOutcome.OPEN:
            raise ValueError("a call is settled as ok, failed or unknown, not as open")
        self._release(call)
        charged, cost, remark = _charge(call, outcome, usage)
        settled = Call(
            id=call.id,
            role=call.role,
            model=call.model,
            subtask=call.subtask,
            attempt=call.attempt,
            outcome=outcome,
            usage=charged,
            cost=cost,
            bound=call.bound,
            started_at=call.started_at,
            latency_s=latency_s,
            ttft_s=ttft_s,
            finish_reason=finish_reason,
            error=error,
            note="; ".join(filter(None, (call.note, remark))) or None,
        )
        self.spent += cost or 0
        self.calls.append(settled)
        self._close(call, settled)
        return settled

    async def _record(self, call: OpenCall) -> None:
        """Record a call in the ledger. Where queries share a budget, it is asked as well."""
        await self._ledger.begin(call)

    def _close(self, call: OpenCall, settled: Call) -> None:
        """Queue the closing of a call's entry."""
        self._ledger.finish(settled)

    def recorded(
        self,
        card: Card,
        *,
        role: Role,
        subtask: int | None,
        usage: Usage,
        cost: Pico | None,
        latency_s: float,
        finish_reason: str | None,
        note: str | None,
    ) -> Call:
        """Put a call on the bill whose answer stood on record, so that nothing was dispatched.

        It has no ledger entry, and nothing is reserved or spent: it was paid for before.
        """
        call = Call(
            id=new_id(),
            role=role,
            model=card.name,
            subtask=subtask,
            attempt=0,
            outcome=CallOutcome.OK,
            usage=usage,
            cost=cost,
            bound=cost,
            started_at=time.time(),
            latency_s=latency_s,
            ttft_s=latency_s,
            finish_reason=finish_reason,
            error=None,
            note=f"{note}; on record" if note else "on record",
        )
        self.calls.append(call)
        return call

    def _afford(self, card: Card, bound: Usage) -> Pico | None:
        """Return the bound in pico-dollars if it fits, None for an unknown price without a cap."""
        left = self.left()
        if card.price is None:
            if left is None:
                return None
            raise BudgetExceeded(
                f"{card.name}: its price is unknown, so it cannot be held to a budget; "
                "set input_price and output_price in the pool file"
            )
        cost = _worst(card.price, bound)
        if left is not None and cost > left:
            error = BudgetExceeded(
                f"{card.name}: a call may cost up to ${to_dollars(cost):f}, but only "
                f"${to_dollars(left):f} is left of ${to_dollars(self.cap or 0):f}; raise the budget"
                " or lower the most tokens"
            )
            error.left = left
            raise error
        if cost > MOST_PICO:
            raise LedgerError(
                f"{card.name}: a call may cost up to ${to_dollars(cost):f}, more than the ledger "
                "can hold; its prices are dollars per million tokens"
            )
        return cost

    def _release(self, call: OpenCall) -> None:
        if self._open.pop(call.id, None) is None:
            raise RuntimeError(f"call {call.id} is not open on this meter: settled before?")
        self.reserved -= call.bound or 0


def _worst(price: Price, bound: Usage) -> Pico:
    """Return the most that a usage within the bound can cost.

    That is the bound itself, unless caching costs extra or there are tiers, one of which may be
    cheaper than the one before.
    """
    if not price.tiers and (price.cached is None or price.cached <= price.input):
        return price.cost(bound)
    inputs = [t.above for t in price.tiers if t.above < bound.input_tokens] + [bound.input_tokens]
    return max(
        price.cost(replace(bound, input_tokens=tokens, cached_tokens=cached))
        for tokens in inputs
        for cached in (0, tokens)
    )


def _charge(
    call: OpenCall, outcome: CallOutcome, usage: Usage | None
) -> tuple[Usage, Pico | None, str | None]:
    """Return the usage and cost to book, and a remark where they are not the provider's."""
    if outcome is CallOutcome.FAILED:
        return Usage(), 0, None
    if outcome is CallOutcome.UNKNOWN:
        return call.bound_usage, call.bound, None
    if usage is None:
        return call.bound_usage, call.bound, "usage missing: bound charged"
    price = call.price
    if _possible(usage):
        cost = None if price is None else price.cost(usage)
        if cost is None or 0 <= cost <= MOST_PICO:
            return usage, cost, None
    return call.bound_usage, call.bound, "usage impossible: bound charged"


def _possible(usage: Usage) -> bool:
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    )
    return min(counts) >= 0 and max(counts) < MOST_TOKENS and counts[2] <= counts[0]
