"""How many of the plans that real models wrote are valid, and why the rest is not.

Reads the decompositions of Division-of-Thoughts (written by gpt-4-turbo) beside this repository:
recipes/dot_plans.py [--data ../shared/data] [--json]. Each plan is read twice: as the graph that
DoT recorded (steps and edges), and as the numbered list that the model wrote.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from r2reasoner.errors import PlanError
from r2reasoner.plan import read_graph, read_prose, validate
from r2reasoner.types import Plan

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = ("dot_decompositions/test200.jsonl", "dot_step_allocations/two_model_search.jsonl")


def as_graph(row: dict[str, Any]) -> Plan:
    """Return the plan of the recorded steps and edges."""
    return read_graph(row["steps"], [(before, after) for before, after in row["edges"]])


def as_list(row: dict[str, Any]) -> Plan:
    """Return the plan of the steps as the model numbered them."""
    return read_prose("\n".join(f"Step {n}: {s}" for n, s in enumerate(row["steps"], 1)))


READERS: dict[str, Callable[[dict[str, Any]], Plan]] = {"graph": as_graph, "list": as_list}


def count(file: Path, read: Callable[[dict[str, Any]], Plan]) -> dict[str, Any]:
    """Return how many rows of a file are valid plans, and the others by the rule they break."""
    faults: Counter[str] = Counter()
    examples: dict[str, str] = {}
    rows = 0
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            rows += 1
            try:
                validate(read(json.loads(line)))
            except PlanError as error:
                faults[str(error.fault)] += 1
                examples.setdefault(str(error.fault), str(error))
    valid = rows - faults.total()
    return {
        "rows": rows,
        "valid": valid,
        "share": round(valid / rows, 4),
        "faults": dict(faults.most_common()),
        "examples": examples,
    }


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| plans | read as | rows | valid | why not |"
    yield "|---|---|---|---|---|"
    for r in results:
        why = ", ".join(f"{n} {fault}" for fault, n in r["faults"].items())
        yield f"| {r['file']} | {r['read_as']} | {r['rows']:,} | {r['share']:.1%} | {why} |"


def main() -> None:
    """Print the table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=BESIDE, help="the folder of the shared data")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    missing = [name for name in FILES if not (options.data / name).is_file()]
    if missing:
        sys.exit(f"no {options.data / missing[0]}: name the folder of the data with --data")
    results = [
        {"file": name, "read_as": kind} | count(options.data / name, read)
        for name in FILES
        for kind, read in READERS.items()
    ]
    print(json.dumps(results, indent=2) if options.json else "\n".join(table(results)))


if __name__ == "__main__":
    main()
