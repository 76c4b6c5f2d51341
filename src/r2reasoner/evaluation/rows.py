"""One row per item and strategy: what an evaluation found, appended as it goes, and never twice.

A rows file is JSON lines. A row's key says under which conditions it was found, so that a file
may hold several evaluations and a run goes on where another stopped. A last line that was cut
short (a kill, a full disk) is dropped; anything else that is no row is refused.
"""

import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.types import Call, Pico, Role, Step, Trace

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_BEGINNING: Final = b'{"context": "'
"""How every row begins: what is cut short and begins otherwise is somebody else's, and is kept."""
_ROUTING: Final = (Role.DECOMPOSER, Role.ALLOCATOR)


class Key(NamedTuple):
    """What a row is about. `context` is the hash of pool, seed, settings, benchmark and split."""

    context: str
    strategy: str
    item: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRow:
    """One item answered by one strategy. Costs are pico-dollars (None: unknown), times seconds.

    `right` counts only where `scored`; `score` (0 to 1) stands beside it where the benchmark has
    one and the answer could be judged. `models` counts the subtasks that each model answered.
    `reached` is False where no call to any model succeeded; `trace` is None where there is none.
    `on_record` of the `calls` were answered from a store of outcomes.
    """

    context: str
    benchmark: str
    split: str
    strategy: str
    item: str
    pool: str
    seed: int
    settings: str
    right: bool
    scored: bool
    answer: str
    status: str
    error: str | None
    workers_cost: Pico | None
    net_cost: Pico | None
    calls: int
    latency_s: float
    critical_path_s: float
    plan_failed: bool
    decomposed: bool
    subtasks: int
    models: dict[str, int]
    fell_back: bool
    reached: bool
    trace: str | None
    on_record: int = 0
    score: float | None = None

    @property
    def key(self) -> Key:
        """What the row is about."""
        return Key(self.context, self.strategy, self.item)


def is_on_record(call: Call) -> bool:
    """Tell whether a call was answered from a store of outcomes: no attempt at a model was made."""
    return call.attempt == 0


def latency_s(trace: Trace) -> float:
    """Return how long the answer took, in seconds; with calls on record, at least their chain."""
    if any(map(is_on_record, trace.calls)):
        return max(trace.wall_s, critical_path_s(trace))
    return trace.wall_s


def critical_path_s(trace: Trace) -> float:
    """Return how long the longest chain of calls took, in seconds, the routing calls included.

    A call on record took what it took when it was made.
    """
    spent = {step.subtask: _spent_s(step, trace.calls) for step in trace.steps}
    longest: dict[int, float] = {}
    for number, subtask in enumerate(trace.plan.subtasks, 1):
        before = max((longest[n] for n in subtask.dependencies if n in longest), default=0.0)
        longest[number] = before + spent.get(number, 0.0)
    planned = sum(call.latency_s for call in trace.calls if call.role in _ROUTING)
    return planned + max(longest.values(), default=0.0)


def _spent_s(step: Step, calls: Sequence[Call]) -> float:
    """Return how long a subtask took: its calls, one after the other, where one is on record."""
    measured = step.finished_s - step.started_s
    own = [c for c in calls if c.subtask == step.subtask and c.role not in _ROUTING]
    if any(map(is_on_record, own)):
        return max(measured, sum(call.latency_s for call in own))
    return measured


class RowsFile:
    """The rows of a file, and a way to append more; one process at a time, as a context manager.

    Entering raises DataError where a line is no row, ConfigError where the file cannot be had.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[Key, ItemRow] = {}
        self._stream: FileIO | None = None
        self._unwritten: list[bytes] = []

    def __enter__(self) -> Self:
        if self.path.exists() and not self.path.is_file():
            raise ConfigError(f"{self.path}: expected a file to write rows to")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stream = FileIO(self.path, "a+")
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stream.truncate(self._read())
        except BlockingIOError:
            stream.close()
            raise ConfigError(f"{self.path}: another evaluation is writing to it") from None
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            try:
                self.flush()
            finally:
                self._stream.close()
                self._stream = None

    def append(self, row: ItemRow) -> None:
        """Take a row in; one with the same key is replaced. The next `flush` writes it."""
        self.rows[row.key] = row
        # What UTF-8 cannot hold (lone surrogates, which models do write) becomes `?`.
        line = json.dumps(_document(row), ensure_ascii=False).encode("utf-8", "replace")
        self._unwritten.append(line + b"\n")

    def flush(self) -> None:
        """Write what was appended, in one go. Raises DataError where it cannot be written."""
        if not self._unwritten:
            return
        assert self._stream is not None, "rows are written between __enter__ and __exit__"
        lines, self._unwritten = b"".join(self._unwritten), []
        try:
            whole = self._stream.write(lines) == len(lines)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error.strerror}") from error
        if not whole:
            raise DataError(f"{self.path}: cannot be written: no space left")

    def _read(self) -> int:
        """Read the rows; return how many bytes are whole lines."""
        whole = 0
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n") and _BEGINNING.startswith(line[: len(_BEGINNING)]):
                    break
                row = _parse(f"{self.path}:{number}", line)
                self.rows[row.key] = row
                whole += len(line)
        return whole


def _document(row: ItemRow) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row)}


def _parse(where: str, line: bytes) -> ItemRow:
    try:
        return _adapter().validate_json(line, strict=True)
    except ValueError:
        raise DataError(
            f"{where}: expected a row of an evaluation; repair it, or move it away"
        ) from None


@cache
def _adapter() -> "TypeAdapter[ItemRow]":
    from pydantic import TypeAdapter

    return TypeAdapter(ItemRow)
