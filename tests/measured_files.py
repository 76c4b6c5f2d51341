"""Measured outcomes as `r2reasoner calibrate` writes them, of two kinds of text told apart easily.

`small` can add, `medium` can count too, `large` can prove as well; they cost 1 : 10 : 100.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

COST = {"small": 1_000, "medium": 10_000, "large": 100_000}
CAN = {"small": "add", "medium": "add count", "large": "add count prove"}
TEXTS = {
    "add": "add {} and {} apples",
    "count": "count {} sheep over {} fences",
    "prove": "prove lemma {} of topology {}",
}
EACH = 70
"""So many texts of each kind: more than a router takes neighbours."""


def rows(*kinds: str, models: Iterable[str] = COST) -> Iterator[dict[str, object]]:
    """Yield what was measured of texts of some kinds."""
    for kind in kinds:
        for number in range(EACH):
            text = TEXTS[kind].format(number, number + 7)
            for model in models:
                right = kind in CAN[model].split()
                yield {"text": text, "model": model, "right": right, "cost": COST[model]}


def write(file: Path, lines: Iterable[dict[str, object]]) -> Path:
    """Write outcomes, packed where the name says so; return the file."""
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def measured(folder: Path, *kinds: str) -> Path:
    """Write subtasks and whole queries of some kinds; return what a pool's `outcomes` name."""
    write(folder / "outcomes.jsonl", rows(*kinds))
    write(folder / "outcomes.queries.jsonl", rows(*kinds))
    return folder / "outcomes.npz"
