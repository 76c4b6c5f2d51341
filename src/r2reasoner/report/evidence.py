"""What only an evaluation's rows and traces know: the tax on easy items, and shares by kind.

Rows stand beside a result file (`RESULT.json.rows.jsonl`); traces in the ledger that the evaluation
ran on, named by the rows. Both are optional, and rows that are not of the result's run (pool, seed,
number of items, right answers) are not used.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from r2reasoner.errors import DataError, R2Error
from r2reasoner.nano import arithmetic
from r2reasoner.nano.ladder import phrase_kind
from r2reasoner.nano.scan import ACTIONS
from r2reasoner.report.results import ROWS, Evaluated, StrategyRow

if TYPE_CHECKING:
    from r2reasoner.ledger import Ledger
    from r2reasoner.types import Trace

MOST_TRACES: Final = 4000
"""Traces read for shares by kind: a sample of this size says enough."""
_ROW: Final = ("strategy", "item", "right", "net_cost", "latency_s", "trace")
ItemFacts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EasyTax:
    """What routing cost more on the items that the best single model gets right in one call.

    Means over those items, in dollars and seconds; `still_right` is the share of them that our
    router answered rightly.
    """

    single: str
    items: int
    of: int
    ours_cost: float
    single_cost: float
    ours_latency_s: float
    single_latency_s: float
    still_right: float


Shares = dict[str, Counter[str]]
"""Kind of subtask -> how many of them each model answered."""


def rows_of(result: Evaluated, row: StrategyRow) -> list[ItemFacts]:
    """Return the rows of one strategy that a result was made of; none where they are not there."""
    file = result.file.with_name(result.file.name + ROWS)
    origin = result.provenance
    pool = origin.pool.sha256 if origin.pool else ""
    kept: dict[str, ItemFacts] = {}
    wanted = f'"strategy": {json.dumps(row.strategy)},'
    for line in _lines(file):
        if wanted not in line:
            continue
        facts = _parsed(line)
        if facts is not None and _is_of(facts, row, pool, origin.seed):
            kept[facts["item"]] = facts
    right = sum(bool(facts["right"]) for facts in kept.values())
    scored = row.n - row.unscored
    if len(kept) != row.n or row.accuracy is None or right != round(row.accuracy * scored):
        return []
    return list(kept.values())


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8") as stream:
            yield from stream
    except (OSError, UnicodeDecodeError):
        return


def _parsed(line: str) -> ItemFacts | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None  # a torn last line; the result says how many there must be
    return row if isinstance(row, dict) and all(name in row for name in _ROW) else None


def _is_of(facts: ItemFacts, row: StrategyRow, pool: str, seed: int | None) -> bool:
    return (
        facts.get("strategy") == row.strategy
        and facts.get("benchmark") == row.benchmark
        and facts.get("split") == row.split
        and facts.get("pool") == pool
        and facts.get("seed") == seed
    )


def easy_tax(result: Evaluated, ours: StrategyRow) -> EasyTax | None:
    """Return the tax on items that one call would have solved; None without matching rows."""
    singles = [
        r
        for r in result.rows
        if r.strategy.startswith("single:")
        and (r.benchmark, r.split) == (ours.benchmark, ours.split)
        and r.accuracy
    ]
    best = max(singles, key=lambda r: r.accuracy or 0.0, default=None)
    if best is None:
        return None
    mine = {facts["item"]: facts for facts in rows_of(result, ours)}
    theirs = [f for f in rows_of(result, best) if f["right"] and f["item"] in mine]
    pairs = [(mine[f["item"]], f) for f in theirs]
    costs = [(a["net_cost"], b["net_cost"]) for a, b in pairs]
    if not pairs or any(cost is None for pair in costs for cost in pair):
        return None
    n = len(pairs)
    return EasyTax(
        single=best.strategy,
        items=n,
        of=ours.n,
        ours_cost=sum(a for a, _ in costs) / n / 1e12,
        single_cost=sum(b for _, b in costs) / n / 1e12,
        ours_latency_s=sum(a["latency_s"] for a, _ in pairs) / n,
        single_latency_s=sum(b["latency_s"] for _, b in pairs) / n,
        still_right=sum(bool(a["right"]) for a, _ in pairs) / n,
    )


def shares_by_kind(result: Evaluated, ours: StrategyRow, ledger: "Ledger") -> Shares:
    """Return which model answered which kind of subtask; empty without rows and their traces."""
    ids = [facts["trace"] for facts in rows_of(result, ours) if facts["trace"]]
    step = max(1, len(ids) // MOST_TRACES)
    shares: Shares = {}
    for identifier in ids[::step]:
        try:
            trace = ledger.trace(identifier)
        except (R2Error, DataError):
            return {}  # another ledger's evaluation
        for kind, model in _answered(trace, kind_namer(ours.benchmark)):
            shares.setdefault(kind, Counter())[model] += 1
    return dict(sorted(shares.items(), key=lambda pair: -pair[1].total()))


def _answered(trace: "Trace", name: Callable[[str], str | None]) -> Iterator[tuple[str, str]]:
    last = trace.plan.last_nodes()
    for step in trace.steps:
        if step.model is None:
            continue
        place = (
            "answered directly"
            if trace.plan.is_direct
            else ("last step" if step.subtask in last else "earlier step")
        )
        yield name(step.prompt) or place, step.model


def kind_namer(benchmark: str) -> Callable[[str], str | None]:
    """Return what names the kind of a subtask's text; None: go by its place in the plan."""
    known: dict[str, Callable[[str], str | None]] = {"arithmetic": _operation, "scan": _phrase}
    return known.get(benchmark, lambda text: None)


_OPERATION: Final = re.compile(r"\s*([0-9]{1,9}) *([-+*]) *([0-9]{1,9})\s*")


def _operation(text: str) -> str | None:
    found = _OPERATION.fullmatch(text)
    if found is None:
        return "a longer expression" if any(o in text for o in arithmetic.OPERATORS) else None
    left, sign, right = found.groups()
    return arithmetic.kind((int(left), sign, int(right)))


def _phrase(text: str) -> str | None:
    words = text.split()
    if not words or any(word.startswith("I_") or word in ACTIONS for word in words):
        return None
    return "a whole command" if {"and", "after"} & set(words) else phrase_kind(text)
