"""What is too old is removed: traces (prompts and answers) and settled calls; their sums stay.

It is done in small transactions with rests between them, so that writers wait for moments only.
An open call and one that a key still holds money for are never removed, nor what keys have spent.
How many calls and traces there were on a day, and what they came to, is kept in two small tables,
so that no sum changes.

Ids sort by time, so what is old is a range of primary keys.
"""

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, exists, func, select

from r2reasoner.database import Database, insertion
from r2reasoner.errors import DataError, LedgerError
from r2reasoner.ledger import id_at, moment_of
from r2reasoner.tables import (
    COUNTERS,
    DAILY_CALLS,
    DAILY_TRACES,
    ENTRIES,
    HOLDS,
    LEASES,
    PART,
    REQUESTS,
    TRACES,
)
from r2reasoner.types import CallOutcome

LOG: Final = logging.getLogger(__name__)
DAY_S: Final = 86_400.0
EVERY_S: Final = 3600.0
BATCH: Final = 100
TURN: Final = "retention"
"""The lease of the process whose turn it is."""


class Removed(NamedTuple):
    """How many traces and calls were removed, or would be."""

    traces: int
    calls: int


def prune(
    database: Database,
    before: float,
    *,
    traces_only: bool = False,
    ended: threading.Event | None = None,
) -> Removed:
    """Remove what was made before a Unix time, or leave off where `ended` is set meanwhile.

    Raises LedgerError; what was removed by then stays so.
    """
    cut = id_at(before)
    repeat = partial(_repeat, database, ended or threading.Event())
    traces = repeat(partial(_drop_traces, cut))
    repeat(partial(_drop, REQUESTS, REQUESTS.c.trace_id < cut))
    repeat(partial(_drop, COUNTERS, _is_past_minute(before)))
    return Removed(traces, 0 if traces_only else repeat(partial(_drop_calls, cut)))


def count(database: Database, before: float, *, traces_only: bool = False) -> Removed:
    """Return what `prune` would remove. Raises LedgerError."""
    cut = id_at(before)
    with database.reading() as connection:
        traces = _count(connection, TRACES, TRACES.c.id < cut)
        return Removed(traces, 0 if traces_only else _count(connection, ENTRIES, _settled(cut)))


def take_turn(database: Database, every_s: float) -> bool:
    """Tell whether it is this process's turn: one process gets it in so many seconds.

    Raises LedgerError.
    """
    now = database.now()
    times = {"renewed_at": now, "expires_at": now + every_s}
    who = {"id": TURN, "host": socket.gethostname(), "pid": os.getpid()}

    def take(connection: Connection) -> bool:
        new = insertion(connection.dialect.name, LEASES).values(who | times)
        taken = new.on_conflict_do_update(
            index_elements=[LEASES.c.id], set_=who | times, where=LEASES.c.expires_at < now
        )
        result = connection.execute(taken.execution_options(preserve_rowcount=True))
        return bool(result.rowcount)

    return database.write(take)


@contextmanager
def keep(database: Database, *, days: int | None) -> Iterator[None]:
    """Remove what is older, once an hour while the block runs; None: nothing is.

    It is done by a thread of one process of those on a database, which logs what it did and what
    went wrong.
    """
    if days is None:
        yield
        return
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            _take_turn_and_prune(database, days, ended)
            ended.wait(EVERY_S)

    thread = threading.Thread(target=work, name="r2-retention", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _take_turn_and_prune(database: Database, days: int, ended: threading.Event) -> None:
    try:
        if take_turn(database, EVERY_S):
            removed = prune(database, time.time() - days * DAY_S, ended=ended)
            LOG.info("removed %d traces and %d calls", *removed)
    except (LedgerError, DataError) as error:
        LOG.warning("%s", error)


def _repeat(database: Database, ended: threading.Event, drop: Callable[[Connection], int]) -> int:
    """Run transactions until one finds less than a batch; let others write as long as each took."""
    done = 0
    while True:
        begun = time.monotonic()
        dropped = database.write(drop)
        done += dropped
        if dropped < BATCH or ended.wait(time.monotonic() - begun):
            return done


def _drop_traces(cut: str, connection: Connection) -> int:
    rows = _take(connection, TRACES, [TRACES.c.id, TRACES.c.started_at], TRACES.c.id < cut)
    days = Counter(map(_day, rows))
    _add_up(connection, DAILY_TRACES, [{"day": d, "traces": n} for d, n in days.items()])
    return len(rows)


def _drop_calls(cut: str, connection: Connection) -> int:
    c = ENTRIES.c
    columns = [c.id, c.started_at, c.model, c.role, c.outcome]
    rows = _take(
        connection, ENTRIES, [*columns, c.input_tokens, c.output_tokens, c.cost], _settled(cut)
    )
    sums: dict[tuple[str, ...], Counter[str]] = {}
    for row in rows:
        its = sums.setdefault((_day(row), row.model, row.role, row.outcome), Counter())
        its["calls"] += 1
        its["unpriced"] += row.cost is None
        its["input_tokens"] += row.input_tokens
        its["output_tokens"] += row.output_tokens
        its["whole"] += (row.cost or 0) // PART
        its["rest"] += (row.cost or 0) % PART
    by = "day", "model", "role", "outcome"
    # In order, so that of two who remove at once neither waits for what the other waits for.
    found = [dict(zip(by, key, strict=True)) | dict(its) for key, its in sorted(sums.items())]
    _add_up(connection, DAILY_CALLS, found)
    return len(rows)


def _drop(table: Table, old: ColumnElement[bool], connection: Connection) -> int:
    return len(_take(connection, table, list(table.primary_key), old))


def _take(
    connection: Connection, table: Table, columns: list[Any], old: ColumnElement[bool]
) -> list[Any]:
    """Remove the first rows that are old and nobody else is just changing; return them."""
    keys = list(table.primary_key)
    chosen = select(*columns).where(old).order_by(*keys).limit(BATCH)
    rows = list(connection.execute(chosen.with_for_update(skip_locked=True)))
    if rows:
        one = delete(table).where(*(key == bindparam(f"of_{key.name}") for key in keys))
        names = [key.name for key in keys]
        connection.execute(one, [{f"of_{n}": getattr(row, n) for n in names} for row in rows])
    return rows


def _add_up(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Add rows to those of a table of sums that have the same key."""
    if not rows:
        return
    new = insertion(connection.dialect.name, table)
    keys = list(table.primary_key)
    sums = {c.name: c + new.excluded[c.name] for c in table.columns if not c.primary_key}
    connection.execute(new.on_conflict_do_update(index_elements=keys, set_=sums), rows)


def _settled(cut: str) -> ColumnElement[bool]:
    held = exists().where(HOLDS.c.id == ENTRIES.c.id)
    return (ENTRIES.c.id < cut) & (ENTRIES.c.outcome != CallOutcome.OPEN.value) & ~held


def _is_past_minute(before: float) -> ColumnElement[bool]:
    """Tell which counters only counted the requests of a minute."""
    minute = datetime.fromtimestamp(before, UTC).strftime("%Y-%m-%dT%H:%M")
    return (func.length(COUNTERS.c.period) == len(minute)) & (COUNTERS.c.period < minute)


def _day(row: Any) -> str:
    """Return the day (UTC) that a row was made on."""
    try:
        moment = moment_of(row.id)
    except ValueError:
        moment = row.started_at  # its id is somebody else's
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _count(connection: Connection, table: Table, old: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(table).where(old)).scalar_one()
