"""Our own files: what a store is exported to, and what `r2reasoner calibrate` measured."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.files import write_whole
from r2reasoner.outcomes.layouts.base import IMPORTED, Context, Layout
from r2reasoner.outcomes.layouts.files import JSONL, PARQUET
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
from r2reasoner.outcomes.shards import to_parquet
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.types import Role


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
    """Put records in a store that it does not hold yet.

    Raises as `OutcomeStore.put`, and DataError, before anything is put, where an imported item
    stands in the store with another verdict.
    """
    known = dict.fromkeys(store.outcomes())
    _refuse_other_verdicts(records, known)
    answers = {r.key: r for r in records if isinstance(r, Answered) and store.get(r.key) is None}
    outcomes = dict.fromkeys(r for r in records if isinstance(r, Outcome) and r not in known)
    for answer in answers.values():
        store.put(answer)
    for outcome in outcomes:
        store.add(outcome)
    return Taken(len(answers), len(outcomes), len(records) - len(answers) - len(outcomes))


def _refuse_other_verdicts(records: Sequence[Record], known: Iterable[Outcome]) -> None:
    held = {o.key: o.score for o in known if o.key.startswith(IMPORTED)}
    for record in records:
        if isinstance(record, Outcome) and held.get(record.key, record.score) != record.score:
            raise DataError(
                f"{record.source}: item {record.item} stands in the store with another verdict of"
                f" {record.model}: {record.score} after {held[record.key]}; import into a new store"
            )


def _exported(row: Row, context: Context) -> list[Record]:
    return [from_row(checked(row))]


def _calibrated(row: Row, context: Context) -> list[Record]:
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
        at=context.written_at,
        role=Role.CALIBRATION,
    )
    return [answer, Outcome(content_id(text), None, None, model, key, float(right), "calibration")]


EXPORT: Final = Layout(
    fields=frozenset({"kind", "key", "model", "source"}), records=_exported, folder="export"
)
CALIBRATION: Final = Layout(
    fields=frozenset({"text", "model", "right", "cost"}),
    records=_calibrated,
    folder="calibration",
)
