"""The ledger's tables, and how their rows are made of our values and read back.

Money is a whole number of pico-dollars, rates are decimals kept as text, so that nothing is
rounded. Every row of `entries` also says at which rates and from which source it was priced.
"""

import json
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, String, Table, Text

from r2reasoner.ledger import Entry, EntryOpen, Row
from r2reasoner.pool.cards import Price, Tier
from r2reasoner.types import Call, CallOutcome, Role, Trace, Usage

SHORT: Final = 300
"""Most characters of an error, a note or a name that are kept."""

METADATA: Final = MetaData()
ENTRIES: Final = Table(
    "entries",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("query_id", Text, nullable=False, index=True),
    Column("lease", String(64), nullable=False),
    Column("role", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("subtask", Integer),
    Column("attempt", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger),
    Column("bound", BigInteger),
    Column("input_rate", Text),
    Column("output_rate", Text),
    Column("cached_rate", Text),
    Column("rate_tiers", Text),
    Column("price_source", Text),
    Column("started_at", Float, nullable=False),
    Column("latency_s", Float, nullable=False),
    Column("ttft_s", Float),
    Column("finish_reason", Text),
    Column("error", Text),
    Column("note", Text),
    sqlite_with_rowid=False,
)
TRACES: Final = Table(
    "traces",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("started_at", Float, nullable=False),
    Column("query", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("cost", BigInteger),
    Column("status", Text, nullable=False),
    Column("wall_s", Float, nullable=False),
    Column("body", Text, nullable=False),
)
LEASES: Final = Table(
    "leases",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("renewed_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

CLOSED_COLUMNS: Final = (
    "outcome",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost",
    "latency_s",
    "ttft_s",
    "finish_reason",
    "error",
    "note",
)


def open_row(entry: EntryOpen, lease: str) -> Row:
    """Return the row of an open entry, which stands at its bound."""
    bound, price = entry.bound_usage, entry.price
    return (
        entry.id,
        _clean(entry.query_id),
        lease,
        entry.role.value,
        _clean(entry.model),
        entry.subtask,
        entry.attempt,
        CallOutcome.OPEN.value,
        bound.input_tokens,
        bound.output_tokens,
        bound.cached_tokens,
        bound.reasoning_tokens,
        entry.bound,
        entry.bound,
        str(price.input) if price else None,
        str(price.output) if price else None,
        str(price.cached) if price and price.cached is not None else None,
        _tiers_text(price) if price and price.tiers else None,
        price.source if price else None,
        entry.started_at,
        0.0,
        None,
        None,
        None,
        _clean(entry.note),
    )


def close_row(call: Call) -> Row:
    """Return what closes an entry."""
    usage = call.usage
    return (
        call.outcome.value,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        call.cost,
        call.latency_s,
        call.ttft_s,
        _clean(call.finish_reason),
        _clean(call.error),
        _clean(call.note),
        call.id,
    )


def trace_row(trace: Trace, body: str) -> Row:
    """Return the row of a trace; `body` is the whole of it as JSON."""
    return (
        trace.id,
        trace.started_at,
        _clean(trace.query.text, None),
        _clean(trace.pool),
        trace.cost(),
        trace.answer.status.value,
        trace.wall_s,
        body,
    )


def to_entry(row: Any) -> Entry:
    """Return the entry that a row of `entries` holds."""
    return Entry(
        id=row.id,
        role=Role(row.role),
        model=row.model,
        subtask=row.subtask,
        attempt=row.attempt,
        outcome=CallOutcome(row.outcome),
        usage=Usage(row.input_tokens, row.output_tokens, row.cached_tokens, row.reasoning_tokens),
        cost=row.cost,
        bound=row.bound,
        started_at=row.started_at,
        latency_s=row.latency_s,
        ttft_s=row.ttft_s,
        finish_reason=row.finish_reason,
        error=row.error,
        note=row.note,
        query_id=row.query_id,
        price=_price(row),
        lease=row.lease,
    )


def _price(row: Any) -> Price | None:
    if row.input_rate is None:
        return None
    tiers = tuple(
        Tier(above, Decimal(given), Decimal(made), _decimal(cached))
        for above, given, made, cached in json.loads(row.rate_tiers or "[]")
    )
    return Price(
        Decimal(row.input_rate),
        Decimal(row.output_rate),
        _decimal(row.cached_rate),
        row.price_source,
        tiers,
    )


def _tiers_text(price: Price) -> str:
    return json.dumps(price.tiers, default=str)


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _clean(text: str | None, most: int | None = SHORT) -> str | None:
    """Cut a text and replace what a database may refuse: NUL and lone surrogates."""
    if text is None or (text.isascii() and "\0" not in text):
        return text if text is None else text[:most]
    return text[:most].encode("utf-8", "replace").decode().replace("\0", "?")
