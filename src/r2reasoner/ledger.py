"""The ledger: one entry per call to a model, opened before dispatch and closed after; traces too.

One writer thread per ledger commits whatever waits for it in one transaction, so that recording
a call costs some tens of microseconds when many are in flight, and `begin` returns only when its
entry is committed. An open entry stands at its bound: whatever happens to the process, the books
never show less than may have been billed. A process holds a lease while its ledger is open;
entries left open under a lease that ran out become `unknown`.

A commit survives the death of the process; after a power cut the last moments may be missing.
Network file systems are not supported. How it all lies on disk is in `storage.py`, imported when
a ledger is opened because SQLAlchemy takes longer to import than the rest of the package.
"""

import asyncio
import itertools
import json
import os
import secrets
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

from r2reasoner.errors import DataError, LedgerError
from r2reasoner.pool.cards import Card, Price
from r2reasoner.types import Call, Pico, Role, Trace, Usage

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from sqlalchemy import Connection

    from r2reasoner.storage import Store

Row: TypeAlias = tuple[Any, ...]

BATCH: Final = 1000
"""Most operations in one transaction, so that other processes get their turn."""
KEPT: Final = 10_000
"""Most queued operations kept for another try while the store cannot be written."""


_counter: Final = itertools.count()
_process_tag = secrets.randbits(28)


def _draw_process_tag() -> None:
    global _process_tag
    _process_tag = secrets.randbits(28)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_draw_process_tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryOpen:
    """A call that is about to be dispatched. `bound` is in pico-dollars, None if unpriced.

    `card` says what limits its model's calls in flight; it is not recorded.
    """

    id: str
    query_id: str
    role: Role
    model: str
    subtask: int | None
    attempt: int
    bound: Pico | None
    bound_usage: Usage
    price: Price | None
    started_at: float
    note: str | None = None
    card: Card | None = None


@dataclass(frozen=True, slots=True)
class Entry(Call):
    """A call as the ledger has it. While it is open, usage and cost are its bound.

    `lease` names the process that opened it; `price` is the price at that time.
    """

    query_id: str
    price: Price | None
    lease: str


class TraceSummary(NamedTuple):
    """One line of the list of traces. Cost in pico-dollars (None: unknown), time in seconds."""

    id: str
    started_at: float
    query: str
    pool: str
    cost: Pico | None
    status: str
    wall_s: float


class Totals(NamedTuple):
    """Sums over entries; `cost` in pico-dollars, without the `unpriced` calls."""

    calls: int
    open: int
    failed: int
    unknown: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cost: Pico


def new_id() -> str:
    """Return a unique id of 24 hexadecimal digits that sorts by time."""
    return f"{time.time_ns() // 1000:013x}{next(_counter) & 0xFFFF:04x}{_process_tag:07x}"


def default_path() -> Path:
    """Return where the ledger lies unless told otherwise: `$R2REASONER_HOME/r2reasoner.db`."""
    home = os.environ.get("R2REASONER_HOME")
    return (Path(home) if home else Path.home() / ".r2reasoner") / "r2reasoner.db"


def evaluations_path() -> Path:
    """Return where comparisons keep their calls, apart from the queries that a user asked."""
    return default_path().with_name("evaluations.db")


class Ledger:
    """One SQLite file (or database of another kind by its SQLAlchemy URL): entries and traces.

    Use `open`, and close it (or use it as a context manager, plain or async). It serves many
    tasks and threads, and several event loops one after the other, but not a forked child.
    """

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._writer = _Writer(store)
        # Runs at exit too, so that what is queued is written though nobody closed the ledger.
        self._finalizer = weakref.finalize(self, _Writer.stop, self._writer)

    @classmethod
    def open(
        cls,
        url_or_path: str | Path | None = None,
        *,
        lease_s: float = 60.0,
        busy_timeout_s: float = 10.0,
    ) -> Self:
        """Open a ledger, and make it if it is not there. None: `default_path()`.

        `lease_s`: after how many seconds without a sign of life a process counts as dead;
        `busy_timeout_s`: how long to wait for another process's transaction.
        Raises LedgerError if it cannot be opened or is no ledger.
        """
        from r2reasoner.storage import Store

        where = default_path() if url_or_path is None else url_or_path
        return cls(Store(where, lease_s=lease_s, busy_timeout_s=busy_timeout_s))

    @classmethod
    def in_memory(cls) -> Self:
        """Open a ledger that lives in memory and dies with this object."""
        return cls.open("sqlite://")

    @property
    def where(self) -> str:
        """The file or URL of its database, never with a password."""
        return self._store.where

    async def begin(self, entry: EntryOpen) -> None:
        """Record a call before its dispatch; return when the entry is committed.

        Raises LedgerError if it could not be recorded: then it must not be dispatched.
        """
        await self._writer.ask(_Kind.OPEN, self._store.open_row(entry))

    def finish(self, call: Call) -> None:
        """Queue the closing of a call's entry. Raises LedgerError if the ledger is closed.

        A failing write is tried again with the next ones and reported by `flush` and `close`.
        """
        self._writer.put(_Kind.CLOSE, self._store.close_row(call))

    def save_trace(self, trace: Trace) -> None:
        """Queue a trace; one with the same id is replaced. Errors as for `finish`."""
        self._writer.put(_Kind.TRACE, self._store.trace_row(trace, _to_json(trace)))

    async def flush(self) -> None:
        """Return when everything queued before is committed. Raises LedgerError if it is not."""
        await self._writer.ask(_Kind.FLUSH, ())

    async def close(self) -> None:
        """Write what is queued, give up the lease and close. As `close_sync`."""
        await asyncio.to_thread(self.close_sync)

    def close_sync(self) -> None:
        """Write what is queued, give up the lease and close; again: nothing happens.

        Entries still open become `unknown`, charged at their bound. Raises LedgerError if
        something could not be written.
        """
        self._finalizer()

    def recover(self) -> int:
        """Make open entries whose lease ran out `unknown` at their bound; return how many.

        A ledger in use does this by itself once every few seconds. Raises LedgerError.
        """
        return self._store.recover()

    def entries(self, *, query_id: str | None = None, limit: int | None = None) -> list[Entry]:
        """Return committed entries, oldest first; with a limit, the newest so many.

        Raises LedgerError.
        """
        return self._store.entries(query_id, limit)

    def iter_entries(self, *, query_id: str | None = None) -> Iterator[Entry]:
        """Yield committed entries, oldest first, without holding them all. Raises LedgerError."""
        return self._store.iter_entries(query_id)

    def totals(self, *, query_id: str | None = None) -> Totals:
        """Return the sums over all committed entries, or those of one query.

        Raises LedgerError.
        """
        return self._store.totals(query_id)

    def traces(self, *, limit: int | None = None) -> list[TraceSummary]:
        """Return the committed traces, newest first. Raises LedgerError."""
        return self._store.traces(limit)

    def trace(self, id_or_prefix: str) -> Trace:
        """Return one trace by its id or the beginning of it.

        Raises DataError if there is none, or several, or it cannot be read; LedgerError.
        """
        return _from_json(*self._store.trace_body(id_or_prefix))

    def trace_json(self, id_or_prefix: str) -> str:
        """Return one trace as it was saved: one line of JSON. Errors as for `trace`."""
        return self._store.trace_body(id_or_prefix)[1]

    def iter_trace_json(self) -> Iterator[str]:
        """Yield each committed trace as one line of JSON, oldest first. Raises LedgerError."""
        return self._store.iter_trace_bodies()

    def reading(self) -> "AbstractContextManager[Connection]":
        """Return a connection to what is committed, for queries of one's own over `tables.py`.

        Errors of the database leave it as LedgerError.
        """
        return self._store.reading()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_sync()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Kind(StrEnum):
    OPEN = "open"
    CLOSE = "close"
    TRACE = "trace"
    FLUSH = "flush"
    STOP = "stop"


class _Waiter(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[None]"


class _Operation(NamedTuple):
    kind: _Kind
    row: Row
    waiter: _Waiter | None = None


class _Answer(NamedTuple):
    waiter: _Waiter
    trouble: str | None


class _Writer:
    """The thread that writes, started by the first operation.

    It must not refer to its Ledger, whose disappearance is what stops it.
    """

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._queue: SimpleQueue[_Operation] = SimpleQueue()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._kept: list[_Operation] = []
        self._lost = 0
        self._trouble = ""
        self._trouble_at_end: str | None = None

    def put(self, kind: _Kind, row: Row, waiter: _Waiter | None = None) -> None:
        """Queue one operation. Raises LedgerError if nobody would ever take it."""
        if os.getpid() != self._pid:
            raise LedgerError("this ledger was opened before a fork; open one in the child")
        with self._lock:
            if self._closed:
                raise LedgerError(f"the ledger {self._store.where} is closed")
            if self._thread is None:
                self._start()
            self._queue.put(_Operation(kind, row, waiter))

    async def ask(self, kind: _Kind, row: Row) -> None:
        """Queue one operation and wait until it is committed. Raises LedgerError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.put(kind, row, _Waiter(loop, future))
        await future

    def stop(self) -> None:
        """Drain the queue, end the thread and close the store. Raises LedgerError."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            self._queue.put(_Operation(_Kind.STOP, ()))
        # Garbage collection may run this in the writer itself, which then ends on its own.
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()
        self._store.close()
        if trouble := self._unwritten() or self._trouble_at_end:
            raise LedgerError(trouble)

    def _start(self) -> None:
        # A daemon: one that is not would keep the interpreter from ever reaching its exit hooks.
        self._thread = threading.Thread(target=self._run, name="r2-ledger", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            operations = self._gather()
            stopping = any(o.kind is _Kind.STOP for o in operations)
            kept, self._kept = self._kept, []
            answers = self._commit(kept + [o for o in operations if o.row])
            _answer(answers + self._report(operations))
        try:
            self._store.release()
        except LedgerError as error:
            self._trouble_at_end = str(error)

    def _gather(self) -> list[_Operation]:
        """Return all that waits, or nothing when it is time for a sign of life."""
        try:
            operations = [self._queue.get(timeout=self._store.heartbeat_s)]
        except Empty:
            return []
        with suppress(Empty):
            while len(operations) < BATCH:
                operations.append(self._queue.get_nowait())
        return operations

    def _commit(self, operations: list[_Operation]) -> list[_Answer]:
        """Write in one transaction; where a row is refused, each in its own, so that only it is."""
        rows: dict[_Kind, list[Row]] = defaultdict(list)
        for operation in operations:
            rows[operation.kind].append(operation.row)
        try:
            self._store.write(rows[_Kind.OPEN], rows[_Kind.CLOSE], rows[_Kind.TRACE])
        except DataError as error:
            if len(operations) > 1:
                return [a for operation in operations for a in self._commit([operation])]
            return self._fail(operations, str(error), keep=False)
        except LedgerError as error:
            return self._fail(operations, str(error), keep=True)
        return [_Answer(o.waiter, None) for o in operations if o.waiter]

    def _fail(self, operations: list[_Operation], trouble: str, *, keep: bool) -> list[_Answer]:
        queued = [o for o in operations if not o.waiter]
        room = max(KEPT - len(self._kept), 0) if keep else 0
        self._kept += queued[:room]
        self._lost += len(queued[room:])
        if queued:
            self._trouble = trouble
        return [_Answer(o.waiter, trouble) for o in operations if o.waiter]

    def _report(self, operations: list[_Operation]) -> list[_Answer]:
        """Answer those who flush with what could not be written; what is lost, only once."""
        waiters = [o.waiter for o in operations if o.kind is _Kind.FLUSH and o.waiter]
        if not waiters:
            return []
        trouble = self._unwritten()
        self._lost = 0
        return [_Answer(waiter, trouble) for waiter in waiters]

    def _unwritten(self) -> str | None:
        missing = len(self._kept) + self._lost
        return f"{missing} results or traces not recorded: {self._trouble}" if missing else None


def _answer(answers: list[_Answer]) -> None:
    """Wake the tasks that wait, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = defaultdict(list)
    for answer in answers:
        by_loop[answer.waiter.loop].append(answer)
    for loop, its_answers in by_loop.items():
        # A loop that was closed meanwhile has nobody left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_wake, its_answers)


def _wake(answers: list[_Answer]) -> None:
    for (_, future), trouble in answers:
        if future.done():
            continue
        if trouble is None:
            future.set_result(None)
        else:
            future.set_exception(LedgerError(trouble))


def _to_json(trace: Trace) -> str:
    """Return a trace as one line of JSON; what UTF-8 cannot hold (lone surrogates) becomes `?`."""
    text = json.dumps(trace, default=_plain, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return sorted(value)
    return str(value)


@cache
def _trace_adapter() -> "TypeAdapter[Trace]":
    from pydantic import TypeAdapter

    return TypeAdapter(Trace)


def _from_json(identifier: str, body: str) -> Trace:
    try:
        return _trace_adapter().validate_json(body)
    except ValueError as error:
        raise DataError(f"trace {identifier} cannot be read: {error}") from None
