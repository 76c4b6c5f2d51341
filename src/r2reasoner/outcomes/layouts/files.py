"""Rows of files: JSON lines, Parquet, CSV, and JSON documents that hold a list of records.

Pickles are refused whatever is in them: loading one runs whatever code it carries.
"""

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from r2reasoner.errors import DataError
from r2reasoner.outcomes.records import Row
from r2reasoner.outcomes.shards import rows_of

JSONL: Final = ".jsonl"
PARQUET: Final = ".parquet"
CSV: Final = ".csv"
JSON: Final = ".json"
ENDINGS: Final = (JSONL, PARQUET, CSV, JSON)
PICKLES: Final = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".p"})
LONGEST_FIELD: Final = 2**27
"""Bytes of one CSV field; answers may be long."""


class NumberedRow(NamedTuple):
    """A row, and where it stands: its line in a text file, its place (from 1) in any other."""

    number: int
    row: Row


def read_rows(file: Path) -> list[NumberedRow]:
    """Return a file's rows. Raises DataError, with file and row, where they are none."""
    ending = file.suffix.lower()
    if ending in PICKLES:
        raise DataError(
            f"{file}: a pickle runs code when it is loaded, so it is never loaded here; convert it"
            " to Parquet, CSV or JSON lines where you trust it"
        )
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if ending == PARQUET:
        return [NumberedRow(i, row) for i, row in enumerate(rows_of(content, file), 1)]
    if ending == CSV:
        return list(_csv_rows(content, file))
    if ending == JSON:
        return list(_document_rows(content, file))
    return list(_lines(content, file))


def _lines(content: bytes, file: Path) -> Iterator[NumberedRow]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            row = _parsed(line)
            if not isinstance(row, dict):
                raise DataError(f"{file}:{number}: expected JSON lines, each an object")
            yield NumberedRow(number, row)


def _document_rows(content: bytes, file: Path) -> Iterator[NumberedRow]:
    """Yield the records of a document, each with what the document says of all of them."""
    document = _parsed(content)
    records = document.get("records") if isinstance(document, dict) else None
    if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
        raise DataError(f"{file}: expected a JSON object with a list of `records`")
    head = {name: value for name, value in document.items() if not isinstance(value, list | dict)}
    for number, row in enumerate(records, 1):
        yield NumberedRow(number, {**head, **row})


def _csv_rows(content: bytes, file: Path) -> Iterator[NumberedRow]:
    csv.field_size_limit(LONGEST_FIELD)
    try:
        reader = csv.DictReader(StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                raise DataError(
                    f"{file}:{number}: expected {len(reader.fieldnames or ())} columns, as in the"
                    " first line"
                )
            yield NumberedRow(number, row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected CSV in UTF-8: {error}") from error


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
