"""Judge P3's own reference solutions.

`python recipes/p3_references.py FOLDER [--monty] [--limit N] [--seconds S]` prints how many
puzzles have a reference solution that the scorer calls right, and says of every other one why.
FOLDER has puzzles_train.jsonl and puzzles_test.jsonl.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from r2reasoner.benchmarks.p3 import Puzzle, judge, value_of
from r2reasoner.sandbox import Sandbox
from r2reasoner.sandbox.monty import MontySandbox

FILES = ("puzzles_train.jsonl", "puzzles_test.jsonl")


def main() -> None:
    """Judge every puzzle's first reference solution that is right."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--monty", action="store_true", help="judge in pydantic-monty")
    asked.add_argument("--limit", type=int, help="only so many puzzles, spread over all")
    asked.add_argument("--seconds", type=float, default=10.0, help="processor time for each half")
    given = asked.parse_args()
    sandbox = MontySandbox.probe() if given.monty else Sandbox.best()
    rows = [
        json.loads(line)
        for name in FILES
        for line in (given.folder / name).read_text(encoding="utf-8").splitlines()
    ]
    if given.limit:
        rows = rows[:: max(1, len(rows) // given.limit)][: given.limit]
    counts: Counter[str] = Counter()
    for done, row in enumerate(rows, 1):
        why = reason(sandbox, row, given.seconds)
        counts[why.partition(":")[0]] += 1
        if why not in ("right", "no reference solution"):
            print(f"{row['name']}: {why}")
        if done % 50 == 0:
            print(f"{done} of {len(rows)}", file=sys.stderr, flush=True)
    print(f"{sandbox.name}, {len(rows)} puzzles:")
    for why, count in counts.most_common():
        print(f"{count:6} {why}")


def reason(sandbox: Sandbox, row: dict[str, object], seconds: float) -> str:
    """Return "right", or why no reference solution of a puzzle is."""
    puzzle = Puzzle.of(json.dumps({"sat": row["sat"], "ans_type": row["ans_type"]}))
    why = "no reference solution"
    bodies = row["sol_bodies"]
    assert isinstance(bodies, list)
    for body in bodies:
        code = f"{row['sol_header']}\n{body}"
        answer = f"```python\n{code}\n```"
        found = value_of(sandbox, answer, puzzle, seconds=seconds)
        if found is None:
            why = f"no value: {_error(sandbox, code, seconds)}"
            continue
        ran = judge(sandbox, found, puzzle, seconds=seconds)
        if ran.stdout.endswith("right\n"):
            return "right"
        ending = "out of time" if ran.timed_out else ran.stderr.strip()[-120:]
        why = f"wrong: {found[:60]} {ending}"
    return why


def _error(sandbox: Sandbox, code: str, seconds: float) -> str:
    ran = sandbox.run(f"from typing import List\n{code}\nprint(type(sol()))", seconds=seconds)
    return "out of time" if ran.timed_out else (ran.stderr.strip() or ran.stdout.strip())[-160:]


if __name__ == "__main__":
    main()
