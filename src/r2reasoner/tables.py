"""All tables of a ledger's database, and how the rows of entries and traces are made and read.

Money is a whole number of pico-dollars, rates are decimals kept as text, so that nothing is
rounded. Every row of `entries` also says at which rates and from which source it was priced.

A change here needs a revision in `migrations/versions` and `schema.HEAD`. How the gateway reads
and writes the tables of its keys is in `gateway/key_books.py`.
"""

import json
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    CompoundSelect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    select,
    text,
    union_all,
)

from r2reasoner.ledger import Entry, EntryOpen, Row
from r2reasoner.pool.cards import Price, Tier
from r2reasoner.types import Call, CallOutcome, Role, Trace, Usage

SHORT: Final = 300
"""Most characters of an error, a note or a name that are kept."""

PART: Final = 10**6
"""Amounts are summed in two parts, `whole` of so many pico-dollars and `rest`: no sum overflows."""


def _sorted(length: int) -> String:
    """Return the type of names that sort by their bytes, whatever language a server sorts by."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


IS_OPEN: Final = text("outcome = 'open'")
"""In the words of `ix_entries_open`, which serves no condition with a parameter."""

METADATA: Final = MetaData()
ENTRIES: Final = Table(
    "entries",
    METADATA,
    Column("id", _sorted(64), primary_key=True),
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
    Index("ix_entries_open", "lease", sqlite_where=IS_OPEN, postgresql_where=IS_OPEN),
    sqlite_with_rowid=False,
)
TRACES: Final = Table(
    "traces",
    METADATA,
    Column("id", _sorted(64), primary_key=True),
    Column("started_at", Float, nullable=False),
    Column("query", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("cost", BigInteger),
    Column("status", Text, nullable=False),
    Column("wall_s", Float, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_traces_started_at", "started_at"),
)
LEASES: Final = Table(
    "leases",
    METADATA,
    Column("id", _sorted(64), primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("renewed_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)
DAILY_CALLS: Final = Table(  # what the entries came to that retention removed
    "daily_calls",
    METADATA,
    Column("day", _sorted(10), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("whole", BigInteger, nullable=False),
    Column("rest", BigInteger, nullable=False),
)
DAILY_TRACES: Final = Table(  # how many traces it removed
    "daily_traces",
    METADATA,
    Column("day", _sorted(10), primary_key=True),
    Column("traces", BigInteger, nullable=False),
)
KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("id", _sorted(64), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("per_day", BigInteger),
    Column("per_month", BigInteger),
    Column("per_minute", Integer),
    Column("models", Text, nullable=False),
)
COUNTERS: Final = Table(
    "key_counters",
    METADATA,
    Column("key_id", _sorted(64), primary_key=True),
    Column("period", _sorted(16), primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("requests", Integer, nullable=False),
)
HOLDS: Final = Table(
    "key_holds",
    METADATA,
    Column("id", _sorted(64), primary_key=True),
    Column("key_id", _sorted(64), nullable=False),
    Column("day", _sorted(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("held_at", Float, nullable=False),
)
REQUESTS: Final = Table(
    "key_requests",
    METADATA,
    Column("trace_id", _sorted(64), primary_key=True),
    Column("key_id", _sorted(64), nullable=False, index=True),
    Column("at", Float, nullable=False),
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

SUMS: Final = ("calls", "unpriced", "input_tokens", "output_tokens", "whole", "rest")


def sums(
    of_entries: ColumnElement[bool], of_days: ColumnElement[bool]
) -> CompoundSelect[tuple[Any, ...]]:
    """Select calls summed by model, role and outcome, in one statement and so at one moment.

    First those of entries, then what was kept of entries that retention removed: who reads it adds
    up rows of the same names. `whole` and `rest` are NULL where no call had a price.
    """
    columns = ENTRIES.c
    by = columns.model, columns.role, columns.outcome
    kept = DAILY_CALLS.c
    return union_all(
        select(
            *by,
            func.count().label("calls"),
            (func.count() - func.count(columns.cost)).label("unpriced"),
            func.sum(columns.input_tokens).label("input_tokens"),
            func.sum(columns.output_tokens).label("output_tokens"),
            func.sum(columns.cost // PART).label("whole"),
            func.sum(columns.cost % PART).label("rest"),
        )
        .where(of_entries)
        .group_by(*by),
        select(kept.model, kept.role, kept.outcome, *(kept[name] for name in SUMS)).where(of_days),
    )


def cost_of(row: Any) -> int:
    """Return the pico-dollars of a row of `sums`."""
    return int(row.whole or 0) * PART + int(row.rest or 0)


def open_row(entry: EntryOpen, lease: str) -> Row:
    """Return the row of an open entry, which stands at its bound."""
    bound, price = entry.bound_usage, entry.price
    return (
        entry.id,
        clean(entry.query_id),
        lease,
        entry.role.value,
        clean(entry.model),
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
        clean(price.source) if price else None,
        entry.started_at,
        0.0,
        None,
        None,
        None,
        clean(entry.note),
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
        clean(call.finish_reason),
        clean(call.error),
        clean(call.note),
        call.id,
    )


def trace_row(trace: Trace, body: str) -> Row:
    """Return the row of a trace; `body` is the whole of it as JSON."""
    return (
        trace.id,
        trace.started_at,
        clean(trace.query.text, None),
        clean(trace.pool),
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


def clean(text: str | None, most: int | None = SHORT) -> str | None:
    """Cut a text and replace what a database may refuse: NUL and lone surrogates."""
    if text is None or (text.isascii() and "\0" not in text):
        return text if text is None else text[:most]
    return text[:most].encode("utf-8", "replace").decode().replace("\0", "?")
