"""Make rows of rows by one pure `async process(row)`: broken off and gone on with at any point.

    job = Job(out=folder, rows=items, config={...}, form=Form(columns))
    await run_shards(job, Factory("package.module:open_process", {...}), ledger)

The process is made by a factory where it runs: in this event loop, or, with the engine `ray`, in
every worker of a Ray cluster. Both give the same files. A finished row is never made again; what
a kill loses are the rows in flight, and of those the process finds what it paid for in the store
of recorded outcomes, if it keeps one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import Any, Final, TypeAlias

from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.evaluate import Progress
from r2reasoner.evaluation.spending import SpendingLedger
from r2reasoner.ledger import Ledger
from r2reasoner.training.journal import Row
from r2reasoner.training.manifest import Manifest
from r2reasoner.training.shard_folder import Job, ShardFolder, Todo

Process: TypeAlias = Callable[[Row], Awaitable[Row]]
"""Makes a row of a row, always the same of the same; it may be asked for many at once."""

IN_FLIGHT: Final = 64
WORKERS: Final = 2


class Engine(StrEnum):
    """What runs the process."""

    ASYNCIO = "asyncio"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class Factory:
    """How a process is made: `path` is `package.module:function`, `kwargs` must be picklable.

    The function takes a keyword `ledger`, through which every call to a model has to go, and
    `kwargs`; it returns an async context manager that gives the process.
    """

    path: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def open(self, ledger: Ledger) -> AbstractAsyncContextManager[Process]:
        """Make a process. Raises ConfigError where there is no such function."""
        module, _, name = self.path.partition(":")
        try:
            function = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"no process {self.path!r}, expected package.module:function: {error}"
            ) from error
        made: AbstractAsyncContextManager[Process] = function(ledger=ledger, **self.kwargs)
        return made


class Teller:
    """Tells how far a run is. Rows found on disk are done from the start."""

    def __init__(
        self, folder: ShardFolder, spent: int, progress: Callable[[Progress], None]
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._spent_before = spent
        self._done_before = folder.done
        self._started = time.monotonic()

    def tell(self, spent: int) -> None:
        """Report, given what the ledger has spent (pico-dollars)."""
        done, total = self._folder.done, self._folder.total
        new = done - self._done_before
        elapsed = time.monotonic() - self._started
        left = elapsed / new * (total - done) if new else None
        self._progress(Progress(done, total, spent - self._spent_before, left))


async def run_shards(
    job: Job,
    factory: Factory,
    ledger: SpendingLedger,
    *,
    engine: Engine = Engine.ASYNCIO,
    in_flight: int = IN_FLIGHT,
    workers: int = WORKERS,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Make what is missing of a job's rows; return the manifest, which is whole then.

    `in_flight` rows are made at a time, by all `workers` (of Ray) together. `ledger.cap` holds
    for all of them, and `ledger.spent` has what they spent. When a row fails, no more are begun,
    those in flight end, and its error is raised; so do CapReached (of the ledger's cap), and
    ConfigError and DataError (of `ShardFolder`). What is finished by then is on disk.
    """
    if min(in_flight, workers) < 1:
        raise ConfigError(
            f"expected 1 or more rows in flight, got {in_flight}, and workers, got {workers}"
        )
    with ShardFolder(job) as folder:
        todo = folder.missing()
        teller = Teller(folder, ledger.spent, progress)
        teller.tell(ledger.spent)
        if todo and engine is Engine.RAY:
            from r2reasoner.training.ray_engine import run_on_ray

            await run_on_ray(folder, todo, factory, ledger, workers, in_flight, teller.tell)
        elif todo:
            async with factory.open(ledger) as process:
                await _Run(folder, process, lambda: teller.tell(ledger.spent)).all(todo, in_flight)
            await ledger.flush()
        return folder.manifest


class _Run:
    """One run in this event loop."""

    def __init__(self, folder: ShardFolder, process: Process, tell: Callable[[], None]) -> None:
        self._folder = folder
        self._process = process
        self._tell = tell
        self._trouble: Exception | None = None

    async def all(self, todo: list[Todo], in_flight: int) -> None:
        queue = iter(todo)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(in_flight, len(todo))):
                group.create_task(self._work(queue))
        if self._trouble is not None:
            raise self._trouble

    async def _work(self, queue: Iterator[Todo]) -> None:
        for todo in queue:
            try:
                made = self._folder.job.form.checked(todo.row, await self._process(todo.row))
                self._folder.add(made)
                self._tell()
            except Exception as error:
                self._trouble = self._trouble or error
            if self._trouble is not None:
                return
