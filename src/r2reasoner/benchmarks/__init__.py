"""Benchmarks by name, and a user's own: a file of JSON lines and the name of a scorer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from r2reasoner.benchmarks.arithmetic import ARITHMETIC
from r2reasoner.benchmarks.base import Benchmark, Item, Verdict
from r2reasoner.benchmarks.champ import CHAMP
from r2reasoner.benchmarks.csqa import CSQA
from r2reasoner.benchmarks.grading import GRADES, Grade
from r2reasoner.benchmarks.math import MATH
from r2reasoner.benchmarks.musique import MUSIQUE
from r2reasoner.benchmarks.p3 import P3
from r2reasoner.benchmarks.scan import SCAN
from r2reasoner.errors import ConfigError

__all__ = [
    "ARITHMETIC",
    "BENCHMARKS",
    "CHAMP",
    "CSQA",
    "MATH",
    "MUSIQUE",
    "P3",
    "SCAN",
    "SCORERS",
    "Benchmark",
    "Grade",
    "Item",
    "Verdict",
    "open_benchmark",
]

BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    benchmark.name: benchmark for benchmark in (P3, SCAN, MATH, CHAMP, CSQA, MUSIQUE, ARITHMETIC)
}
SCORERS: Final[Mapping[str, Grade]] = {
    **GRADES,
    **{b.name: b.grade for b in BENCHMARKS.values() if b.grade not in GRADES.values()},
}
"""Scorers by the names that files keep them under: the common ones, and a benchmark's own."""
OWN_SPLIT: Final = "all"


def open_benchmark(name: str, scorer: str | None = None) -> Benchmark:
    """Return a benchmark by name, or one of a user's own file (`query` and `answer` a row).

    `scorer` (`exact`, `number`, `sequence`; without it `exact`) belongs to own files only. The
    file is not read: that is `Benchmark.load`. Raises ConfigError.
    """
    if name in BENCHMARKS:
        if scorer is not None:
            raise ConfigError(f"{name} has its own scorer; --scorer is for your own JSONL file")
        return BENCHMARKS[name]
    if not name.endswith(".jsonl"):
        known = ", ".join(BENCHMARKS)
        raise ConfigError(f"no benchmark {name!r}; known: {known}, or the path of a .jsonl file")
    wanted = scorer or "exact"
    if wanted not in GRADES:
        raise ConfigError(f"no scorer {wanted!r}; known: {', '.join(GRADES)}")
    return Benchmark(
        name=Path(name).stem,
        query_field="query",
        gold_field="answer",
        grade=GRADES[wanted],
        default_split=OWN_SPLIT,
    )
