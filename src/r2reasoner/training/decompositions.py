"""Decomposition data: run candidate plans, score them, keep the best (section "SFT data").

Each candidate is really run, on workers that have not seen the item. Its score is a weighted sum,
lower is better: *conciseness* (subtasks), *practicality* (tokens spent to solve them) and
*coherence* (where subtasks do not hang together). The best among the right ones is kept. The
paper keeps the best of all where none is right (`best_of_all`); by default such items get no plan
and are counted, since the shortest wrong plan is always to answer directly.

Left out: which items, and who runs `process` on many of them (`shards`).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, NamedTuple

from r2reasoner.allocator import uniform
from r2reasoner.benchmarks.grading import Grade, exact
from r2reasoner.client.base import Client
from r2reasoner.errors import PlanError
from r2reasoner.ledger import Ledger
from r2reasoner.outcomes.records import Outcome
from r2reasoner.plan import validate
from r2reasoner.pool.cards import Pool
from r2reasoner.training import columns
from r2reasoner.training.coherence import Form, Judge, breaks
from r2reasoner.training.columns import Column
from r2reasoner.training.proposers import Candidate, Proposer
from r2reasoner.training.rows import ITEM, Row, item_of, plan_text
from r2reasoner.training.trials import Ran, Runner
from r2reasoner.training.verdicts import verdicts
from r2reasoner.types import Call, Choice, Task

Keep = Literal["best_right", "best_of_all"]
FORM: Final = columns.Form(
    dict.fromkeys((*ITEM, "plan", "lines"), Column.TEXT)
    | {"score": Column.NUMBER, "right": Column.FLAG, "candidates": Column.TEXT}
    | {"settings": Column.TEXT, "calls": Column.INTEGER, "cost": Column.INTEGER}
)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the score: per subtask, per token and per break of coherence in that form.

    Scores that differ by no more than `tolerance` count as equal.
    """

    conciseness: float = 1.0
    practicality: float = 0.1
    coherence: float = 2.0
    tolerance: float = 0.35
    form: Form = Form.GRAPH

    def score(self, parts: "Parts") -> float:
        """Return the score of a candidate; lower is better."""
        return (
            self.conciseness * parts.subtasks
            + self.practicality * parts.tokens
            + self.coherence * parts.breaks
        )


class Parts(NamedTuple):
    """What a score is made of: subtasks, tokens of the run, breaks of coherence."""

    subtasks: int
    tokens: int
    breaks: int


class Tried(NamedTuple):
    """A candidate and how it did. `score` None: the plan is invalid, so it was not `ran`."""

    candidate: Candidate
    parts: Parts
    score: float | None
    right: bool
    fault: str | None = None
    ran: Ran | None = None


class Searched(NamedTuple):
    """All candidates of an item, the one that is kept (if any), and every call that it took."""

    tried: tuple[Tried, ...]
    unreadable: tuple[str, ...]
    kept: Tried | None
    calls: tuple[Call, ...]


class Search:
    """Finds the decomposition to learn from, item by item.

    `worker` runs the candidates (the strongest, if none is named), `grade` says what is right. A
    dollar cap on all of it is the ledger's (`SpendingLedger`). `record` takes how answers did, of
    right candidates and the direct one. Raises ConfigError for an unknown worker.
    """

    def __init__(
        self,
        pool: Pool,
        client: Client,
        ledger: Ledger,
        proposer: Proposer,
        weights: Weights | None = None,
        *,
        grade: Grade = exact,
        worker: str | None = None,
        judge: Judge | None = None,
        keep: Keep = "best_right",
        record: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._worker = pool.card(worker) if worker else pool.strongest
        self._runner = Runner(pool, client, ledger, grade, keyed=record is not None)
        self._proposer = proposer
        self._weights = weights or Weights()
        self._judge = judge
        self._keep = keep
        self._record = record or (lambda outcome: None)

    async def process(self, row: Mapping[str, Any]) -> Row:
        """Return an item's row with the plan to learn (`FORM`), None where none is kept.

        `cost` is in pico-dollars, None where a price is not known. Raises DataError for a row that
        is no item, and what `Runner.run` raises.
        """
        item = item_of(row)
        query = item["query"]
        found = await self.search(Task(query, item["gold"]))
        kept = found.kept
        self._judge_answers(query, found)
        costs = [call.cost for call in found.calls]
        return item | {
            "plan": plan_text(kept.candidate.plan, query) if kept else None,
            "lines": json.dumps(kept.candidate.lines if kept else []),
            "score": kept.score if kept else None,
            "right": kept is not None and kept.right,
            "candidates": json.dumps(_candidates(found, query)),
            "settings": json.dumps(self.settings()),
            "calls": len(costs),
            "cost": None if None in costs else sum(cost or 0 for cost in costs),
        }

    def settings(self) -> dict[str, Any]:
        """Return what decides which plan is kept, as it stands in every row."""
        return {
            "weights": asdict(self._weights),
            "keep": self._keep,
            "proposer": self._proposer.name,
            "worker": self._worker.name,
            "judge": self._judge.card.name if self._judge else None,
        }

    async def search(self, task: Task) -> Searched:
        """Run and score every candidate of a task. Raises what `process` does."""
        meter = self._runner.meter()
        proposed = await self._proposer.propose(task.query, meter)
        calls = meter.calls
        tried = []
        for candidate in proposed.candidates:
            one, its_calls = await self._try(task, candidate)
            tried.append(one)
            calls += its_calls
        return Searched(tuple(tried), proposed.unreadable, self._kept(tried), tuple(calls))

    def _judge_answers(self, query: str, found: Searched) -> None:
        for tried in found.tried:
            plan, ran = tried.candidate.plan, tried.ran
            if ran is not None and (ran.right or plan.is_direct):
                for one in verdicts(query, plan, plan_text(plan, query), [ran], "decompositions"):
                    self._record(one)

    def _kept(self, tried: Sequence[Tried]) -> Tried | None:
        """Return the first proposed of those that score (nearly) best.

        Policies learn a steady order more easily than one that turns on a token or two.
        """
        right = [t for t in tried if t.right]
        eligible = right or (tried if self._keep == "best_of_all" else [])
        scored = [(t.score, t) for t in eligible if t.score is not None]
        limit = min((score for score, _ in scored), default=0.0) + self._weights.tolerance
        return next((t for score, t in scored if score <= limit), None)

    async def _try(self, task: Task, candidate: Candidate) -> tuple[Tried, list[Call]]:
        plan = candidate.plan
        form = self._weights.form
        try:
            validate(plan)
        except PlanError as error:
            parts = Parts(len(plan.subtasks), 0, breaks(plan, form))
            return Tried(candidate, parts, None, right=False, fault=str(error)), []
        meter = self._runner.meter()
        untrue = frozenset[tuple[int, int]]()
        if self._judge is not None:
            untrue = await self._judge.untrue(task.query, plan, form, meter)
        everywhere = uniform(plan, Choice(self._worker.name, "search"), "search")
        ran = await self._runner.run(task, plan, everywhere)
        tokens = sum(call.usage.input_tokens + call.usage.output_tokens for call in ran.calls)
        parts = Parts(len(plan.subtasks), tokens, breaks(plan, form, untrue))
        tried = Tried(candidate, parts, self._weights.score(parts), ran.right, ran.fault, ran)
        return tried, [*meter.calls, *ran.calls]


def _candidates(found: Searched, query: str) -> list[dict[str, Any]]:
    """Return every candidate with the parts of its score, and what was no plan at all."""
    plans = [
        {
            "plan": plan_text(tried.candidate.plan, query),
            "score": tried.score,
            "right": tried.right,
            **tried.parts._asdict(),
            "fault": tried.fault,
        }
        for tried in found.tried
    ]
    return plans + [{"plan": None, "right": False, "fault": why} for why in found.unreadable]


def summary(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return one line about decomposition rows: what was kept, and what it took."""
    rows = list(rows)
    candidates = [c for row in rows for c in json.loads(row["candidates"])]
    kept = [row["plan"] for row in rows if row["plan"] is not None]
    right = sum(row["right"] for row in rows)
    unparseable = sum(c["plan"] is None or c["score"] is None for c in candidates)
    return (
        f"{len(rows):,} items, {len(candidates):,} candidates ({unparseable:,} no valid plan):"
        f" {right:,} items with a right plan, {len(rows) - len(kept):,} left out,"
        f" {kept.count('='):,} answered directly; {sum(row['calls'] for row in rows):,} calls"
    )
