"""The shard runner on a Ray cluster: the same process in every worker, the same files come out.

Ray Data hands small batches of rows to a pool of actors. Each actor makes its own process by the
factory, journals what it finishes in the job's folder (which all machines must share) and sends it
to the driver, which writes the shards. All calls to models go through one named actor, the purse.
An actor that is killed is started again with its batches: it first reads what the journals have of
them. Keys to providers are read from the environment of the workers and never sent.

Needs `pip install 'r2reasoner[ray]'`. A cluster is found as Ray finds it (`RAY_ADDRESS`, or one on
this machine); where there is none, one is started on this machine, and stopped after.
"""

import asyncio
import functools
import logging
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

from r2reasoner.errors import ConfigError, LedgerError, R2Error
from r2reasoner.evaluation.spending import SpendingLedger
from r2reasoner.ledger import new_id
from r2reasoner.training.columns import Form
from r2reasoner.training.journal import Journal, Row, attend, read_journals
from r2reasoner.training.purse import BEAT_S, Halt, Halted, Purse, PurseLedger, Standing
from r2reasoner.training.shard_folder import ShardFolder, Todo
from r2reasoner.training.shards import Factory, Process

BATCHES: Final = 4
"""Batches that a worker has in hand, so that a slow row keeps few slots idle."""
MOST_CPU: Final = 0.25
"""Of a CPU, per worker: workers wait for the network, and must leave room for Ray's own tasks."""
WAITING: Final = 100_000
"""Calls that may wait at the purse at a time."""


async def run_on_ray(
    folder: ShardFolder,
    todo: Sequence[Todo],
    factory: Factory,
    ledger: SpendingLedger,
    workers: int,
    in_flight: int,
    tell: Callable[[int], None],
) -> None:
    """Make rows on a Ray cluster and add them to the folder; see `shards.run_shards`.

    Raises ConfigError where Ray is missing or the ledger cannot be shared, LedgerError where the
    purse is gone, R2Error where the cluster fails, and what a process raised.
    """
    where = _shared(ledger)
    with ExitStack() as held:
        ray = held.enter_context(_cluster())
        thread = held.enter_context(ThreadPoolExecutor(1))
        name = f"r2reasoner-purse-{new_id()}"
        purse = _Actor(_open_purse(ray, name, where, ledger))
        desk = _Desk(folder.path.absolute(), folder.job.form, factory, name)
        share = max(1, in_flight // workers)
        at_a_time = min(BATCHES, share)
        pool = ray.data.ActorPoolStrategy(
            size=min(workers, in_flight),
            max_concurrent_calls_per_actor=at_a_time,
            enable_true_multi_threading=True,
        )
        results = _results(ray, _batches(todo, share // at_a_time), desk, pool)
        run = _Run(folder, purse, tell)
        try:
            await run.all(thread, results)
        except ray.exceptions.RayError as error:
            raise R2Error(f"the Ray cluster failed: {str(error)[-500:]}") from error
        finally:
            standing: Standing = await purse.ask("close")
            ledger.spent, ledger.unpriced = standing.spent, ledger.unpriced + standing.unpriced


@contextmanager
def _cluster() -> Iterator[Any]:
    """Give Ray, connected. Raises ConfigError where it is missing or does not connect."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f"the engine 'ray' needs Ray: pip install 'r2reasoner[ray]' ({error})"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster can be had: {error} (RAY_ADDRESS says where one is, `local` starts"
            " one; where it asks for tokens, set RAY_AUTH_MODE=token too)"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _shared(ledger: SpendingLedger) -> str:
    """Return where the purse finds the ledger. Raises ConfigError where it cannot."""
    where = ledger.where
    if where in ("in memory", ":memory:"):
        raise ConfigError("a ledger in memory cannot be shared with Ray's workers: give it a file")
    if "***" in where:
        raise ConfigError(
            f"the ledger {where}: passwords are not sent to Ray's workers; give it in ~/.pgpass"
        )
    return where if "://" in where else str(Path(where).absolute())


def _open_purse(ray: Any, name: str, where: str, ledger: SpendingLedger) -> Any:
    """Start the purse on this machine, as its ledger may be a file of it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Purse).options(
        name=name, num_cpus=0, max_concurrency=WAITING, scheduling_strategy=here
    )
    return actor.remote(where, ledger.cap, ledger.spent)


def _batches(todo: Sequence[Todo], size: int) -> list[bytes]:
    """Return the numbers of shards with rows of theirs, as workers get them."""
    batches = []
    for shard, some in groupby(todo, lambda t: t.shard):
        rows = [t.row for t in some]
        pieces = [rows[at : at + size] for at in range(0, len(rows), size)]
        batches += [pickle.dumps(_Batch(shard, piece)) for piece in pieces]
    return batches


def _results(ray: Any, batches: list[bytes], desk: "_Desk", pool: Any) -> Iterator[Row]:
    """Yield what a pool of workers makes of batches, as it comes."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset = ray.data.from_items(
        [{"batch": batch} for batch in batches], override_num_blocks=len(batches)
    ).map_batches(
        _Worker,
        fn_constructor_args=[desk],
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=min(MOST_CPU, ray.cluster_resources().get("CPU", 1) / (2 * pool.max_size)),
        compute=pool,
    )
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    yield from dataset.iter_rows()


class _Batch(NamedTuple):
    """Inputs of one shard."""

    shard: int
    rows: list[Row]


class _Made(NamedTuple):
    """What a worker made of a batch: finished rows, and the first error of the others."""

    rows: list[Row]
    trouble: Exception | None


class _Run:
    """Takes in what workers send, until all is there or something is wrong."""

    def __init__(self, folder: ShardFolder, purse: "_Actor", tell: Callable[[int], None]) -> None:
        self._folder = folder
        self._purse = purse
        self._tell = tell
        self._trouble: Exception | None = None

    async def all(self, thread: ThreadPoolExecutor, results: Iterator[Row]) -> None:
        """Take in all results. Raises the first error, once what was in flight has ended."""
        loop = asyncio.get_running_loop()
        following = functools.partial(loop.run_in_executor, thread, next, results, None)
        try:
            while (result := await following()) is not None:
                await self._take(pickle.loads(result["made"]))
        except asyncio.CancelledError:
            with suppress(LedgerError):
                await self._purse.ask("halt", Halt.BREAK_OFF)
            while await following() is not None:
                pass
            raise
        if self._trouble is not None:
            raise self._trouble
        if self._folder.done < self._folder.total:
            raise R2Error(f"{self._folder.total - self._folder.done} rows did not come back")

    async def _take(self, made: _Made) -> None:
        trouble = made.trouble
        try:
            for row in made.rows:
                self._folder.add(row, journaled=True)
        except R2Error as error:
            trouble = error
        if trouble is not None and (self._trouble is None or isinstance(self._trouble, Halted)):
            self._trouble = trouble  # what was halted may come back before what halted it
            await self._purse.ask("halt", Halt.STOP)
        standing: Standing = await self._purse.ask("standing")
        self._tell(standing.spent)


class _Actor:
    """The purse, as another process reaches it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method. Raises what it raised, and LedgerError where the purse is gone."""
        from ray.exceptions import RayActorError, RayTaskError

        failure: Exception
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except RayTaskError as error:
            failure = error.cause if isinstance(error.cause, R2Error) else LedgerError(str(error))
        except RayActorError as error:
            failure = LedgerError(f"the purse of this run is gone, nothing is dispatched: {error}")
        raise failure

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method without waiting for it."""
        getattr(self._handle, method).remote(*arguments)


@dataclass(frozen=True, slots=True)
class _Desk:
    """What a worker is given."""

    folder: Path
    form: Form
    factory: Factory
    purse: str


class _Worker:
    """One actor of the pool: an event loop in a thread, and the process on it.

    Ray calls it from several threads at a time, with one batch each.
    """

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._journal = Journal(desk.folder)
        self._name = new_id()
        self._halt = Halt.NO
        self._rows: set[asyncio.Task[Row]] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._opening = asyncio.run_coroutine_threadsafe(self._open(), self._loop)

    def __call__(self, table: Any) -> Any:
        """Make the rows of batches: from a table of batches to one of what was made."""
        import pyarrow as pa  # type: ignore[import-untyped]

        batches = [pickle.loads(batch.as_py()) for batch in table["batch"]]
        made = [pickle.dumps(self._wait(self._make(batch))) for batch in batches]
        return pa.table({"made": pa.array(made, pa.large_binary())})

    def _wait(self, work: Coroutine[Any, Any, _Made]) -> _Made:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> Process:
        import ray

        self._purse = purse = _Actor(ray.get_actor(self._desk.purse))
        await purse.ask("join", self._name, ray.get_runtime_context().get_actor_id())
        self._presence = attend(self._desk.folder)
        self._ledger = PurseLedger(self._name, purse.ask, purse.tell)
        # Kept, for what makes the process ends with its last reference.
        self._making = self._desk.factory.open(self._ledger)
        process = await self._making.__aenter__()
        self._beating = asyncio.create_task(self._beat())
        return process

    async def _beat(self) -> None:
        """Give the purse signs of life; hear from it whether the run goes on."""
        with suppress(LedgerError):
            while self._halt is not Halt.BREAK_OFF:
                await self._hear()
                await asyncio.sleep(BEAT_S)
        self._halt = Halt.BREAK_OFF
        for row in self._rows:
            row.cancel()

    async def _hear(self) -> None:
        standing: Standing = await self._purse.ask("beat", self._name)
        if standing.halt is not Halt.NO:
            self._halt = standing.halt

    async def _make(self, batch: _Batch) -> _Made:
        """Return the finished rows of a batch, those of a worker that died over it too."""
        key = self._desk.form.key
        try:
            process = await asyncio.wrap_future(self._opening)
            await self._hear()
            there = {row[key]: row for row in read_journals(self._desk.folder, batch.shard)}
            rows = [
                asyncio.create_task(self._row(process, batch.shard, row, there.get(row[key])))
                for row in batch.rows
            ]
            self._rows.update(rows)
            ends = await asyncio.gather(*rows, return_exceptions=True)
            self._rows.difference_update(rows)
            self._journal.close(batch.shard)
            await self._ledger.flush()
        except Exception as error:
            return _Made([], _sendable(error))
        failed = [end for end in ends if isinstance(end, BaseException)]
        return _Made(
            [end for end in ends if not isinstance(end, BaseException)],
            _sendable(failed[0]) if failed else None,
        )

    async def _row(self, process: Process, shard: int, asked: Row, there: Row | None) -> Row:
        if there is not None:
            return there
        if self._halt is not Halt.NO:
            raise Halted("the run is being ended")
        try:
            made = self._desk.form.checked(asked, await process(asked))
            self._journal.append(shard, made)
        except Exception:
            self._halt = Halt.STOP
            raise
        return made


def _sendable(error: BaseException) -> Exception:
    """Return an error as it can be sent to another process."""
    if not isinstance(error, Exception):
        return Halted("broken off: the run is being ended")
    if not isinstance(error, R2Error):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return R2Error(f"{type(error).__name__}: {error}")
    return error
