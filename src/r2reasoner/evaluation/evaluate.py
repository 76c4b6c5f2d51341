"""Evaluate strategies on items: many in flight, under one cap, row by row, never twice.

Each strategy answers each item once, over one pool, client and ledger. A finished item becomes a
row on disk at once; items that have a row under the same conditions are not run again. Figures
are made of rows by `results`; this module only finds them.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, NamedTuple

from r2reasoner import __version__, prompts
from r2reasoner.benchmarks import Benchmark, Item
from r2reasoner.client import Client
from r2reasoner.config import Settings
from r2reasoner.errors import DataError, R2Error, UnknownWords
from r2reasoner.evaluation.provenance import pool_digest
from r2reasoner.evaluation.rows import ItemRow, Key, RowsFile, critical_path_s
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import new_id
from r2reasoner.pool.cards import Pool
from r2reasoner.router import Router
from r2reasoner.strategies import StrategyContext, open_strategy
from r2reasoner.types import AnswerStatus, CallOutcome, Pico, Query, Trace

EMBEDDED_IN_FLIGHT: Final = 96
HTTP_IN_FLIGHT: Final = 16
UNREACHED_IN_A_ROW: Final = 20
MAX_ANSWER_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is evaluated, and under which conditions. `strategies` are expanded names."""

    benchmark: Benchmark
    split: str
    items: tuple[Item, ...]
    strategies: tuple[str, ...]
    pool: Pool
    settings: Settings
    seed: int = 0

    @property
    def plain(self) -> bool:
        """True where no worker takes chat messages, so that items are asked as they stand."""
        return all(card.prompt == "plain" for card in self.pool.workers)


class Progress(NamedTuple):
    """How far a run is. `spent` is pico-dollars of this run, `seconds_left` an estimate."""

    done: int
    total: int
    spent: Pico
    seconds_left: float | None


class Unreachable(R2Error):
    """Item after item got no answer from any model."""


async def evaluate(
    evaluation: Evaluation,
    ledger: SpendingLedger,
    client: Client,
    rows: RowsFile,
    *,
    in_flight: int | None = None,
    again: bool = False,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> list[list[ItemRow]]:
    """Return the rows of each strategy, in the order of the items; run what has no row yet.

    `again` also runs anew what has a row without a whole answer. Raises CapReached (of the
    ledger's cap), Unreachable, ConfigError and LedgerError: rows found till then are in the file.
    """
    run = _Run(evaluation, ledger, client, rows, progress)
    jobs = run.missing(again=again)
    run.total = len(jobs)
    await run.all(jobs, in_flight or default_in_flight(evaluation.pool))
    await ledger.flush()
    return [
        [rows.rows[run.key(name, item)] for item in evaluation.items]
        for name in evaluation.strategies
    ]


def default_in_flight(pool: Pool) -> int:
    """Return how many queries to have in flight: many where micro-batches are made of them."""
    embedded = all(card.endpoint.kind == "embedded" for card in pool.workers)
    return EMBEDDED_IN_FLIGHT if embedded else HTTP_IN_FLIGHT


def limited(items: Sequence[Item], limit: int | None, seed: int) -> tuple[Item, ...]:
    """Return a sample of items in their order; a larger limit adds to a smaller one's sample."""
    if limit is None or limit >= len(items):
        return tuple(items)
    drawn = sorted(items, key=lambda item: _digest([seed, item.id]))[:limit]
    chosen = {item.id for item in drawn}
    return tuple(item for item in items if item.id in chosen)


class _Job(NamedTuple):
    strategy: str
    item: Item


class _Run:
    """One run of an evaluation."""

    def __init__(
        self,
        evaluation: Evaluation,
        ledger: SpendingLedger,
        client: Client,
        rows: RowsFile,
        progress: Callable[[Progress], None],
    ) -> None:
        self._evaluation = evaluation
        self._ledger = ledger
        self._rows = rows
        self._progress = progress
        self._pool = pool_digest(evaluation.pool)
        settings = asdict(replace(evaluation.settings, pool=None))
        self._settings = _digest([settings, prompts.digest(), __version__])
        self._context = _digest(
            [
                evaluation.benchmark.name,
                evaluation.split,
                self._pool,
                evaluation.seed,
                self._settings,
            ]
        )
        shared = StrategyContext(
            pool=evaluation.pool,
            settings=evaluation.settings,
            ledger=ledger,
            client=client,
            seed=evaluation.seed,
        )
        self._routers = {name: open_strategy(name, shared) for name in evaluation.strategies}
        self._started = time.monotonic()
        self._done = 0
        self._unreached = 0
        self._flushing = False
        self._stop: R2Error | None = None
        self.total = 0

    def key(self, strategy: str, item: Item) -> Key:
        return Key(self._context, strategy, item.id)

    def missing(self, *, again: bool) -> list[_Job]:
        """Return what has no row yet, one strategy after the other: larger micro-batches."""
        jobs = []
        for strategy in self._evaluation.strategies:
            for item in self._evaluation.items:
                row = self._rows.rows.get(self.key(strategy, item))
                if row is None or (again and row.error is not None):
                    jobs.append(_Job(strategy, item))
        return jobs

    async def all(self, jobs: Sequence[_Job], in_flight: int) -> None:
        """Run jobs; on trouble begin no more, let those in flight end, and raise it."""
        queue = iter(jobs)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(in_flight, len(jobs))):
                    group.create_task(self._work(queue))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        if self._stop is not None:
            raise self._stop

    async def _work(self, queue: Iterator[_Job]) -> None:
        for job in queue:
            try:
                await self._one(job)
            except CapReached as reached:
                self._stop = reached
            if self._stop is not None:
                return

    async def _one(self, job: _Job) -> None:
        row = await self._answer(self._routers[job.strategy], job)
        self._rows.append(row)
        if not self._flushing:
            # one write for all items that end in this turn of the loop, as micro-batches do
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)
        self._done += 1
        self._unreached = 0 if row.reached else self._unreached + 1
        if self._unreached == UNREACHED_IN_A_ROW:
            self._stop = Unreachable(
                f"{self._unreached} items in a row got no answer from any model; the last one:"
                f" {row.error}"
            )
        self._tell()

    def _flush(self) -> None:
        self._flushing = False
        try:
            self._rows.flush()
        except DataError as full:
            self._stop = full

    def _tell(self) -> None:
        elapsed = time.monotonic() - self._started
        left = elapsed / self._done * (self.total - self._done)
        self._progress(Progress(self._done, self.total, self._ledger.spent, left))

    async def _answer(self, router: Router, job: _Job) -> ItemRow:
        text = self._evaluation.benchmark.query(job.item, plain=self._evaluation.plain)
        try:
            trace = await router.trace(Query(text, new_id()))
        except UnknownWords as error:
            return self._row(job, None, str(error))
        whole = trace.answer.status in (AnswerStatus.COMPLETE, AnswerStatus.CHEAP_FINISH)
        return self._row(job, trace, None if whole else trace.answer.note or "no whole answer")

    def _row(self, job: _Job, trace: Trace | None, error: str | None) -> ItemRow:
        """Score an answer; an item that got none is wrong."""
        verdict: bool | None = False
        if trace is not None:
            verdict = self._evaluation.benchmark.grade(trace.answer.text, job.item.gold)
        calls = trace.calls if trace else ()
        steps = trace.steps if trace else ()
        return ItemRow(
            context=self._context,
            benchmark=self._evaluation.benchmark.name,
            split=self._evaluation.split,
            strategy=job.strategy,
            item=job.item.id,
            pool=self._pool,
            seed=self._evaluation.seed,
            settings=self._settings,
            right=verdict is True,
            scored=verdict is not None,
            answer=trace.answer.text[:MAX_ANSWER_KEPT] if trace else "",
            status=trace.answer.status if trace else AnswerStatus.FAILED,
            error=error,
            workers_cost=trace.workers_cost if trace else 0,
            net_cost=trace.cost() if trace else 0,
            calls=len(calls),
            latency_s=trace.wall_s if trace else 0.0,
            critical_path_s=critical_path_s(trace) if trace else 0.0,
            plan_failed=trace.plan_failed if trace else False,
            decomposed=trace is not None and not trace.plan.is_direct,
            subtasks=len(trace.plan.subtasks) if trace else 0,
            models=dict(Counter(step.model for step in steps if step.model)),
            fell_back=any(step.fell_back_from for step in steps),
            reached=any(call.outcome is CallOutcome.OK for call in calls),
            trace=trace.id if trace else None,
        )


def _digest(value: object) -> str:
    text = json.dumps(value, default=str, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
