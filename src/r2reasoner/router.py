"""Decomposer, allocator and executor composed: figure 1 of the paper.

`Router.run` yields typed events and ends with the Trace; `Router.trace` returns only the Trace;
`Router.ask` is the synchronous door. All three go the same way.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from r2reasoner import prompts
from r2reasoner.allocator import Allocator, open_allocator
from r2reasoner.budget import Meter
from r2reasoner.client import Client, PoolClient
from r2reasoner.config import Settings
from r2reasoner.decomposer import Decomposer, Decomposition, Direct, open_decomposer
from r2reasoner.errors import ConfigError, DeadlineExceeded
from r2reasoner.events import Allocated, Answered, Event, Planned
from r2reasoner.executor import Emit, Executor
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.plan import direct
from r2reasoner.pool.cards import Pool
from r2reasoner.types import Allocation, Answer, AnswerStatus, Query, Step, Trace


@dataclass(slots=True)
class Router:
    """Routes queries over a pool. Give parts to replace the pool's own; close it after use."""

    pool: Pool
    settings: Settings
    ledger: Ledger
    client: Client
    decomposer: Decomposer
    allocator: Allocator
    parallel: bool = True

    @classmethod
    def open(
        cls,
        pool: Pool,
        settings: Settings,
        ledger: Ledger,
        *,
        client: Client | None = None,
        decomposer: Decomposer | None = None,
        allocator: Allocator | None = None,
        parallel: bool = True,
    ) -> "Router":
        """Return a router with the pool's decomposer and allocator, unless others are given."""
        return cls(
            pool=pool,
            settings=settings,
            ledger=ledger,
            client=client or PoolClient(),
            decomposer=decomposer
            or open_decomposer(
                pool.card(pool.decomposer),
                settings.max_subtasks,
                settings.max_plan_bytes,
                trade_off=settings.trade_off,
            ),
            allocator=allocator or open_allocator(pool, settings.trade_off),
            parallel=parallel,
        )

    def ask(self, text: str, *, direct: bool = False) -> Trace:
        """Answer a query and return its Trace (synchronous). Raises what `trace` raises."""
        return asyncio.run(self._ask_once(text, direct))

    async def _ask_once(self, text: str, direct: bool) -> Trace:
        try:
            return await self.trace(text, direct=direct)
        finally:
            await self.aclose()

    async def run(
        self,
        query: str | Query,
        *,
        direct: bool = False,
        watch: Emit = lambda event: None,
        meter: Meter | None = None,
    ) -> AsyncGenerator[Event | Trace, None]:
        """Yield events as they happen, then the Trace. Leaving early cancels what is in flight.

        `watch` gets each event at its moment, however slowly they are taken here.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()

        def emit(event: Event) -> None:
            watch(event)
            queue.put_nowait(event)

        task = asyncio.create_task(self.trace(query, direct=direct, emit=emit, meter=meter))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
            yield await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def trace(
        self,
        query: str | Query,
        *,
        direct: bool = False,
        emit: Emit = lambda event: None,
        meter: Meter | None = None,
    ) -> Trace:
        """Answer a query and return its Trace; `meter` replaces one with the settings' cap.

        Failed calls, money and time end in an answer whose status says so. Raises ConfigError for
        an empty or too large query, UnknownWords where no model has words for it, LedgerError.
        """
        query = self._checked(query)
        started, started_at = time.monotonic(), time.time()
        deadline = started + self.settings.deadline_s
        meter = meter or Meter(self.ledger, query.id, self.settings.cap)
        planned, allocation = await self._route(query, direct, meter, deadline, emit)
        if allocation is None:
            answer = Answer("", AnswerStatus.FAILED, planned.notes[-1])
            steps: tuple[Step, ...] = ()
            allocation = Allocation((None,) * len(planned.plan.subtasks), "none", calibrated=False)
        else:
            executor = Executor(
                self.client,
                self.pool,
                parallel=self.parallel,
                temperature=self.settings.temperature,
                max_answer_tokens=self.settings.max_answer_tokens,
            )
            answer, steps = await executor.execute(
                query,
                planned.plan,
                allocation,
                meter,
                emit,
                started=started,
                deadline=deadline,
            )
        emit(Answered(answer))
        trace = Trace(
            id=query.id,
            query=query,
            pool=self.pool.name,
            trade_off=self.settings.trade_off,
            plan=planned.plan,
            plan_notes=planned.notes,
            plan_failed=planned.failed,
            allocation=allocation,
            steps=steps,
            answer=answer,
            calls=tuple(meter.calls),
            started_at=started_at,
            wall_s=time.monotonic() - started,
            settings={**_plain(self.settings), "prompts": prompts.digest()},
        )
        self.ledger.save_trace(trace)
        return trace

    async def _route(
        self, query: Query, direct: bool, meter: Meter, deadline: float | None, emit: Emit
    ) -> tuple[Decomposition, Allocation | None]:
        """Plan and allocate; the allocation is None where time ran out before there was one."""
        decomposer = Direct() if direct else self.decomposer
        try:
            planned = await decomposer.decompose(query, self.client, meter, deadline)
            emit(Planned(planned.plan, planned.notes, planned.failed))
            allocation = await self.allocator.allocate(
                query, planned.plan, self.client, meter, deadline
            )
        except DeadlineExceeded as late:
            return _too_late(query, late), None
        emit(Allocated(allocation))
        return planned, allocation

    def _checked(self, query: str | Query) -> Query:
        query = Query(query, new_id()) if isinstance(query, str) else query
        if not query.text.strip():
            raise ConfigError("the query is empty; expected a question or a task")
        try:
            size = len(query.text.encode())
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"the query is not text: its character {error.start + 1} is no Unicode character;"
                " expected UTF-8"
            ) from None
        if size > self.settings.max_query_bytes:
            raise ConfigError(
                f"the query has {size:,} bytes; at most {self.settings.max_query_bytes:,} are taken"
            )
        return query

    async def aclose(self) -> None:
        """Close the client and write what the ledger still holds; the ledger stays open."""
        await self.client.close()
        await self.ledger.flush()

    async def __aenter__(self) -> "Router":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _too_late(query: Query, late: DeadlineExceeded) -> Decomposition:
    return Decomposition(direct(query.text), (f"no plan: {late}",), failed=True)


def _plain(settings: Settings) -> dict[str, Any]:
    return {
        key: value if value is None or isinstance(value, int | float) else str(value)
        for key, value in asdict(settings).items()
    }
