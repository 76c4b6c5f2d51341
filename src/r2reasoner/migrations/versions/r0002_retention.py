"""Retention: the sums of what was removed; open entries and the newest traces are found at once."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _day() -> sa.String:
    return sa.String(10).with_variant(sa.String(10, collation="C"), "postgresql")


def upgrade() -> None:
    """Make two tables and two indexes."""
    is_open = sa.text("outcome = 'open'")
    op.create_index(
        "ix_entries_open", "entries", ["lease"], sqlite_where=is_open, postgresql_where=is_open
    )
    op.create_index("ix_traces_started_at", "traces", ["started_at"])
    op.create_table(
        "daily_calls",
        sa.Column("day", _day(), primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("outcome", sa.Text, primary_key=True),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("unpriced", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("whole", sa.BigInteger, nullable=False),
        sa.Column("rest", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "daily_traces",
        sa.Column("day", _day(), primary_key=True),
        sa.Column("traces", sa.BigInteger, nullable=False),
    )
