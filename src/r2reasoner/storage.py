"""What a ledger asks of its database: its transactions, its queries, the leases of processes.

Statements that run for every call to a model are compiled once, and their rows go to the driver
as tuples.

Left out: when to write and who waits for it (`ledger.py`), and what old rows are removed
(`retention.py`).
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
    false,
    insert,
    select,
    true,
    update,
)

from r2reasoner.database import Database, Statement
from r2reasoner.errors import DataError, LedgerError
from r2reasoner.ledger import Entry, EntryOpen, Row, Totals, TraceSummary, id_at, new_id
from r2reasoner.schema import prepare
from r2reasoner.tables import (
    CLOSED_COLUMNS,
    ENTRIES,
    IS_OPEN,
    LEASES,
    TRACES,
    clean,
    close_row,
    cost_of,
    open_row,
    sums,
    to_entry,
    trace_row,
)
from r2reasoner.types import CallOutcome

PAGE: Final = 1000
"""Rows read at a time by the iterators."""


class Store:
    """The database of one ledger. `write` and `release` are for its writer thread only.

    The reading methods have their own connections and see what is committed. All raise
    LedgerError when the database cannot be used; `write` and the conversions also DataError,
    when a row is at fault.
    """

    def __init__(self, where: str | Path, *, lease_s: float, busy_timeout_s: float) -> None:
        self.database = Database(where, busy_timeout_s=busy_timeout_s)
        self.where = self.database.where
        self.heartbeat_s = lease_s / 6
        self._lease_s = lease_s
        self._lease = new_id()
        self._renew_at = 0.0
        engine = self.database.engine
        self._open_entries = Statement(insert(ENTRIES), ENTRIES.columns.keys(), engine)
        self._close_entries = Statement(
            update(ENTRIES)
            .where(ENTRIES.c.id == bindparam("entry_id"))
            .values({name: bindparam(name) for name in CLOSED_COLUMNS}),
            (*CLOSED_COLUMNS, "entry_id"),
            engine,
        )
        self._drop_traces = Statement(
            delete(TRACES).where(TRACES.c.id == bindparam("trace_id")), ("trace_id",), engine
        )
        self._save_traces = Statement(insert(TRACES), TRACES.columns.keys(), engine)
        try:
            prepare(self.database)
        except LedgerError:
            self.close()
            raise

    close_row = staticmethod(close_row)
    trace_row = staticmethod(trace_row)

    def open_row(self, entry: EntryOpen) -> Row:
        """Return the row of an open entry under this store's lease."""
        return open_row(entry, self._lease)

    # --- writing --------------------------------------------------------------------------------

    def write(
        self,
        opened: Sequence[Row],
        closed: Sequence[Row],
        traces: Sequence[Row],
        first: Callable[[Connection], None] | None = None,
    ) -> None:
        """Write rows in one transaction, with a sign of life and recovery when they are due.

        What is to be done `first` in it may still change which rows there are.
        """
        now = time.monotonic()
        renew = now >= self._renew_at
        # Whose own lease ran out calls nobody dead: the database may have been away for all.
        late = self._renew_at > 0 and now >= self._renew_at + self._lease_s
        if not (renew or opened or closed or traces or first):
            return

        def do(connection: Connection) -> None:
            if renew:
                self._renew(connection)
            if renew and not late:
                self._reap(connection)
            if first is not None:
                first(connection)
            self._open_entries.run(connection, opened)
            self._close_entries.run(connection, closed)
            self._drop_traces.run(connection, [row[:1] for row in traces])
            self._save_traces.run(connection, traces)

        self.database.write(do)
        if renew:
            self._renew_at = now + self.heartbeat_s

    def release(self) -> None:
        """Give up the lease; calls still open become `unknown`."""
        if self._renew_at:
            self.database.write(self._release)

    def recover(self) -> int:
        """Make open entries whose lease ran out `unknown`; return how many."""
        return self.database.write(self._reap)

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    def _renew(self, connection: Connection) -> None:
        now = self.database.now()
        times = {"renewed_at": now, "expires_at": now + self._lease_s}
        renewed = connection.execute(update(LEASES).where(LEASES.c.id == self._lease).values(times))
        if not renewed.rowcount:
            who = {"id": self._lease, "host": socket.gethostname(), "pid": os.getpid()}
            connection.execute(insert(LEASES).values(who | times))

    def _reap(self, connection: Connection) -> int:
        """End the calls of dead processes; a lease that another process is just ending is its."""
        expired = (LEASES.c.expires_at < self.database.now()) & (LEASES.c.id != self._lease)
        chosen = select(LEASES).where(expired).with_for_update(skip_locked=True)
        reaped = 0
        for lease in connection.execute(chosen).all():
            why = f"process {lease.pid} on {lease.host} ended during this call"
            reaped += _to_unknown(connection, lease.id, why)
            connection.execute(delete(LEASES).where(LEASES.c.id == lease.id))
        return reaped

    def _release(self, connection: Connection) -> None:
        _to_unknown(connection, self._lease, "the ledger was closed before this call was settled")
        connection.execute(delete(LEASES).where(LEASES.c.id == self._lease))

    # --- reading --------------------------------------------------------------------------------

    def entries(self, query_id: str | None, limit: int | None) -> list[Entry]:
        """Return entries, oldest first; with a limit, the newest so many."""
        chosen = select(ENTRIES).where(_of_query(query_id))
        with self.reading() as connection:
            rows = connection.execute(chosen.order_by(ENTRIES.c.id.desc()).limit(limit)).all()
        return [to_entry(row) for row in reversed(rows)]

    def iter_entries(
        self, query_id: str | None, since: float | None, until: float | None
    ) -> Iterator[Entry]:
        """Yield entries, oldest first, page by page: no transaction stays open between."""
        within = _of_query(query_id) & _between(ENTRIES.c.id, since, until)
        return map(to_entry, self._pages(select(ENTRIES).where(within), ENTRIES.c.id))

    def totals(self, query_id: str | None) -> Totals:
        """Return sums, with those of entries that were removed."""
        chosen = sums(_of_query(query_id), true() if query_id is None else false())
        outcomes = dict.fromkeys(CallOutcome, 0)
        unpriced = tokens_in = tokens_out = cost = 0
        with self.reading() as connection:
            for row in connection.execute(chosen):
                outcomes[CallOutcome(row.outcome)] += row.calls
                tokens_in += int(row.input_tokens)
                tokens_out += int(row.output_tokens)
                unpriced += row.unpriced
                cost += cost_of(row)
        return Totals(
            calls=sum(outcomes.values()),
            open=outcomes[CallOutcome.OPEN],
            failed=outcomes[CallOutcome.FAILED],
            unknown=outcomes[CallOutcome.UNKNOWN],
            unpriced=unpriced,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cost=cost,
        )

    def traces(self, limit: int | None) -> list[TraceSummary]:
        """Return what the list of traces shows, newest first."""
        columns = [column for column in TRACES.columns if column.name != "body"]
        newest = TRACES.c.started_at.desc(), TRACES.c.id.desc()
        with self.reading() as connection:
            rows = connection.execute(select(*columns).order_by(*newest).limit(limit)).all()
        return [TraceSummary(*row) for row in rows]

    def trace_body(self, prefix: str) -> tuple[str, str]:
        """Return id and JSON of the one trace whose id is, or begins with, `prefix`."""
        prefix = clean(prefix, None) or ""
        chosen = select(TRACES.c.id, TRACES.c.body)
        begins = chosen.where(TRACES.c.id.startswith(prefix, autoescape=True)).limit(5)
        with self.reading() as connection:
            rows = connection.execute(chosen.where(TRACES.c.id == prefix)).all()
            rows = rows or connection.execute(begins).all()
        if not rows:
            raise DataError(
                f"no trace {prefix!r} in {self.where}; list them: r2reasoner trace list"
            )
        if len(rows) > 1:
            some = ", ".join(row.id for row in rows)
            raise DataError(f"several traces begin with {prefix!r}: {some}; give more of the id")
        return rows[0].id, rows[0].body

    def iter_trace_bodies(self, since: float | None, until: float | None) -> Iterator[str]:
        """Yield the JSON of each trace, in the order of their ids, page by page."""
        within = _between(TRACES.c.id, since, until)
        chosen = select(TRACES.c.id, TRACES.c.body).where(within)
        return (row.body for row in self._pages(chosen, TRACES.c.id))

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a connection that sees what is committed."""
        return self.database.reading()

    def _pages(self, chosen: Select[Any], by: ColumnElement[str]) -> Iterator[Any]:
        chosen = chosen.order_by(by).limit(PAGE)
        last = ""
        while True:
            with self.reading() as connection:
                rows = connection.execute(chosen.where(by > last)).all()
            if not rows:
                return
            yield from rows
            last = rows[-1].id


def _to_unknown(connection: Connection, lease: str, why: str) -> int:
    """End the open calls of a lease at their bound; return how many there were."""
    ended = (
        update(ENTRIES)
        .where(ENTRIES.c.lease == lease, IS_OPEN)
        .values(outcome=CallOutcome.UNKNOWN.value, error=f"{why}: bound charged")
    )
    return connection.execute(ended).rowcount


def _of_query(query_id: str | None) -> ColumnElement[bool]:
    return true() if query_id is None else ENTRIES.c.query_id == clean(query_id)


def _between(
    column: ColumnElement[str], since: float | None, until: float | None
) -> ColumnElement[bool]:
    """Tell whether an id was made in a time, which ends before `until`."""
    begun = true() if since is None else column >= id_at(since)
    return begun & (true() if until is None else column < id_at(until))
