"""What a trace cost, by role, and what the strongest model alone would have cost.

The second figure is an estimate and is called so: the conversation with the query and the answer
that came out, at the strongest model's price, with tokens counted as its own tokenizer does where
it runs in process, else as one token per four bytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Final

from r2reasoner.client.text import TextCodec, open_codec
from r2reasoner.errors import R2Error
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import AnswerStatus, Call, Message, Pico, Role, Trace, Usage, to_dollars

BYTES_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Line:
    """The calls of one role: how many, their tokens, their cost (None: unknown)."""

    role: Role
    calls: int
    usage: Usage
    cost: Pico | None


@dataclass(frozen=True, slots=True)
class Bill:
    """A trace's bill, in pico-dollars.

    `strongest_alone` is an estimate; None where its price is unknown, or there is no whole answer
    whose length it could go by. `cache_saved` is what prompt caches made cheaper; None where a
    price is unknown.
    """

    lines: tuple[Line, ...]
    total: Pico | None
    strongest: str
    strongest_alone: Pico | None
    cache_saved: Pico | None = None

    @property
    def saved(self) -> float | None:
        """Share of the strongest model's cost that was not paid (negative: paid more)."""
        if self.total is None or not self.strongest_alone:
            return None
        return 1 - self.total / self.strongest_alone


def bill(trace: Trace, pool: Pool) -> Bill:
    """Return the bill of a trace."""
    lines = []
    for role in Role:
        calls = [c for c in trace.calls if c.role is role]
        if calls:
            usage = sum((c.usage for c in calls), Usage())
            lines.append(Line(role, len(calls), usage, trace.cost(role)))
    strongest = pool.strongest
    alone = None
    if strongest.price is not None and trace.answer.status is AnswerStatus.COMPLETE:
        alone = _its_one_call(trace, strongest)
        if alone is None:
            alone = strongest.price.cost(_one_call(strongest, trace))
    saved = cache_saved(trace.calls, pool)
    return Bill(tuple(lines), trace.cost(), strongest.name, alone, saved)


def cache_saved(calls: Iterable[Call], pool: Pool) -> Pico | None:
    """Return what calls would have cost more without cached input tokens, at the pool's prices.

    None where tokens were cached by a model whose price is unknown.
    """
    prices = {card.name: card.price for card in (*pool.workers, *pool.policies.values())}
    saved = 0
    for call in calls:
        if not call.usage.cached_tokens:
            continue
        price = prices.get(call.model)
        if price is None:
            return None
        saved += price.cost(replace(call.usage, cached_tokens=0)) - price.cost(call.usage)
    return saved


def _its_one_call(trace: Trace, card: Card) -> Pico | None:
    """Return what a model cost where it answered alone, None where it did not."""
    if not trace.plan.is_direct or {call.model for call in trace.calls} != {card.name}:
        return None
    return trace.cost()


def _one_call(card: Card, trace: Trace) -> Usage:
    query, answer = trace.query.text, trace.answer.text
    if card.endpoint.kind == "embedded" and card.endpoint.path is not None:
        try:
            codec = _codec(card.endpoint.path / card.model)
            return Usage(
                len(codec.prompt([Message("user", query)])),
                len(codec.prompt([Message("user", answer)])) - 1,
            )
        except R2Error:
            pass  # words that it lacks: count as for any other model
    asked = "".join((*(turn.content for turn in trace.query.earlier), query))
    sizes = (len(text.encode("utf-8", "surrogatepass")) for text in (asked, answer))
    return Usage(*(-(-size // BYTES_PER_TOKEN) for size in sizes))


@lru_cache(maxsize=8)
def _codec(folder: Path) -> TextCodec:
    return open_codec(folder)


def show_money(pico: Pico | None) -> str:
    """Write an amount for people: dollars, or millionths of a dollar where that is clearer."""
    if pico is None:
        return "unknown"
    dollars = to_dollars(pico)
    if dollars == 0 or abs(dollars) >= Decimal("0.01"):
        return f"${dollars:,.4f}"
    millionths = dollars * 1_000_000
    digits = 2 if abs(millionths) >= 1 else 4 if abs(millionths) >= Decimal("0.001") else 6
    return f"{millionths:,.{digits}f} µ$"
