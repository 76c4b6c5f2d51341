"""The ledger (entries, traces, leases) and the gateway's keys.

What is there already stays: before there were revisions, databases were made without a version.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _sorted(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Make what is missing."""
    op.create_table(
        "entries",
        sa.Column("id", _sorted(64), primary_key=True),
        sa.Column("query_id", sa.Text, nullable=False),
        sa.Column("lease", sa.String(64), nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("subtask", sa.Integer),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger),
        sa.Column("bound", sa.BigInteger),
        sa.Column("input_rate", sa.Text),
        sa.Column("output_rate", sa.Text),
        sa.Column("cached_rate", sa.Text),
        sa.Column("rate_tiers", sa.Text),
        sa.Column("price_source", sa.Text),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("latency_s", sa.Float, nullable=False),
        sa.Column("ttft_s", sa.Float),
        sa.Column("finish_reason", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("note", sa.Text),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_index("ix_entries_query_id", "entries", ["query_id"], if_not_exists=True)
    op.create_table(
        "traces",
        sa.Column("id", _sorted(64), primary_key=True),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("cost", sa.BigInteger),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("wall_s", sa.Float, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "leases",
        sa.Column("id", _sorted(64), primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("renewed_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _sorted(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
        sa.Column("per_day", sa.BigInteger),
        sa.Column("per_month", sa.BigInteger),
        sa.Column("per_minute", sa.Integer),
        sa.Column("models", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "key_counters",
        sa.Column("key_id", _sorted(64), primary_key=True),
        sa.Column("period", _sorted(16), primary_key=True),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "key_holds",
        sa.Column("id", _sorted(64), primary_key=True),
        sa.Column("key_id", _sorted(64), nullable=False),
        sa.Column("day", _sorted(16), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("held_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "key_requests",
        sa.Column("trace_id", _sorted(64), primary_key=True),
        sa.Column("key_id", _sorted(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_key_requests_key_id", "key_requests", ["key_id"], if_not_exists=True)
