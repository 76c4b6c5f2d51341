"""API keys, and what each may spend: held before a call, settled after, exact across processes.

A key is shown once and kept as its SHA-256: it has 256 random bits, so nothing slower is needed.
Spending stands in counters, one row per key and day and one per month (UTC). A call is held
against both in one transaction with a conditional update, so that no number of gateways on one
database overshoots. A hold carries the id of its ledger entry: whatever happens to the process,
what the ledger says of that entry is what the key is charged.

One thread per `Keys` commits whatever waits in one transaction, as the ledger's writer does.
"""

import asyncio
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, Self

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy import exc as sql_errors

from r2reasoner.errors import BudgetExceeded, ConfigError, DataError, LedgerError
from r2reasoner.ledger import new_id
from r2reasoner.storage import database_url, open_engine, writing_turn
from r2reasoner.tables import ENTRIES
from r2reasoner.tables import METADATA as LEDGER
from r2reasoner.types import CallOutcome, Pico, to_dollars, to_pico

PREFIX: Final = "r2-"
SECRET_BYTES: Final = 32
MOST_NAME: Final = 100
BATCH: Final = 256
FRESH_S: Final = 2.0
"""How long a key is taken as it was read: so late does a revocation reach other processes."""
REAP_EVERY_S: Final = 10.0
SETTLED_LATE_S: Final = 30.0
"""A hold whose entry was closed so long ago is one that its own process will not settle."""
NEVER_SENT_S: Final = 3600.0
MAX_DOLLARS: Final = 1_000_000

METADATA: Final = MetaData()
KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("per_day", BigInteger),
    Column("per_month", BigInteger),
    Column("per_minute", Integer),
    Column("models", Text, nullable=False),
)
COUNTERS: Final = Table(
    "key_counters",
    METADATA,
    Column("key_id", String(64), primary_key=True),
    Column("period", String(16), primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("requests", Integer, nullable=False),
)
HOLDS: Final = Table(
    "key_holds",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("key_id", String(64), nullable=False),
    Column("day", String(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("held_at", Float, nullable=False),
)
REQUESTS: Final = Table(
    "key_requests",
    METADATA,
    Column("trace_id", String(64), primary_key=True),
    Column("key_id", String(64), nullable=False, index=True),
    Column("at", Float, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key, without its secret. Limits in pico-dollars; None is no limit. Times: Unix seconds.

    `models` are the names that it may ask for; empty: all.
    """

    id: str
    name: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    per_day: Pico | None = None
    per_month: Pico | None = None
    per_minute: int | None = None
    models: tuple[str, ...] = ()

    @property
    def has_budget(self) -> bool:
        """True when there is a limit on what it may spend."""
        return self.per_day is not None or self.per_month is not None

    def why_not(self, now: float) -> str | None:
        """Return why it is no longer taken, or None."""
        if self.revoked_at is not None:
            return "was revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "has expired"
        return None


class Spending(NamedTuple):
    """What a key has spent and holds for calls in flight, in pico-dollars (UTC day and month)."""

    day_spent: Pico
    day_held: Pico
    month_spent: Pico
    month_held: Pico

    def left(self, key: Key) -> Pico | None:
        """Return what may still be held; None without a limit."""
        rests = []
        if key.per_day is not None:
            rests.append(key.per_day - self.day_spent - self.day_held)
        if key.per_month is not None:
            rests.append(key.per_month - self.month_spent - self.month_held)
        return min(rests, default=None)


class OverBudget(BudgetExceeded):
    """A call does not fit what is left of a key's budget; it was not dispatched."""

    def __init__(self, key: Key, wanted: Pico, left: Pico) -> None:
        super().__init__(
            f"key {key.name!r}: a call may cost up to ${to_dollars(wanted):f}, but only"
            f" ${to_dollars(left):f} is left of its budget"
        )
        self.left = left


class OverRate(Exception):
    """A key has had its requests of this minute; `retry_after_s` until the next."""

    def __init__(self, key: Key, retry_after_s: int) -> None:
        super().__init__(f"key {key.name!r}: {key.per_minute} requests per minute are taken")
        self.retry_after_s = retry_after_s


class Hold(NamedTuple):
    """Money held on a key for one call."""

    id: str
    key_id: str
    day: str
    amount: Pico


class _Wish(NamedTuple):
    """Something to do in the next transaction, and who waits for it."""

    do: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop | None
    future: "asyncio.Future[Any] | None"


@dataclass(slots=True)
class _Read:
    """A key as it was read at a moment (monotonic seconds)."""

    key: Key | None
    at: float = field(default_factory=time.monotonic)


class Keys:
    """The keys in a ledger's database. Use `open`, and close it."""

    def __init__(self, where: str | Path, *, busy_timeout_s: float = 10.0) -> None:
        url = database_url(where)
        self._engine = open_engine(url, busy_timeout_s=busy_timeout_s)
        self._writing = self._engine.execution_options(r2_writes=True)
        self._read: dict[str, _Read] = {}
        self._any: _Read | None = None
        self._queue: SimpleQueue[_Wish | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._reap_at = 0.0
        self._turn = writing_turn(url)
        self._do_now(LEDGER.create_all)
        self._do_now(METADATA.create_all)

    @classmethod
    def open(cls, where: str | Path) -> Self:
        """Open the keys in the database of a ledger. Raises LedgerError."""
        return cls(where)

    # --- keys -----------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        per_day: Decimal | None = None,
        per_month: Decimal | None = None,
        per_minute: int | None = None,
        models: Sequence[str] = (),
        expires_at: float | None = None,
    ) -> tuple[Key, str]:
        """Make a key and return it with its secret, which is kept nowhere.

        Limits in dollars. Raises ConfigError for a name that is taken or a limit out of range.
        """
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        if not name.strip() or len(name) > MOST_NAME or not name.isprintable():
            raise ConfigError(f"a key's name has 1 to {MOST_NAME} printable characters")
        if per_minute is not None and not 1 <= per_minute <= 10**6:
            raise ConfigError(f"requests per minute: from 1 to {10**6}, not {per_minute}")
        key = Key(
            id=new_id(),
            name=name,
            created_at=time.time(),
            expires_at=expires_at,
            per_day=_limit(per_day, "day"),
            per_month=_limit(per_month, "month"),
            per_minute=per_minute,
            models=tuple(models),
        )
        row = {
            "id": key.id,
            "name": key.name,
            "digest": _digest(secret),
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "per_day": key.per_day,
            "per_month": key.per_month,
            "per_minute": key.per_minute,
            "models": json.dumps(key.models),
        }
        try:
            self._do_now(lambda connection: connection.execute(insert(KEYS).values(row)))
        except DataError:
            raise ConfigError(f"there is a key {name!r} already; take another name") from None
        self._forget()
        return key, secret

    def all(self) -> list[tuple[Key, Spending]]:
        """Return every key, oldest first, and what it spent. Raises LedgerError."""

        def read(connection: Connection) -> list[tuple[Key, Spending]]:
            rows = connection.execute(select(KEYS).order_by(KEYS.c.id)).all()
            return [(key, _spending(connection, key.id)) for key in map(_to_key, rows)]

        found: list[tuple[Key, Spending]] = self._do_now(read)
        return found

    def revoke(self, name_or_id: str) -> Key:
        """Revoke a key and return it. Raises ConfigError where there is none."""

        def write(connection: Connection) -> Key:
            chosen = or_(KEYS.c.name == name_or_id, KEYS.c.id == name_or_id)
            row = connection.execute(select(KEYS).where(chosen)).first()
            if row is None:
                raise ConfigError(f"no key {name_or_id!r}; list them: r2reasoner key list")
            if row.revoked_at is None:
                connection.execute(
                    update(KEYS).where(KEYS.c.id == row.id).values(revoked_at=time.time())
                )
            again = connection.execute(select(KEYS).where(KEYS.c.id == row.id)).one()
            return _to_key(again)

        key: Key = self._do_now(write)
        self._forget()
        return key

    async def find(self, secret: str) -> Key | None:
        """Return the key of a secret, revoked and expired ones too; None for an unknown one."""
        digest = _digest(secret)
        known = self._read.get(digest)
        if known is None or time.monotonic() - known.at > FRESH_S:
            chosen = select(KEYS).where(KEYS.c.digest == digest)
            row = await self._ask(lambda connection: connection.execute(chosen).first())
            known = _Read(None if row is None else _to_key(row))
            if known.key is not None:  # guesses must not fill the memory
                self._read[digest] = known
        return known.key

    async def exist(self) -> bool:
        """Tell whether a key was ever made, so that one is asked for."""
        known = self._any
        if known is None or (known.key is None and time.monotonic() - known.at > FRESH_S):
            row = await self._ask(lambda connection: connection.execute(select(KEYS)).first())
            known = self._any = _Read(None if row is None else _to_key(row))
        return known.key is not None

    # --- limits ---------------------------------------------------------------------------------

    async def admit(self, key: Key) -> None:
        """Count a request against the key's rate. Raises OverRate."""
        limit = key.per_minute
        if limit is None:
            return
        now = datetime.now(UTC)
        minute = now.strftime("%Y-%m-%dT%H:%M")
        fits = COUNTERS.c.requests < limit

        def count(connection: Connection) -> bool:
            _ensure(connection, key.id, minute)
            return _change(connection, key.id, minute, fits, requests=COUNTERS.c.requests + 1)

        if not await self._ask(count):
            raise OverRate(key, 60 - now.second)

    @staticmethod
    def plan_hold(key: Key, call_id: str, amount: Pico) -> Hold:
        """Return what `hold` takes and `settle` gives back."""
        return Hold(call_id, key.id, _today(), amount)

    async def hold(self, key: Key, hold: Hold) -> None:
        """Hold money for one call. Raises OverBudget where it does not fit, and LedgerError.

        Who leaves off waiting settles all the same: what is queued first is done first.
        """
        left = await self._ask(partial(_place, key, hold))
        if left is not None:
            raise OverBudget(key, hold.amount, left)

    def note(self, key: Key, hold: Hold) -> None:
        """Queue a hold of a key without a budget: it fits in any case, so nobody waits for it."""
        self._put(_Wish(partial(_place, key, hold), None, None))

    def settle(self, hold: Hold, cost: Pico) -> None:
        """Queue the turning of a hold into what the call cost; one that is none changes nothing."""
        self._put(_Wish(lambda connection: _settle(connection, hold, cost), None, None))

    async def spending(self, key: Key) -> Spending:
        """Return what a key has spent and holds."""
        found: Spending = await self._ask(lambda connection: _spending(connection, key.id))
        return found

    # --- whose trace it is ----------------------------------------------------------------------

    def record(self, key: Key, trace_id: str) -> None:
        """Queue that a trace is a key's."""
        row = {"trace_id": trace_id, "key_id": key.id, "at": time.time()}
        self._put(_Wish(lambda c: c.execute(insert(REQUESTS).values(row)), None, None))

    async def owner(self, trace_id: str) -> str | None:
        """Return the id of the key that a trace is of, or None."""
        chosen = select(REQUESTS.c.key_id).where(REQUESTS.c.trace_id == trace_id)
        found: str | None = await self._ask(lambda c: c.execute(chosen).scalar())
        return found

    # --- the thread -----------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return when everything queued before is committed."""
        await self._ask(lambda connection: None)

    async def close(self) -> None:
        """As `close_sync`."""
        await asyncio.to_thread(self.close_sync)

    def close_sync(self) -> None:
        """Write what is queued, end the thread, close the database."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        self._engine.dispose()

    async def _ask(self, do: Callable[[Connection], Any]) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._put(_Wish(do, loop, future))
        return await future

    def _put(self, wish: _Wish) -> None:
        with self._lock:
            if self._closed:
                raise LedgerError("the keys are closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="r2-keys", daemon=True)
                self._thread.start()
            self._queue.put(wish)

    def _run(self) -> None:
        last = False
        while not last:
            wishes, last = self._gather()
            try:
                answers = self._do_now(partial(self._do_all, wishes))
            except (LedgerError, DataError) as error:
                if len(wishes) > 1:  # so that only the one at fault fails
                    for wish in wishes:
                        self._alone(wish)
                    continue
                answers = [error] * len(wishes)
            for wish, answer in zip(wishes, answers, strict=True):
                _tell(wish, answer)

    def _alone(self, wish: _Wish) -> None:
        try:
            _tell(wish, self._do_now(wish.do))
        except (LedgerError, DataError) as error:
            _tell(wish, error)

    def _gather(self) -> tuple[list[_Wish], bool]:
        """Return what waits, and whether nothing will come after it."""
        try:
            first = self._queue.get(timeout=REAP_EVERY_S)
        except Empty:
            return [], False
        wishes = []
        while first is not None:
            wishes.append(first)
            if len(wishes) == BATCH or self._queue.empty():
                return wishes, False
            first = self._queue.get()
        return wishes, True

    def _do_all(self, wishes: list[_Wish], connection: Connection) -> list[Any]:
        if time.monotonic() >= self._reap_at:
            _reap(connection)
            self._reap_at = time.monotonic() + REAP_EVERY_S
        return [wish.do(connection) for wish in wishes]

    def _do_now(self, do: Callable[[Connection], Any]) -> Any:
        try:
            with self._turn, self._writing.begin() as connection:
                return do(connection)
        except sql_errors.IntegrityError as error:
            raise DataError(f"the keys' database refuses a row: {error.orig}") from error
        except sql_errors.SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).split("\n", 1)[0][:200]
            raise LedgerError(f"cannot use the keys' database: {reason}") from error

    def _forget(self) -> None:
        self._read.clear()
        self._any = None


def _tell(wish: _Wish, answer: Any) -> None:
    if wish.loop is None or wish.future is None:
        return
    future = wish.future

    def resolve() -> None:
        if future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    if not wish.loop.is_closed():
        wish.loop.call_soon_threadsafe(resolve)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _limit(dollars: Decimal | None, period: str) -> Pico | None:
    if dollars is None:
        return None
    if not 0 < dollars <= MAX_DOLLARS:
        raise ConfigError(f"dollars per {period}: above 0 and at most {MAX_DOLLARS}, not {dollars}")
    return to_pico(dollars)


def _to_key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        per_day=row.per_day,
        per_month=row.per_month,
        per_minute=row.per_minute,
        models=tuple(json.loads(row.models)),
    )


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _periods(day: str) -> tuple[str, str]:
    """Return the day and its month."""
    return day, day[:7]


def _ensure(connection: Connection, key_id: str, period: str) -> None:
    where = (COUNTERS.c.key_id == key_id) & (COUNTERS.c.period == period)
    if connection.execute(select(COUNTERS.c.period).where(where)).first() is None:
        row = {"key_id": key_id, "period": period, "spent": 0, "held": 0, "requests": 0}
        connection.execute(insert(COUNTERS).values(row))


def _change(
    connection: Connection, key_id: str, period: str, condition: Any, **values: Any
) -> bool:
    """Change a counter if a condition on it holds; tell whether it did."""
    change = update(COUNTERS).where(COUNTERS.c.key_id == key_id, COUNTERS.c.period == period)
    if condition is not None:
        change = change.where(condition)
    return bool(connection.execute(change.values(**values)).rowcount)


def _place(key: Key, hold: Hold, connection: Connection) -> Pico | None:
    """Hold money; return what is left where it does not fit, and hold nothing."""
    amount = hold.amount
    done: list[str] = []
    for period, limit in zip(_periods(hold.day), (key.per_day, key.per_month), strict=True):
        _ensure(connection, key.id, period)
        fits = None if limit is None else COUNTERS.c.spent + COUNTERS.c.held + amount <= limit
        if not _change(connection, key.id, period, fits, held=COUNTERS.c.held + amount):
            for taken in done:
                _change(connection, key.id, taken, None, held=COUNTERS.c.held - amount)
            return _spending(connection, key.id, hold.day).left(key)
        done.append(period)
    connection.execute(insert(HOLDS).values(**hold._asdict(), held_at=time.time()))
    return None


def _settle(connection: Connection, hold: Hold, cost: Pico) -> None:
    """Charge what a call cost, unless that was done: then the hold is gone."""
    if not connection.execute(delete(HOLDS).where(HOLDS.c.id == hold.id)).rowcount:
        return
    for period in _periods(hold.day):
        _change(
            connection,
            hold.key_id,
            period,
            None,
            held=COUNTERS.c.held - hold.amount,
            spent=COUNTERS.c.spent + cost,
        )


def _reap(connection: Connection) -> None:
    """Settle holds that no process will settle any more, by what the ledger says of their calls."""
    now = time.time()
    late = HOLDS.c.held_at < now - SETTLED_LATE_S
    joined = select(HOLDS, ENTRIES.c.outcome, ENTRIES.c.cost, ENTRIES.c.latency_s).select_from(
        HOLDS.outerjoin(ENTRIES, HOLDS.c.id == ENTRIES.c.id)
    )
    for row in connection.execute(joined.where(late)).all():
        hold = Hold(row.id, row.key_id, row.day, row.amount)
        if row.outcome is None:
            if row.held_at < now - NEVER_SENT_S:
                _settle(connection, hold, 0)
        elif row.outcome != CallOutcome.OPEN and (
            row.outcome == CallOutcome.UNKNOWN or row.held_at + row.latency_s < now - SETTLED_LATE_S
        ):
            _settle(connection, hold, hold.amount if row.cost is None else row.cost)


def _spending(connection: Connection, key_id: str, day: str | None = None) -> Spending:
    day, month = _periods(day or _today())
    chosen = select(COUNTERS).where(
        COUNTERS.c.key_id == key_id, COUNTERS.c.period.in_((day, month))
    )
    rows = {row.period: row for row in connection.execute(chosen).all()}
    numbers = [(rows[p].spent, rows[p].held) if p in rows else (0, 0) for p in (day, month)]
    return Spending(*numbers[0], *numbers[1])


def in_days(days: float) -> float:
    """Return the Unix time so many days from now."""
    return (datetime.now(UTC) + timedelta(days=days)).timestamp()
