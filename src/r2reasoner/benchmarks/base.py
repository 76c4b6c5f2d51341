"""What a benchmark is: where an item's query and right answer stand, and how answers are scored.

Items come from JSON lines, one object a line, in a file, in a folder laid out as published, or
from the hub; columns that a benchmark does not name are not read. An item's id is a hash of its
content, so that files, splits and runs can be compared. A gold answer is text: JSON text where it
is several things. Leaves out: what each benchmark's rows mean (a file of its own each).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from r2reasoner.benchmarks.grading import Grade
from r2reasoner.benchmarks.hub import Hub
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.types import Task

MAX_LINE_BYTES: Final = 4 * 2**20

Read: TypeAlias = Callable[[Mapping[str, Any]], Task]
"""A row of a file -> query and gold; ValueError and KeyError say what is wrong with the row."""

Score: TypeAlias = Callable[[str, str], float | None]
"""(answer, gold) -> 0 to 1, or None where it cannot be judged. Never raises."""


class Item(NamedTuple):
    """A task and its right answer. `id` is the hash of both."""

    id: str
    query: str
    gold: str


class Verdict(NamedTuple):
    """What an answer is worth: right, wrong or unscored (None), and a score where there is one."""

    right: bool | None
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How items are read, put to models and scored.

    Rows have the query in `query_field` and the gold answer in `gold_field`, or `columns` of which
    `read` makes both. `score` is a figure beside right and wrong. `blocking`: judging an answer may
    take more than some milliseconds, so that an event loop should leave it to a thread.
    `instruction` is what a chat model is told before an item; a model with a plain prompt gets
    the item alone. `default_split` is taken where none is asked for; `files` are the splits' files
    in a folder, `hub` where the hub has them. `repeats`: its published files have some items
    twice, of which the first stands; else a repeated item is an error.
    """

    name: str
    grade: Grade
    default_split: str
    query_field: str = ""
    gold_field: str = ""
    columns: tuple[str, ...] = ()
    read: Read | None = None
    score: Score | None = None
    blocking: bool = False
    files: Mapping[str, str] = field(default_factory=dict, hash=False)
    hub: Hub | None = None
    repeats: bool = False
    instruction: str = ""

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns that a row must have."""
        return self.columns if self.read else (self.query_field, self.gold_field)

    def query(self, item: Item, *, plain: bool) -> str:
        """Return the text that is asked."""
        return item.query if plain or not self.instruction else f"{self.instruction}\n{item.query}"

    def judge(self, answer: str, gold: str) -> Verdict:
        """Return what an answer is worth; see `blocking`. Never raises."""
        return Verdict(self.grade(answer, gold), self.score(answer, gold) if self.score else None)

    def load(self, path: Path, split: str | None = None) -> tuple[Item, ...]:
        """Return the items of a file, or of a split's file in a folder.

        Raises ConfigError for a split that a folder cannot have, DataError naming file and line
        for whatever is wrong there.
        """
        if path.is_dir():
            path /= self._file(split or self.default_split)
        return self._unique(((f"{path}:{n}", row) for n, row in _rows(path)), f"{path}: ")

    def load_hub(
        self, split: str | None = None, dataset: str | None = None, revision: str | None = None
    ) -> tuple[Item, ...]:
        """Return the items of a split from the hub; another dataset or revision if named.

        Raises ConfigError where there is no such dataset or split, DataError naming the row.
        """
        if self.hub is None:
            raise ConfigError(f"{self.name} is on no hub known here; give its items with --items")
        source = self.hub.at(dataset, revision)
        rows = source.rows(split or self.default_split)
        return self._unique(((f"{source}: row {n}", row) for n, row in rows), f"{source}: ")

    def items(self, rows: Iterable[dict[str, Any]]) -> tuple[Item, ...]:
        """Return items made of rows as a file would have them. Raises DataError."""
        return self._unique(((f"item {n}", row) for n, row in enumerate(rows, 1)), "")

    def _file(self, split: str) -> str:
        if split not in self.files:
            known = ", ".join(self.files) or "none: give the file itself"
            raise ConfigError(f"{self.name} has no split {split!r} in a folder; known: {known}")
        return self.files[split]

    def _unique(self, rows: Iterable[tuple[str, Any]], source: str) -> tuple[Item, ...]:
        items: dict[str, Item] = {}
        places: dict[str, str] = {}
        for where, row in rows:
            item = self._item(where, row)
            same = " ".join(item.query.split())
            if same not in items:
                items[same], places[same] = item, where
            elif not self.repeats:
                what = self.query_field or "item"
                raise DataError(f"{where}: the same {what} as at {places[same]}")
        if not items:
            raise DataError(f"{source}no items in it; expected one JSON object a line")
        return tuple(items.values())

    def _item(self, where: str, row: Any) -> Item:
        wanted = _listed(self.wanted)
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with {wanted}")
        missing = [name for name in self.wanted if name not in row]
        if missing:
            has = ", ".join(map(repr, list(row)[:8])) or "nothing"
            raise DataError(
                f"{where}: no {missing[0]!r}; expected {wanted}, got {has}{_whose(row)}"
            )
        query, gold = self._task(where, row)
        return Item(_hash(query, gold), query, gold)

    def _task(self, where: str, row: dict[str, Any]) -> Task:
        try:
            if self.read is not None:
                return _whole(self.read(row))
            task = Task(text_of(row, self.query_field), text_of(row, self.gold_field))
        except KeyError as error:
            raise DataError(f"{where}: no {error.args[0]!r}") from None
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if self.grade(task.gold, task.gold) is not True:
            shown = f"{self.gold_field} {task.gold[:60]!r}"
            raise DataError(f"{where}: {shown} is nothing to score against")
        return task


def text_of(row: Mapping[str, Any], name: str) -> str:
    """Return a row's text, or its number as one. Raises KeyError, and ValueError where it is none.

    For a benchmark's `read`.
    """
    value = row[name]
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a text or a number")
    if not value.strip():
        raise ValueError(f"{name} is empty")
    return value


def _whole(task: Task) -> Task:
    for name, text in task._asdict().items():
        if not text.strip():
            raise ValueError(f"{name} is empty")
    return task


def _listed(names: tuple[str, ...]) -> str:
    *most, last = map(repr, names)
    return f"{', '.join(most)} and {last}" if most else last


def _whose(row: dict[str, Any]) -> str:
    """Say whose columns a row has: several benchmarks may be mixed, or another one be meant."""
    from r2reasoner.benchmarks import BENCHMARKS

    names = [b.name for b in BENCHMARKS.values() if all(name in row for name in b.wanted)]
    if not names:
        return ""
    return f": columns of {' or '.join(names)}, and a file has items of one benchmark"


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
