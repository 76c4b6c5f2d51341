from dataclasses import replace

import pytest
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable

from ledger_samples import closing, entry, trace
from r2reasoner.tables import CLOSED_COLUMNS, ENTRIES, TRACES, close_row, open_row, trace_row
from r2reasoner.types import Usage


def test_rows_stand_in_the_order_of_their_columns() -> None:
    opened = entry(query_id="the query", note="the note")
    row = dict(zip(ENTRIES.columns.keys(), open_row(opened, "the lease"), strict=True))
    assert (row["id"], row["query_id"], row["lease"]) == (opened.id, "the query", "the lease")
    assert (row["note"], row["outcome"], row["price_source"]) == ("the note", "open", "pool file")

    closed = closing(opened, error="the error", ttft_s=0.25)
    row = dict(zip((*CLOSED_COLUMNS, "entry_id"), close_row(closed), strict=True))
    assert (row["entry_id"], row["error"], row["ttft_s"]) == (opened.id, "the error", 0.25)
    assert set(CLOSED_COLUMNS) < set(ENTRIES.columns.keys())

    row = dict(zip(TRACES.columns.keys(), trace_row(trace(id="t"), "{}"), strict=True))
    assert (row["id"], row["status"], row["body"]) == ("t", "complete", "{}")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ("", ""),
        ("x" * 301, "x" * 300),
        ("ü" * 301, "ü" * 300),
        ("a\0b", "a?b"),
        ("a\ud83db", "a?b"),
        ("😀 is fine", "😀 is fine"),
    ],
)
def test_texts_are_such_as_any_database_takes(given: str | None, kept: str | None) -> None:
    row = close_row(closing(entry(), error=given))
    assert row[CLOSED_COLUMNS.index("error")] == kept


def test_the_whole_query_is_kept_with_its_trace() -> None:
    long = replace(trace(), query=replace(trace().query, text="long " * 1000))
    assert trace_row(long, "{}")[TRACES.columns.keys().index("query")] == "long " * 1000


def test_rates_are_kept_to_the_last_digit() -> None:
    row = open_row(entry(bound_usage=Usage(7, 3)), "here")
    found = dict(zip(ENTRIES.columns.keys(), row, strict=True))
    assert (found["input_rate"], found["output_rate"]) == ("0.15", "0.60")
    assert (found["cached_rate"], found["rate_tiers"]) == (None, None)


def test_the_tables_are_plain_sql() -> None:
    on_postgresql = str(CreateTable(ENTRIES).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    assert "cost BIGINT" in on_postgresql
    assert "ROWID" not in on_postgresql
    on_sqlite = str(CreateTable(ENTRIES).compile(dialect=sqlite.dialect()))
    assert "WITHOUT ROWID" in on_sqlite
