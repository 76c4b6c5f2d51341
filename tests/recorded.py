"""Answers and outcomes as an outcome store keeps them, for tests that need some."""

from pathlib import Path
from typing import Any

from r2reasoner.outcomes.journal import read_journal
from r2reasoner.outcomes.records import Answered, Outcome, Row, content_id
from r2reasoner.outcomes.shards import rows_of
from r2reasoner.types import Role, Usage


def answered(key: str, **changed: Any) -> Answered:
    fields: dict[str, Any] = {
        "key": key,
        "model": "small",
        "revision": "mock-small",
        "prompt": '[{"role": "user", "content": "2 + 3"}]',
        "answer": f"answer of {key}",
        "finish_reason": "stop",
        "usage": Usage(5, 3, 2, 1),
        "cost": 8_000_000,
        "input_price": "0.15",
        "output_price": "0.6",
        "latency_s": 0.25,
        "logprob": -0.5,
        "source": "test",
        "at": 1000.0,
        "role": Role.WORKER,
    }
    return Answered(**fields | changed)


def outcome(key: str, **changed: Any) -> Outcome:
    fields: dict[str, Any] = {
        "item": content_id("2 + 3"),
        "plan": content_id("#1"),
        "subtask": 1,
        "model": "small",
        "key": key,
        "score": 1.0,
        "source": "exact",
    }
    return Outcome(**fields | changed)


def rows_on_disk(folder: Path) -> list[Row]:
    """Return every row of a store's shards, whatever stands there twice included."""
    paths = sorted(folder.glob("*.parquet"))
    return [row for path in paths for row in rows_of(path.read_bytes(), path)]


def keys_on_disk(folder: Path) -> list[str]:
    """Return the keys of all answers in shards and journals, sorted, doubles included."""
    keys = [row["key"] for row in rows_on_disk(folder) if row["kind"] == "answer"]
    for path in folder.glob("journal-*"):
        keys += [r.key for r in read_journal(path).records if isinstance(r, Answered)]
    return sorted(keys)
