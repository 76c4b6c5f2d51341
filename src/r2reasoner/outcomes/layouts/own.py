"""Outcomes in single files: what a store is exported to, and the layouts that it takes in.

A file is JSON lines or Parquet. Its layout is the first of `LAYOUTS` whose fields its rows all
have; another public set is one more entry there.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.files import write_whole
from r2reasoner.outcomes.records import (
    Answered,
    Outcome,
    Record,
    Row,
    checked,
    content_id,
    from_row,
    to_row,
)
from r2reasoner.outcomes.shards import rows_of, to_parquet
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.types import Role

JSONL: Final = ".jsonl"
PARQUET: Final = ".parquet"


class Layout(NamedTuple):
    """A kind of file: the fields that its rows have, and what one row says.

    `records` also gets when the file was written (seconds since 1970), for rows that say no time;
    it raises ValueError, or KeyError, for a row that is none.
    """

    fields: frozenset[str]
    records: Callable[[Row, float], Iterable[Record]]


class Taken(NamedTuple):
    """What an import did: how many records were new or held already."""

    answers: int
    outcomes: int
    held: int


def write_export(store: OutcomeStore, file: Path) -> int:
    """Write all records of a store to a `.jsonl` or `.parquet` file; return how many.

    Raises ConfigError for another ending, or where it cannot be written.
    """
    records: tuple[Record, ...] = (*store.answers(), *store.outcomes())
    if file.suffix == JSONL:
        write_whole(file, (json.dumps(to_row(r)) + "\n" for r in records), replace=True)
    elif file.suffix == PARQUET:
        write_whole(file, to_parquet([to_row(r) for r in records]), replace=True)
    else:
        raise ConfigError(f"{file}: expected a file that ends in {JSONL} or {PARQUET}")
    return len(records)


def take_in(records: Sequence[Record], store: OutcomeStore) -> Taken:
    """Put records in a store that it does not hold yet. Raises as `OutcomeStore.put`."""
    answers = {r.key: r for r in records if isinstance(r, Answered) and store.get(r.key) is None}
    known = set(store.outcomes())
    outcomes = dict.fromkeys(r for r in records if isinstance(r, Outcome) and r not in known)
    for answer in answers.values():
        store.put(answer)
    for outcome in outcomes:
        store.add(outcome)
    return Taken(len(answers), len(outcomes), len(records) - len(answers) - len(outcomes))


def read_records(file: Path, layout: str | None = None) -> tuple[str, list[Record]]:
    """Return a file's layout and its records.

    Raises ConfigError for a layout that there is not, DataError where the file is of none, or not
    as its layout says.
    """
    rows = list(_rows(file))
    name = _layout_of(file, rows) if layout is None else layout
    if name not in LAYOUTS:
        raise ConfigError(f"no layout {name!r}; known: {', '.join(LAYOUTS)}")
    written_at = file.stat().st_mtime
    records: list[Record] = []
    for number, row in enumerate(rows, 1):
        try:
            records += LAYOUTS[name].records(row, written_at)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}:{number}: expected a row of layout {name!r}: {error}"
            ) from None
    return name, records


def _layout_of(file: Path, rows: list[Row]) -> str:
    if not rows:
        raise DataError(f"{file}: no rows")
    for name, layout in LAYOUTS.items():
        if layout.fields <= rows[0].keys():
            return name
    raise DataError(
        f"{file}: expected rows of one of these layouts: {', '.join(LAYOUTS)};"
        f" got the fields {', '.join(map(str, rows[0]))[:200]}"
    )


def _rows(file: Path) -> Iterator[Row]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if file.suffix == PARQUET:
        yield from rows_of(content, file)
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield _row(f"{file}:{number}", line)


def _row(where: str, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected JSON lines, each an object")
    return row


def _exported(row: Row, written_at: float) -> list[Record]:
    return [from_row(checked(row))]


def _calibrated(row: Row, written_at: float) -> list[Record]:
    """Return what `r2reasoner calibrate` measured: right or not, without the answer's text."""
    text, model, right, cost = row["text"], row["model"], row["right"], row["cost"]
    if not (isinstance(text, str) and isinstance(model, str) and isinstance(right, bool)):
        raise ValueError("expected text, model (texts) and right (true or false)")
    if cost is not None and (isinstance(cost, bool) or not isinstance(cost, int) or cost < 0):
        raise ValueError(f"cost: expected pico-dollars or null, got {cost!r}")
    key = f"calibration-{content_id(json.dumps([model, text]))}"
    answer = Answered(
        key=key,
        model=model,
        revision="unknown",
        prompt=json.dumps([{"role": "user", "content": text}], ensure_ascii=False),
        answer=None,
        finish_reason=None,
        usage=None,
        cost=cost,
        input_price=None,
        output_price=None,
        latency_s=None,
        logprob=None,
        source="calibration",
        at=written_at,
        role=Role.CALIBRATION,
    )
    return [answer, Outcome(content_id(text), None, None, model, key, float(right), "calibration")]


LAYOUTS: Final = {
    "export": Layout(frozenset({"kind", "key", "model", "source"}), _exported),
    "calibration": Layout(frozenset({"text", "model", "right", "cost"}), _calibrated),
}
