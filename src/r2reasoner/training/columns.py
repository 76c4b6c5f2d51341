"""What made rows look like: their columns, and how they become a Parquet file and rows again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.training.journal import Row

MOST_INTEGER: Final = 2**63 - 1


class Column(StrEnum):
    """What a column holds; any but the key may also hold nothing (None)."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Form:
    """The columns of made rows; `key` is the one that has the content key of their input."""

    columns: Mapping[str, Column]
    key: str = "item"

    def __post_init__(self) -> None:
        if self.columns.get(self.key) is not Column.TEXT:
            raise ConfigError(f"made rows need their key {self.key!r} as a column of text")

    def checked(self, asked: Row, made: Row) -> Row:
        """Return a made row in the order and types of the columns; lone surrogates become `?`.

        Raises DataError where it has other columns, values of other kinds, or another key.
        """
        key = asked[self.key]
        if made.keys() != self.columns.keys():
            wrong = ", ".join(sorted(made.keys() ^ self.columns.keys()))
            raise DataError(f"row {key}: columns missing or not expected: {wrong}")
        if made[self.key] != key:
            raise DataError(f"row {key}: what was made of it has the key {made[self.key]!r}")
        return {name: _value(made[name], kind, key, name) for name, kind in self.columns.items()}


def encode(rows: Sequence[Row], form: Form) -> bytes:
    """Return rows, as `Form.checked` returns them, as a Parquet file: equal bytes for equal rows.

    Raises ConfigError where pyarrow is missing.
    """
    pa = _pyarrow()
    types = {
        Column.TEXT: pa.string(),
        Column.INTEGER: pa.int64(),
        Column.NUMBER: pa.float64(),
        Column.FLAG: pa.bool_(),
    }
    columns = {
        name: pa.array([row[name] for row in rows], types[kind])
        for name, kind in form.columns.items()
    }
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def decode(content: bytes) -> Iterator[Row]:
    """Yield the rows of a Parquet file. Raises ConfigError where pyarrow is missing."""
    pa = _pyarrow()
    for batch in pa.parquet.ParquetFile(pa.BufferReader(content)).iter_batches():
        yield from batch.to_pylist()


def _pyarrow() -> Any:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(
            "data sets are Parquet files, which need pyarrow: pip install 'r2reasoner[training]'"
        ) from None
    return pyarrow


def _value(value: Any, kind: Column, key: str, name: str) -> Any:
    """Return a value as its column holds it. Raises DataError for one of another kind."""
    match kind, value:
        case (_, None):
            return None
        case (Column.TEXT, str()):
            return value.encode("utf-8", "replace").decode()
        case (Column.FLAG, bool()):
            return value
        case (Column.NUMBER, float()):
            return value
        case (Column.INTEGER | Column.NUMBER, int()) if not isinstance(value, bool):
            if abs(value) <= MOST_INTEGER:
                return value if kind is Column.INTEGER else float(value)
    raise DataError(f"row {key}: expected {name} to be of kind {kind}, got {str(value)[:80]!r}")
