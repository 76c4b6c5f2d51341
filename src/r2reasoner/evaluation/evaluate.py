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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple, Self

from r2reasoner import __version__, prompts
from r2reasoner.benchmarks import Benchmark, Item, Verdict
from r2reasoner.client import Client, PoolClient
from r2reasoner.config import Settings
from r2reasoner.errors import DataError, R2Error, UnknownWords
from r2reasoner.evaluation.answer_key import answer_key
from r2reasoner.evaluation.provenance import pool_digest
from r2reasoner.evaluation.rows import (
    ItemRow,
    Key,
    RowsFile,
    critical_path_s,
    is_on_record,
    latency_s,
)
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.pool.cards import Pool
from r2reasoner.strategies import StrategyContext, left_out, open_strategy
from r2reasoner.types import AnswerStatus, CallOutcome, Pico, Query, Trace

EMBEDDED_IN_FLIGHT: Final = 96
HTTP_IN_FLIGHT: Final = 16
UNREACHED_IN_A_ROW: Final = 20
MAX_ANSWER_KEPT: Final = 10_000
SOURCE: Final = "evaluation"
"""What a store of outcomes says of the answers that were paid for here."""


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

    def context(self, ledger: Ledger, client: Client) -> StrategyContext:
        """Return what its strategies share, with what is right for those that look it up."""
        return StrategyContext(
            pool=self.pool,
            settings=self.settings,
            ledger=ledger,
            client=client,
            seed=self.seed,
            key=answer_key(self.benchmark, self.items, plain=self.plain),
        )


class Conditions(NamedTuple):
    """What an evaluation's rows are found under, as hashes; `context` is that of all of it."""

    pool: str
    settings: str
    context: str

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        """Return the conditions here: of this version, its prompts, and the weights as they lie."""
        pool = pool_digest(evaluation.pool)
        plain = asdict(replace(evaluation.settings, pool=None))
        settings = _digest([plain, prompts.digest(), __version__])
        about = [evaluation.benchmark.name, evaluation.split]
        return cls(pool, settings, _digest([*about, pool, evaluation.seed, settings]))

    def key(self, strategy: str, item: Item) -> Key:
        """Return the key of a row."""
        return Key(self.context, strategy, item.id)


class Assignment(NamedTuple):
    """An item for a strategy to answer."""

    strategy: str
    item: Item


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
    answerer = Answerer(evaluation, ledger, client)
    todo = missing(evaluation, answerer.conditions, rows.rows, again=again)
    run = _Run(answerer, ledger, rows, progress, total=len(todo))
    await run.all(todo, in_flight or default_in_flight(evaluation.pool))
    await ledger.flush()
    return found(evaluation, answerer.conditions, rows.rows)


@asynccontextmanager
async def open_client(store: Path | None = None) -> AsyncIterator[Client]:
    """Give a client of any pool; what the store of outcomes in a folder has, it does not ask again.

    Raises ConfigError and DataError, as `OutcomeStore.open`.
    """
    with ExitStack() as held:
        client: Client = PoolClient()
        if store is not None:
            client = RecordedClient(client, held.enter_context(OutcomeStore.open(store)), SOURCE)
        try:
            yield client
        finally:
            await client.close()


def runnable(evaluation: Evaluation) -> tuple[Evaluation, dict[str, str]]:
    """Return the evaluation without the strategies that its pool cannot run, and why each cannot.

    Raises ConfigError where it can run none.
    """
    with Ledger.in_memory() as ledger:
        without = left_out(evaluation.strategies, evaluation.context(ledger, PoolClient()))
    kept = tuple(name for name in evaluation.strategies if name not in without)
    return replace(evaluation, strategies=kept), without


def missing(
    evaluation: Evaluation,
    conditions: Conditions,
    rows: Mapping[Key, ItemRow],
    *,
    again: bool = False,
) -> list[Assignment]:
    """Return what has no row yet, one strategy after the other: larger micro-batches.

    `again`: what has a row without a whole answer, too.
    """
    todo = []
    for strategy in evaluation.strategies:
        for item in evaluation.items:
            row = rows.get(conditions.key(strategy, item))
            if row is None or (again and row.error is not None):
                todo.append(Assignment(strategy, item))
    return todo


def found(
    evaluation: Evaluation, conditions: Conditions, rows: Mapping[Key, ItemRow]
) -> list[list[ItemRow]]:
    """Return the rows of each strategy, in the order of the items, once none is missing."""
    return [
        [rows[conditions.key(strategy, item)] for item in evaluation.items]
        for strategy in evaluation.strategies
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


class Answerer:
    """Answers items by an evaluation's strategies and makes rows of the answers."""

    def __init__(self, evaluation: Evaluation, ledger: Ledger, client: Client) -> None:
        self.conditions = Conditions.of(evaluation)
        self._evaluation = evaluation
        shared = evaluation.context(ledger, client)
        self._routers = {name: open_strategy(name, shared) for name in evaluation.strategies}
        self._unreached = 0

    async def answer(self, asked: Assignment) -> ItemRow:
        """Return the row of an item; one that got no answer is wrong.

        Raises CapReached, ConfigError, LedgerError, and Unreachable instead of the last row of
        many in which no model was reached.
        """
        row = await self._answer(asked)
        self._unreached = 0 if row.reached else self._unreached + 1
        if self._unreached == UNREACHED_IN_A_ROW:
            raise Unreachable(
                f"{self._unreached} items in a row got no answer from any model; the last one:"
                f" {row.error}"
            )
        return row

    async def _answer(self, asked: Assignment) -> ItemRow:
        text = self._evaluation.benchmark.query(asked.item, plain=self._evaluation.plain)
        try:
            trace = await self._routers[asked.strategy].trace(Query(text, new_id()))
        except UnknownWords as error:
            nothing = Verdict(False, 0.0 if self._evaluation.benchmark.score else None)
            return self._row(asked, None, nothing, str(error))
        verdict = await self._judge(trace.answer.text, asked.item.gold)
        whole = trace.answer.status in (AnswerStatus.COMPLETE, AnswerStatus.CHEAP_FINISH)
        lacking = None if whole else trace.answer.note or "no whole answer"
        return self._row(asked, trace, verdict, lacking)

    async def _judge(self, answer: str, gold: str) -> Verdict:
        benchmark = self._evaluation.benchmark
        if benchmark.blocking:
            return await asyncio.to_thread(benchmark.judge, answer, gold)
        return benchmark.judge(answer, gold)

    def _row(
        self, asked: Assignment, trace: Trace | None, verdict: Verdict, error: str | None
    ) -> ItemRow:
        calls = trace.calls if trace else ()
        steps = trace.steps if trace else ()
        return ItemRow(
            context=self.conditions.context,
            benchmark=self._evaluation.benchmark.name,
            split=self._evaluation.split,
            strategy=asked.strategy,
            item=asked.item.id,
            pool=self.conditions.pool,
            seed=self._evaluation.seed,
            settings=self.conditions.settings,
            right=verdict.right is True,
            scored=verdict.right is not None,
            score=verdict.score,
            answer=trace.answer.text[:MAX_ANSWER_KEPT] if trace else "",
            status=trace.answer.status if trace else AnswerStatus.FAILED,
            error=error,
            workers_cost=trace.workers_cost if trace else 0,
            net_cost=trace.cost() if trace else 0,
            calls=len(calls),
            latency_s=latency_s(trace) if trace else 0.0,
            critical_path_s=critical_path_s(trace) if trace else 0.0,
            plan_failed=trace.plan_failed if trace else False,
            decomposed=trace is not None and not trace.plan.is_direct,
            subtasks=len(trace.plan.subtasks) if trace else 0,
            models=dict(Counter(step.model for step in steps if step.model)),
            fell_back=any(step.fell_back_from for step in steps),
            reached=any(call.outcome is CallOutcome.OK for call in calls),
            trace=trace.id if trace else None,
            on_record=sum(map(is_on_record, calls)),
        )


class _Run:
    """One run of an evaluation in this event loop."""

    def __init__(
        self,
        answerer: Answerer,
        ledger: SpendingLedger,
        rows: RowsFile,
        progress: Callable[[Progress], None],
        total: int,
    ) -> None:
        self._answerer = answerer
        self._ledger = ledger
        self._rows = rows
        self._progress = progress
        self._total = total
        self._started = time.monotonic()
        self._done = 0
        self._flushing = False
        self._stop: R2Error | None = None

    async def all(self, todo: Sequence[Assignment], in_flight: int) -> None:
        """Run what is to do; on trouble begin no more, let those in flight end, and raise it."""
        queue = iter(todo)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(in_flight, len(todo))):
                    group.create_task(self._work(queue))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        if self._stop is not None:
            raise self._stop

    async def _work(self, queue: Iterator[Assignment]) -> None:
        for asked in queue:
            try:
                await self._one(asked)
            except (CapReached, Unreachable) as reason:
                self._stop = reason
            if self._stop is not None:
                return

    async def _one(self, asked: Assignment) -> None:
        self._rows.append(await self._answerer.answer(asked))
        if not self._flushing:
            # one write for all items that end in this turn of the loop, as micro-batches do
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)
        self._done += 1
        self._tell()

    def _flush(self) -> None:
        self._flushing = False
        try:
            self._rows.flush()
        except DataError as full:
            self._stop = full

    def _tell(self) -> None:
        elapsed = time.monotonic() - self._started
        left = elapsed / self._done * (self._total - self._done)
        self._progress(Progress(self._done, self._total, self._ledger.spent, left))


def _digest(value: object) -> str:
    text = json.dumps(value, default=str, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
