"""`r2reasoner key`: the API keys of the gateway: make, list, revoke."""

import json
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r2reasoner.cli.ask import DbOption
from r2reasoner.cli.pool import JsonOption
from r2reasoner.errors import ConfigError

if TYPE_CHECKING:
    from r2reasoner.gateway.keys import Key, Keys, Spending

app = typer.Typer(no_args_is_help=True, help="API keys of the gateway: budgets, limits, expiry.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; each name once.")],
    day: Annotated[str | None, typer.Option(help="Dollars per day (UTC).")] = None,
    month: Annotated[str | None, typer.Option(help="Dollars per month (UTC).")] = None,
    per_minute: Annotated[int | None, typer.Option(help="Requests per minute.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model it may ask for (or r2reasoner), repeatable; default: all."),
    ] = None,
    expires: Annotated[
        float | None, typer.Option(min=0.001, help="Days until it is no longer taken.")
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print its secret: it is kept nowhere, so this is the only time."""
    from r2reasoner.gateway.keys import in_days

    keys = _open(db)
    try:
        key, secret = keys.create(
            name,
            per_day=_dollars(day, "--day"),
            per_month=_dollars(month, "--month"),
            per_minute=per_minute,
            models=model or (),
            expires_at=None if expires is None else in_days(expires),
        )
    finally:
        keys.close_sync()
    if as_json:
        print(json.dumps({"id": key.id, "name": key.name, "secret": secret}))
    else:
        print(secret)
        typer.echo("This is shown once. Send it as `Authorization: Bearer …`.", err=True)


@app.command("list")
def list_keys(db: DbOption = None, as_json: JsonOption = False) -> None:
    """List keys, what each may spend and has spent. No secret is shown: none is kept."""
    from rich.console import Console
    from rich.table import Table

    keys = _open(db)
    try:
        found = keys.all()
    finally:
        keys.close_sync()
    if as_json:
        print(json.dumps([_plain(key, spending) for key, spending in found]))
        return
    table = Table("name", "state", "today", "this month", "per minute", "models", "expires", "id")
    for key, spending in found:
        table.add_row(
            key.name,
            _state(key),
            _share(spending.day_spent, key.per_day),
            _share(spending.month_spent, key.per_month),
            str(key.per_minute or "—"),
            ", ".join(key.models) or "all",
            _day(key.expires_at),
            key.id,
        )
    Console().print(table)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Name or id of the key.")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: gateways that run refuse it within seconds."""
    keys = _open(db)
    try:
        revoked = keys.revoke(key)
    finally:
        keys.close_sync()
    if as_json:
        print(json.dumps({"id": revoked.id, "name": revoked.name, "revoked": True}))
    else:
        print(f"revoked {revoked.name}")


def _open(db: str | None) -> "Keys":
    from r2reasoner.gateway.keys import Keys
    from r2reasoner.ledger import default_db

    return Keys.open(db or default_db())


def _dollars(text: str | None, flag: str) -> Decimal | None:
    if text is None:
        return None
    try:
        number = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ConfigError(f"{flag}: expected dollars, like 2.50, got {text[:80]!r}")
    return number


def _plain(key: "Key", spending: "Spending") -> dict[str, Any]:
    from r2reasoner.types import to_dollars

    def dollars(pico: int | None) -> str | None:
        return None if pico is None else f"{to_dollars(pico):f}"

    return {
        "id": key.id,
        "name": key.name,
        "state": _state(key),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "dollars_per_day": dollars(key.per_day),
        "dollars_per_month": dollars(key.per_month),
        "requests_per_minute": key.per_minute,
        "models": list(key.models),
        "spent_today": dollars(spending.day_spent),
        "spent_this_month": dollars(spending.month_spent),
        "held": dollars(spending.month_held),
    }


def _state(key: "Key") -> str:
    why = key.why_not(datetime.now(UTC).timestamp())
    return "active" if why is None else why.removeprefix("was ").removeprefix("has ")


def _day(moment: float | None) -> str:
    return "never" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"


def _share(spent: int, limit: int | None) -> str:
    from r2reasoner.bill import show_money

    return show_money(spent) + (f" of {show_money(limit)}" if limit is not None else "")
