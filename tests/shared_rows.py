"""Single rows of the shared data, taken in as a file of their own, for tests that have some."""

import json
from pathlib import Path

import pytest

from r2reasoner.outcomes.layouts import Imported, read_records
from r2reasoner.outcomes.records import Answered, Outcome, Row

SHARED = Path(__file__).parents[2] / "shared" / "data"


def shared_lines(folder: str, file: str, *numbers: int) -> list[str]:
    """Return lines (from 1) of a shared file; skip the test where it is not there."""
    path = SHARED / folder / file
    if not path.exists():
        pytest.skip(f"no shared data at {path}")
    with path.open() as lines:
        wanted = max(numbers)
        kept = dict(zip(range(1, wanted + 1), lines, strict=False))
    return [kept[n] for n in numbers]


def write_rows(path: Path, *rows: Row | str) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in rows))
    return path


def by_model(imported: Imported) -> dict[str, tuple[Answered, Outcome]]:
    """Return what was taken in of one item, by model."""
    answers = {r.key: r for r in imported.records if isinstance(r, Answered)}
    outcomes = [r for r in imported.records if isinstance(r, Outcome)]
    found = {o.model: (answers[o.key], o) for o in outcomes}
    assert len(found) == len(outcomes)
    return found


def taken_in(folder: Path, *rows: Row | str, name: str = "rows.jsonl") -> Imported:
    """Return what rows say as a file in a folder."""
    return read_records(write_rows(folder / name, *rows))
