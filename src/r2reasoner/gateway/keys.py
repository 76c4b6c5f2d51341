"""API keys, and what each may spend: held before a call, settled after, exact across processes.

A key is shown once and kept as its SHA-256: it has 256 random bits, so nothing slower is needed.
Spending stands in counters, one row per key and day and one per month (UTC). A call is held
against both in one transaction, so that no number of gateways on one database overshoots. A hold
carries the id of its ledger entry: whatever happens to the process, what the ledger says of that
entry is what the key is charged.

All of it happens in the transactions of the ledger, in whose database the keys are: a call is held
and recorded, recorded as ended and charged, at once or not at all. The books themselves are in
`key_books.py`.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import Connection, insert, or_, select, update

from r2reasoner.errors import BudgetExceeded, ConfigError, DataError
from r2reasoner.gateway.key_books import (
    Hold,
    Key,
    KeyBooks,
    Spending,
    Statements,
    Wish,
    ended_holds,
    to_key,
    today,
)
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.tables import KEYS, clean
from r2reasoner.types import Pico, to_dollars, to_pico

__all__ = ["Hold", "Key", "Keys", "OverBudget", "OverRate", "Spending", "in_days"]

PREFIX: Final = "r2-"
SECRET_BYTES: Final = 32
MOST_NAME: Final = 100
FRESH_S: Final = 2.0
"""How long a key is taken as it was read: so late does a revocation reach other processes."""
REAP_EVERY_S: Final = 10.0
MAX_DOLLARS: Final = 1_000_000


class OverBudget(BudgetExceeded):
    """A call does not fit what is left of a key's budget; it was not dispatched."""

    left: Pico

    def __init__(self, key: Key, wanted: Pico, left: Pico) -> None:
        super().__init__(
            f"key {key.name!r}: a call may cost up to ${to_dollars(wanted):f}, but only"
            f" ${to_dollars(left):f} is left of its budget; fewer max_tokens cost less"
        )
        self.left = left


class OverRate(Exception):
    """A key has had its requests of this minute; `retry_after_s` until the next."""

    def __init__(self, key: Key, retry_after_s: int) -> None:
        super().__init__(f"key {key.name!r}: {key.per_minute} requests per minute are taken")
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Read:
    """A key as it was read at a moment (monotonic seconds)."""

    key: Key | None
    at: float = field(default_factory=time.monotonic)


class Keys:
    """The keys in a ledger's database, which ride along with that ledger.

    `open` makes one with a ledger of its own, to be closed.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._database = ledger.database
        self._say = Statements(self._database.engine)
        self._read: dict[str, _Read] = {}
        self._any: _Read | None = None
        self._reap_at = 0.0
        ledger.ride_along(self)

    @classmethod
    def open(cls, where: str | Path) -> Self:
        """Open the keys in the database of a ledger. Raises LedgerError."""
        return cls(Ledger.open(where))

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
            self._database.write(lambda connection: connection.execute(insert(KEYS).values(row)))
        except DataError:
            raise ConfigError(f"there is a key {name!r} already; take another name") from None
        self._forget()
        return key, secret

    def all(self) -> list[tuple[Key, Spending]]:
        """Return every key, oldest first, and what it spent. Raises LedgerError."""
        with self._database.reading() as connection:
            rows = connection.execute(select(KEYS).order_by(KEYS.c.id)).all()
            books = KeyBooks(connection, self._say, ())
            return [(key, books.spending(key.id)) for key in map(to_key, rows)]

    def revoke(self, name_or_id: str) -> Key:
        """Revoke a key and return it. Raises ConfigError where there is none."""

        def write(connection: Connection) -> Key:
            called = clean(name_or_id)
            chosen = or_(KEYS.c.name == called, KEYS.c.id == called)
            row = connection.execute(select(KEYS).where(chosen)).first()
            if row is None:
                raise ConfigError(f"no key {name_or_id!r}; list them: r2reasoner key list")
            if row.revoked_at is None:
                connection.execute(
                    update(KEYS).where(KEYS.c.id == row.id).values(revoked_at=time.time())
                )
            again = connection.execute(select(KEYS).where(KEYS.c.id == row.id)).one()
            return to_key(again)

        key = self._database.write(write)
        self._forget()
        return key

    async def find(self, secret: str) -> Key | None:
        """Return the key of a secret, revoked and expired ones too; None for an unknown one."""
        digest = _digest(secret)
        known = self._read.get(digest)
        if known is None or time.monotonic() - known.at > FRESH_S:
            chosen = select(KEYS).where(KEYS.c.digest == digest)
            row = await self._ask(lambda books: books.connection.execute(chosen).first())
            known = _Read(None if row is None else to_key(row))
            if known.key is not None:  # guesses must not fill the memory
                self._read[digest] = known
        return known.key

    async def exist(self) -> bool:
        """Tell whether a key was ever made, so that one is asked for."""
        known = self._any
        if known is None or (known.key is None and time.monotonic() - known.at > FRESH_S):
            row = await self._ask(lambda books: books.connection.execute(select(KEYS)).first())
            known = self._any = _Read(None if row is None else to_key(row))
        return known.key is not None

    # --- limits ---------------------------------------------------------------------------------

    async def admit(self, key: Key) -> None:
        """Count a request against the key's rate. Raises OverRate."""
        limit = key.per_minute
        if limit is None:
            return
        now = datetime.now(UTC)
        minute = now.strftime("%Y-%m-%dT%H:%M")
        counted = partial(KeyBooks.count, key_id=key.id, minute=minute, limit=limit)
        if not await self._ask(counted, key.id):
            raise OverRate(key, 60 - now.second)

    @staticmethod
    def plan_hold(key: Key, call_id: str, amount: Pico) -> Hold:
        """Return what `hold` takes and `settle` gives back."""
        return Hold(call_id, key.id, today(), amount)

    @staticmethod
    def placing(key: Key, hold: Hold, trace_id: str | None = None) -> Wish:
        """Return the wish to hold money for one call; what comes of it: None, or what is left.

        With a trace it is also recorded, in either case, whose that is.
        """
        return Wish(partial(KeyBooks.place, key=key, hold=hold, trace_id=trace_id), key.id)

    @staticmethod
    def settling(hold: Hold, cost: Pico) -> Wish:
        """Return the wish to turn a hold into what the call cost; one that is none is left so."""
        return Wish(partial(KeyBooks.settle, hold=hold, cost=cost), hold.key_id)

    async def spending(self, key: Key) -> Spending:
        """Return what a key has spent and holds."""
        found: Spending = await self._ask(partial(KeyBooks.spending, key_id=key.id), key.id)
        return found

    # --- whose trace it is ----------------------------------------------------------------------

    def record(self, key: Key, trace_id: str) -> None:
        """Queue that a trace is a key's."""
        record = partial(KeyBooks.record, trace_id=trace_id, key_id=key.id, at=time.time())
        self.ledger.put(Wish(record))

    async def owner(self, trace_id: str) -> str | None:
        """Return the id of the key that a trace is of, or None."""
        found: str | None = await self._ask(partial(KeyBooks.owner, trace_id=trace_id))
        return found

    # --- in the ledger's transactions -----------------------------------------------------------

    def ride(self, connection: Connection, wishes: Sequence[Wish]) -> list[Any]:
        """Do what is wished, and settle now and then what nobody else will."""
        now = time.monotonic()
        ended = ended_holds(connection) if now >= self._reap_at else {}
        wished = [wish.key_id for wish in wishes if wish.key_id]
        books = KeyBooks(connection, self._say, [*wished, *(hold.key_id for hold in ended)])
        for hold, cost in ended.items():
            books.settle(hold, cost)
        results = [wish.do(books) for wish in wishes]
        books.write()
        if now >= self._reap_at:
            self._reap_at = now + REAP_EVERY_S
        return results

    async def flush(self) -> None:
        """Return when everything queued before is committed. Raises LedgerError if it is not."""
        await self.ledger.flush()

    async def close(self) -> None:
        """As `close_sync`."""
        await self.ledger.close()

    def close_sync(self) -> None:
        """Close the ledger."""
        self.ledger.close_sync()

    async def _ask(self, do: Callable[[KeyBooks], Any], key_id: str | None = None) -> Any:
        return await self.ledger.ask(Wish(do, key_id))

    def _forget(self) -> None:
        self._read.clear()
        self._any = None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _limit(dollars: Decimal | None, period: str) -> Pico | None:
    if dollars is None:
        return None
    if not 0 < dollars <= MAX_DOLLARS:
        raise ConfigError(f"dollars per {period}: above 0 and at most {MAX_DOLLARS}, not {dollars}")
    return to_pico(dollars)


def in_days(days: float) -> float:
    """Return the Unix time so many days from now."""
    return (datetime.now(UTC) + timedelta(days=days)).timestamp()
