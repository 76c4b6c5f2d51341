"""The ledger: one entry per call to a model, opened before dispatch and closed after; traces too.

One writer thread per ledger commits whatever waits for it in one transaction (`batching.py`), so
that recording a call costs some tens of microseconds when many are in flight, and `begin` returns
only when its entry is committed. An open entry stands at its bound: whatever happens to the
process, the books never show less than may have been billed. A process holds a lease while its
ledger is open; entries left open under a lease that ran out become `unknown`.

A commit survives the death of the process; after a power cut the last moments may be missing from
a file. Network file systems are not supported. How it all is stored is in `storage.py`, imported
when a ledger is opened because SQLAlchemy takes longer to import than the rest of the package.
"""

import asyncio
import itertools
import json
import os
import secrets
import time
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self, TypeAlias

from r2reasoner.batching import Batches
from r2reasoner.errors import DataError
from r2reasoner.pool.cards import Card, Price
from r2reasoner.types import Call, Pico, Role, Trace, Usage

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from sqlalchemy import Connection

    from r2reasoner.database import Database
    from r2reasoner.storage import Store

Row: TypeAlias = tuple[Any, ...]

BATCH: Final = 1000
"""Most operations in one transaction, so that other processes get their turn."""
ID_DIGITS: Final = 24
DB_ENV: Final = "R2REASONER_DB"

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


def id_at(moment: float) -> str:
    """Return what is above all ids made before a Unix time, and above none made from then on."""
    return f"{max(0, int(moment * 1_000_000)):013x}"


def moment_of(identifier: str) -> float:
    """Return when an id was made (Unix seconds). Raises ValueError for one not by `new_id`."""
    if len(identifier) != ID_DIGITS:
        raise ValueError(f"{identifier!r} is no id of ours")
    return int(identifier[:13], 16) / 1_000_000


def default_db() -> str | Path:
    """Return the database that a ledger is in unless told otherwise.

    That is the file or URL in `$R2REASONER_DB`, where a password is not seen in lists of
    processes, else `default_path()`.
    """
    return os.environ.get(DB_ENV, "").strip() or default_path()


def default_path() -> Path:
    """Return the ledger's usual file: `$R2REASONER_HOME/r2reasoner.db`."""
    home = os.environ.get("R2REASONER_HOME")
    return (Path(home) if home else Path.home() / ".r2reasoner") / "r2reasoner.db"


def evaluations_path() -> Path:
    """Return where comparisons keep their calls, apart from the queries that a user asked."""
    return default_path().with_name("evaluations.db")


class Ledger:
    """One SQLite file (or a PostgreSQL database by its URL): entries and traces.

    Use `open`, and close it (or use it as a context manager, plain or async). It serves many
    tasks and threads, and several event loops one after the other, but not a forked child.
    """

    def __init__(self, store: "Store") -> None:
        self._store = store
        # Nothing here refers to the ledger, whose disappearance is what stops the thread; a rider
        # may, and then only closing it or the exit does.
        self._riders: list[Rider] = []  # none or one
        self._writer: Batches[_Operation] = Batches(
            partial(_write, store, self._riders),
            store.release,
            name="r2-ledger",
            what=f"the ledger {store.where}",
            unit="results or traces",
            most=BATCH,
            idle_s=store.heartbeat_s,
        )
        # Runs at exit too, so that what is queued is written though nobody closed the ledger.
        self._finalizer = weakref.finalize(self, _stop, self._writer, store)

    @classmethod
    def open(
        cls,
        url_or_path: str | Path | None = None,
        *,
        lease_s: float = 60.0,
        busy_timeout_s: float = 10.0,
    ) -> Self:
        """Open a ledger, and make it if it is not there. None: `default_db()`.

        `lease_s`: after how many seconds without a sign of life a process counts as dead;
        `busy_timeout_s`: how long to wait for another process's transaction.
        Raises LedgerError if it cannot be opened or is no ledger.
        """
        from r2reasoner.storage import Store

        where = default_db() if url_or_path is None else url_or_path
        return cls(Store(where, lease_s=lease_s, busy_timeout_s=busy_timeout_s))

    @classmethod
    def in_memory(cls) -> Self:
        """Open a ledger that lives in memory and dies with this object."""
        return cls.open("sqlite://")

    @property
    def where(self) -> str:
        """The file or URL of its database, never with a password."""
        return self._store.where

    @property
    def waiting(self) -> int:
        """How many operations are queued, or kept for another try."""
        return self._writer.waiting

    async def begin(self, entry: EntryOpen, wish: Any = None) -> Any:
        """Record a call before its dispatch; return when the entry is committed.

        With a wish for the rider, return what came of it; the call is recorded only if that is
        None. Raises LedgerError if it could not be recorded: then it must not be dispatched.
        """
        return await self._writer.ask(_Operation(_Kind.OPEN, self._store.open_row(entry), wish))

    def finish(self, call: Call, wish: Any = None) -> None:
        """Queue the closing of a call's entry. Raises LedgerError if the ledger is closed.

        A failing write is tried again with the next ones and reported by `flush` and `close`.
        """
        self._writer.put(_Operation(_Kind.CLOSE, self._store.close_row(call), wish))

    def save_trace(self, trace: Trace) -> None:
        """Queue a trace; one with the same id is replaced. Errors as for `finish`."""
        row = self._store.trace_row(trace, _to_json(trace))
        self._writer.put(_Operation(_Kind.TRACE, row))

    def ride_along(self, rider: "Rider") -> None:
        """Have somebody's wishes done in the transactions of this ledger from now on."""
        self._riders[:] = [rider]

    async def ask(self, wish: Any) -> Any:
        """Queue a wish for the rider alone; return what came of it. Raises LedgerError."""
        return await self._writer.ask(_Operation(_Kind.RIDE, (), wish))

    def put(self, wish: Any) -> None:
        """Queue a wish for the rider alone. Errors as for `finish`."""
        self._writer.put(_Operation(_Kind.RIDE, (), wish))

    async def flush(self) -> None:
        """Return when everything queued before is committed. Raises LedgerError if it is not."""
        await self._writer.flush()

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

    def iter_entries(
        self,
        *,
        query_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[Entry]:
        """Yield committed entries, oldest first, without holding them all.

        Those that were made from `since` up to, without, `until` (Unix seconds; None: no bound).
        Raises LedgerError.
        """
        return self._store.iter_entries(query_id, since, until)

    def totals(self, *, query_id: str | None = None) -> Totals:
        """Return the sums over all committed entries, or those of one query.

        What retention removed is in the sums over all. Raises LedgerError.
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

    def iter_trace_json(
        self, *, since: float | None = None, until: float | None = None
    ) -> Iterator[str]:
        """Yield each committed trace as one line of JSON, oldest first; times as `iter_entries`.

        Raises LedgerError.
        """
        return self._store.iter_trace_bodies(since, until)

    @property
    def database(self) -> "Database":
        """Its database, for statements of one's own over `tables.py`."""
        return self._store.database

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
    RIDE = "ride"


class _Operation(NamedTuple):
    kind: _Kind
    row: Row
    wish: Any = None


class Rider(Protocol):
    """Who writes in the ledger's transactions, so that both are done or neither is."""

    def ride(self, connection: "Connection", wishes: Sequence[Any]) -> Sequence[Any]:
        """Do what is wished, in order, and what is due; return what came of each wish.

        A transaction may be given up and begun again.
        """
        ...


def _write(store: "Store", riders: Sequence[Rider], operations: list[_Operation]) -> list[Any]:
    results: list[Any] = [None] * len(operations)
    wished = [number for number, operation in enumerate(operations) if operation.wish is not None]
    rows: dict[_Kind, list[Row]] = defaultdict(list)
    for operation in operations:
        rows[operation.kind].append(operation.row)

    def ride(connection: "Connection") -> None:
        found = riders[-1].ride(connection, [operations[number].wish for number in wished])
        for number, result in zip(wished, found, strict=True):
            results[number] = result
        rows[_Kind.OPEN][:] = [
            operation.row
            for operation, result in zip(operations, results, strict=True)
            if operation.kind is _Kind.OPEN and result is None
        ]

    first = ride if riders else None
    store.write(rows[_Kind.OPEN], rows[_Kind.CLOSE], rows[_Kind.TRACE], first)
    return results


def _stop(writer: Batches[_Operation], store: "Store") -> None:
    try:
        writer.stop()
    finally:
        store.close()


def _to_json(trace: Trace) -> str:
    """Return a trace as one line of JSON; what UTF-8 cannot hold (lone surrogates) becomes `?`."""
    import orjson

    try:
        return orjson.dumps(trace, default=_plain).decode()
    except TypeError:
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
