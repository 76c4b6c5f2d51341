"""What a benchmark is: where an item's query and right answer stand, and how answers are scored.

Items come from JSON lines, one object a line; columns beyond the two that a benchmark names are
not read. An item's id is a hash of its content, so that files, splits and runs can be compared.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from r2reasoner.benchmarks.grading import Grade
from r2reasoner.errors import DataError

MAX_LINE_BYTES: Final = 4 * 2**20


class Item(NamedTuple):
    """A task and its right answer. `id` is the hash of both."""

    id: str
    query: str
    gold: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How items are read, put to models and scored.

    `instruction` is what a chat model is told before an item; a model with a plain prompt gets
    the item alone. `default_split` is taken where none is asked for.
    """

    name: str
    query_field: str
    gold_field: str
    grade: Grade
    default_split: str
    instruction: str = ""

    def query(self, item: Item, *, plain: bool) -> str:
        """Return the text that is asked."""
        return item.query if plain or not self.instruction else f"{self.instruction}\n{item.query}"

    def load(self, path: Path) -> tuple[Item, ...]:
        """Return a file's items. Raises DataError naming file and line for whatever is wrong."""
        return self._unique(((f"{path}:{n}", row) for n, row in _rows(path)), f"{path}: ")

    def items(self, rows: Iterable[dict[str, Any]]) -> tuple[Item, ...]:
        """Return items made of rows as a file would have them. Raises DataError."""
        return self._unique(((f"item {n}", row) for n, row in enumerate(rows, 1)), "")

    def _unique(self, rows: Iterable[tuple[str, Any]], source: str) -> tuple[Item, ...]:
        items: dict[str, Item] = {}
        places: dict[str, str] = {}
        for where, row in rows:
            item = self._item(where, row)
            same = " ".join(item.query.split())
            if same in items:
                raise DataError(f"{where}: the same {self.query_field} as at {places[same]}")
            items[same], places[same] = item, where
        if not items:
            raise DataError(f"{source}no items in it; expected one JSON object a line")
        return tuple(items.values())

    def _item(self, where: str, row: Any) -> Item:
        wanted = f"{self.query_field!r} and {self.gold_field!r}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with {wanted}")
        missing = [f for f in (self.query_field, self.gold_field) if f not in row]
        if missing:
            has = ", ".join(map(repr, list(row)[:8])) or "nothing"
            raise DataError(f"{where}: no {missing[0]!r}; expected {wanted}, got {has}")
        query = self._text(where, self.query_field, row[self.query_field])
        gold = self._text(where, self.gold_field, row[self.gold_field])
        if self.grade(gold, gold) is not True:
            raise DataError(f"{where}: {self.gold_field} {gold[:60]!r} is nothing to score against")
        return Item(_hash(query, gold), query, gold)

    @staticmethod
    def _text(where: str, name: str, value: Any) -> str:
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise DataError(f"{where}: {name}: expected a text or a number")
        if not value.strip():
            raise DataError(f"{where}: {name} is empty")
        return value


def _hash(query: str, gold: str) -> str:
    content = json.dumps([query, gold]).encode()
    return blake2b(content, digest_size=8).hexdigest()


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open("rb") as stream:
            line = 0
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                line += 1
                if raw.strip():
                    yield line, _parse(f"{path}:{line}", raw)
            if line == 0:
                raise DataError(f"{path}: empty; expected one JSON object a line")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(where: str, raw: bytes) -> Any:
    if len(raw) > MAX_LINE_BYTES:
        raise DataError(f"{where}: a line longer than {MAX_LINE_BYTES} bytes")
    try:
        return json.loads(raw.decode(), parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise DataError(f"{where}: expected a JSON object: {error}") from None
