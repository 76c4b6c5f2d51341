"""Keys and their budgets: a list, making one (its secret is shown once), revoking one."""

import time
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from r2reasoner.config import did_you_mean
from r2reasoner.errors import ConfigError
from r2reasoner.gateway.dashboard.web import Desk, go
from r2reasoner.gateway.keys import Key, Spending, in_days
from r2reasoner.gateway.routing import ROUTER
from r2reasoner.pool.cards import Pool
from r2reasoner.types import Pico

MOST_DAYS: Final = 36_500


class KeyLine:
    """A key, what it spent, and how full its budgets are (0 to 1; None: no limit)."""

    def __init__(self, key: Key, spending: Spending, now: float) -> None:
        self.key = key
        self.spending = spending
        self.state = key.why_not(now) or "active"
        self.day_share = _share(spending.day_spent + spending.day_held, key.per_day)
        self.month_share = _share(spending.month_spent + spending.month_held, key.per_month)


def page(desk: Desk, request: Request) -> Response:
    """Return the list of keys."""
    return _list(desk, request)


async def create(desk: Desk, request: Request, form: Mapping[str, str]) -> Response:
    """Make a key and show its secret, this once."""
    return await run_in_threadpool(_create, desk, request, form)


def _create(desk: Desk, request: Request, form: Mapping[str, str]) -> Response:
    try:
        key, secret = desk.gateway.keys.create(
            form.get("name", "").strip(),
            per_day=_amount(form, "per_day", "dollars"),
            per_month=_amount(form, "per_month", "dollars"),
            per_minute=_rate(form),
            models=_models(form, desk.gateway.pool),
            expires_at=_expiry(form),
        )
    except ConfigError as error:
        return _list(desk, request, status=400, trouble=str(error), form=form)
    return _list(desk, request, made=key, secret=secret)


async def revoke(desk: Desk, request: Request, form: Mapping[str, str]) -> Response:
    """Revoke a key."""
    await run_in_threadpool(lambda: desk.gateway.keys.revoke(form.get("id", "")))
    return go("/keys")


def _list(
    desk: Desk,
    request: Request,
    *,
    status: int = 200,
    trouble: str = "",
    form: Mapping[str, str] | None = None,
    made: Key | None = None,
    secret: str = "",
) -> Response:
    now = time.time()
    lines = [KeyLine(key, spending, now) for key, spending in desk.gateway.keys.all()]
    return desk.page(
        request,
        "keys.html",
        status=status,
        trouble=trouble,
        form=dict(form or {}),
        lines=sorted(lines, key=lambda line: (line.state != "active", line.key.name)),
        made=made,
        secret=secret,
        names=[ROUTER, *(card.name for card in desk.gateway.pool.workers)],
    )


def _models(form: Mapping[str, str], pool: Pool) -> tuple[str, ...]:
    names = tuple(form.get("models", "").replace(",", " ").split())
    known = {ROUTER, *(card.name for card in pool.workers)}
    for name in names:
        if name not in known:
            raise ConfigError(f"models: no {name[:40]!r} here{did_you_mean(name, known)}")
    return names


def _rate(form: Mapping[str, str]) -> int | None:
    rate = _amount(form, "per_minute", "a whole number of requests")
    if rate is not None and rate != int(rate):
        raise ConfigError(f"per_minute: expected a whole number of requests, not {rate}")
    return None if rate is None else int(rate)


def _expiry(form: Mapping[str, str]) -> float | None:
    days = _amount(form, "expires", "days from now")
    if days is not None and not 0 < days <= MOST_DAYS:
        raise ConfigError(f"expires: above 0 and at most {MOST_DAYS:,} days")
    return None if days is None else in_days(float(days))


def _amount(form: Mapping[str, str], name: str, what: str) -> Decimal | None:
    text = form.get(name, "").strip().removeprefix("$")
    if not text:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise ConfigError(f"{name}: expected {what}, not {text[:40]!r}")
    return amount


def _share(spent: Pico, limit: Pico | None) -> float | None:
    return None if limit is None else min(1.0, spent / limit) if limit else 1.0
