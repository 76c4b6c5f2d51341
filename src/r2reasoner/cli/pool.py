"""Commands about the model pool: `show` what it holds, `check` that it answers, `init` one.

`check` sends one short request to every model, recorded in the ledger like any other call.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import uuid4

import typer

if TYPE_CHECKING:
    from r2reasoner.budget import Meter
    from r2reasoner.capabilities import Found
    from r2reasoner.client import RelayingClient
    from r2reasoner.client.base import Client
    from r2reasoner.pool.cards import Card, Pool, Price
    from r2reasoner.pool.discover import Source
    from r2reasoner.types import Pico

app = typer.Typer(no_args_is_help=True, help="Look at the model pool and check that it answers.")

CHECK_MAX_TOKENS: Final = 64
# Words that every nano model knows; any other model answers them as well.
CHECK_TEXT: Final = "walk left"

PoolOption = Annotated[
    str | None,
    typer.Option(
        "--pool",
        "-p",
        help="A shipped pool (nano, paper) or a pool file; else $R2REASONER_POOL, else nano.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass(frozen=True, slots=True)
class Reached:
    """What a short request to a model came to. `latency_s` is seconds; `error` None is success.

    `can` is what it can do beyond text, None where it was not asked.
    """

    card: "Card"
    latency_s: float | None
    cost: "Pico | None"
    error: str | None
    note: str | None = None
    can: "Mapping[str, Found] | None" = None


@app.command()
def show(pool: PoolOption = None, as_json: JsonOption = False) -> None:
    """Show the models of a pool, their prices and where the prices come from."""
    from r2reasoner.pool.load import load_pool

    loaded = load_pool(pool)
    if as_json:
        print(json.dumps(_pool_document(loaded), indent=2))
        return
    _print_table(
        f"pool {loaded.name} ({loaded.source})",
        ("model", "role", "group", "endpoint", "$/M in", "$/M out", "price from"),
        [
            (
                card.name,
                _role(loaded, card),
                card.group or "",
                card.endpoint.name,
                *_price_cells(card.price),
            )
            for card in _cards(loaded)
        ],
    )
    print(f"decomposer: {loaded.decomposer}   allocator: {loaded.allocator}")


@app.command()
def check(
    pool: PoolOption = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=600, help="Seconds given to each model.")
    ] = 60.0,
    capabilities: Annotated[
        bool,
        typer.Option(
            "--capabilities", help="Also ask chat models for tools, images, JSON, several answers."
        ),
    ] = False,
    max_cost: Annotated[
        str | None, typer.Option(help="Hard cap in dollars over all that it sends.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send one short request to every model; exit code 1 if any does not answer.

    With --capabilities four more to each chat model, to see what the gateway may ask it for, and
    the line that says so in the pool file.
    """
    import asyncio

    from r2reasoner.config import settings
    from r2reasoner.pool.load import load_pool

    loaded = load_pool(pool)
    cap = settings(max_cost=max_cost).cap
    reached = asyncio.run(_check(loaded, timeout, cap, capabilities=capabilities))
    good = all(result.error is None for result in reached)
    if as_json:
        document = {
            "pool": loaded.name,
            "reachable": good,
            "models": [_reached_document(result) for result in reached],
        }
        print(json.dumps(document, indent=2))
    else:
        _print_table(
            f"pool {loaded.name} ({loaded.source})",
            ("model", "endpoint", "answers", "latency", "$/M in", "$/M out", "price from"),
            [_reached_cells(result) for result in reached],
        )
        if capabilities:
            _print_capabilities(reached)
    if not good:
        raise typer.Exit(1)


def init(
    out: Annotated[Path, typer.Option("--out", help="The pool file to write.")] = Path("r2.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    local: Annotated[
        list[str] | None,
        typer.Option(
            help="Ask this server on this machine (http://HOST:PORT/v1), not the usual ports."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a pool file of what is at hand: provider keys, model servers on this machine."""
    import asyncio

    from r2reasoner.errors import ConfigError
    from r2reasoner.files import write_whole
    from r2reasoner.pool.discover import LOCAL_SERVERS, find_sources, local_server
    from r2reasoner.pool.draft import pool_text

    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another --out, or --force to replace it")
    asked = {server.name: server for server in map(local_server, local or ())}
    servers = tuple(asked.values()) or LOCAL_SERVERS
    sources = asyncio.run(find_sources(os.environ, servers))
    text = pool_text(sources, out.stem.strip() or "mine") if sources else _nano_text()
    write_whole(out, text, replace=force)
    if as_json:
        found = [_source_document(source) for source in sources]
        print(json.dumps({"written": str(out), "found": found}, indent=2))
    elif sources:
        for source in sources:
            how = f"key in {source.key_env}" if source.key_env else "on this machine"
            names = ", ".join(listed.model for listed in source.models)
            print(f"found {source.name} ({source.base_url}, {how}): {names}")
        print(f"wrote {out}; now: r2reasoner pool check --pool {out}")
    else:
        _print_nothing_found([server.base_url for server in servers], out)


async def _check(
    pool: "Pool", timeout_s: float, cap: "Pico | None", *, capabilities: bool
) -> "list[Reached]":
    import asyncio

    from r2reasoner.budget import Meter
    from r2reasoner.client import PoolClient
    from r2reasoner.ledger import Ledger

    ledger = Ledger.open()
    client = PoolClient()
    try:
        meter = Meter(ledger, f"check-{uuid4().hex}", cap)
        reached = await asyncio.gather(
            *(_reach(client, card, meter, timeout_s) for card in _cards(pool))
        )
        if not capabilities:
            return reached
        return await asyncio.gather(*(_probed(client, r, meter, timeout_s) for r in reached))
    finally:
        await client.close()
        await ledger.close()


async def _reach(client: "Client", card: "Card", meter: "Meter", timeout_s: float) -> Reached:
    from r2reasoner.client.base import ChatRequest
    from r2reasoner.errors import CallError, CallFault, R2Error
    from r2reasoner.types import Message, Role

    request = ChatRequest(
        messages=(Message("user", CHECK_TEXT),),
        max_tokens=min(CHECK_MAX_TOKENS, card.max_tokens),
        role=Role.CHECK,
    )
    started = time.monotonic()
    try:
        completion = await client.complete(card, request, meter, started + timeout_s)
    except R2Error as error:
        latency_s = time.monotonic() - started
        if isinstance(error, CallError) and error.fault is CallFault.EMPTY:
            # A thinking model may spend the few tokens of a check before it says a word.
            return Reached(card, latency_s, None, None, "answered without text")
        return Reached(card, None, None, str(error))
    return Reached(card, completion.latency_s, completion.cost, None)


async def _probed(
    client: "RelayingClient", reached: Reached, meter: "Meter", timeout_s: float
) -> Reached:
    from r2reasoner.capabilities import can_be_probed, probe

    if reached.error is not None or not can_be_probed(reached.card):
        return reached
    return replace(
        reached, can=await probe(client, reached.card, meter, time.monotonic() + timeout_s)
    )


def _cards(pool: "Pool") -> "list[Card]":
    return [*pool.workers, *pool.policies.values()]


def _role(pool: "Pool", card: "Card") -> str:
    return "policy" if card.name in pool.policies else "worker"


def _price_cells(price: "Price | None") -> tuple[str, str, str]:
    if price is None:
        return ("unknown", "unknown", "")
    more = "" if not price.tiers else f"; more beyond {price.tiers[0].above} tokens"
    return (f"{price.input:f}", f"{price.output:f}", price.source + more)


def _reached_cells(result: Reached) -> tuple[str, ...]:
    latency = "" if result.latency_s is None else f"{result.latency_s * 1000:.0f} ms"
    answers = result.error or result.note or "yes"
    card = result.card
    return (card.name, card.endpoint.name, answers, latency, *_price_cells(card.price))


def _price_document(price: "Price | None") -> dict[str, Any] | None:
    if price is None:
        return None
    return {
        "input": str(price.input),
        "output": str(price.output),
        "cached": None if price.cached is None else str(price.cached),
        "source": price.source,
        "tiers": [
            {
                "above": tier.above,
                "input": str(tier.input),
                "output": str(tier.output),
                "cached": None if tier.cached is None else str(tier.cached),
            }
            for tier in price.tiers
        ],
    }


def _card_document(card: "Card") -> dict[str, Any]:
    return {
        "name": card.name,
        "group": card.group,
        "endpoint": card.endpoint.name,
        "model": card.model,
        "context": card.context,
        "max_tokens": card.max_tokens,
        "price": _price_document(card.price),
    }


def _pool_document(pool: "Pool") -> dict[str, Any]:
    return {
        "pool": pool.name,
        "source": str(pool.source),
        "decomposer": pool.decomposer,
        "allocator": pool.allocator,
        "outcomes": None if pool.outcomes is None else str(pool.outcomes),
        "workers": [_card_document(card) for card in pool.workers],
        "policies": [_card_document(card) for card in pool.policies.values()],
    }


def _reached_document(result: Reached) -> dict[str, Any]:
    return {
        **_card_document(result.card),
        "reachable": result.error is None,
        "latency_s": result.latency_s,
        "cost_pico": result.cost,
        "error": result.error,
        "note": result.note,
        "capabilities": None if result.can is None else _can_document(result.can),
    }


def _can_document(can: "Mapping[str, Found]") -> dict[str, Any]:
    return {name: found._asdict() for name, found in can.items()}


def _print_capabilities(reached: Sequence[Reached]) -> None:
    from r2reasoner.capabilities import CAPABILITIES, line

    said = {True: "yes", False: "no", None: "?"}
    asked = [(result.card, result.can) for result in reached if result.can is not None]
    _print_table(
        "what the gateway may ask them for",
        ("model", *CAPABILITIES, "line of the pool file"),
        [
            (card.name, *(said[can[name].can] for name in CAPABILITIES), line(card, can))
            for card, can in asked
        ],
    )
    for card, can in asked:
        for name, found in can.items():
            if found.can is None:
                print(f"{card.name}: {name} not found out: {found.why}")


def _source_document(source: "Source") -> dict[str, Any]:
    return {
        "name": source.name,
        "base_url": source.base_url,
        "key_env": source.key_env,
        "models": [listed.model for listed in source.models],
    }


def _nano_text() -> str:
    """Return the nano pool's file, its relative paths made absolute."""
    from r2reasoner.pool.load import PACKAGE, find_pool

    text = find_pool("nano").read_text(encoding="utf-8")
    return text.replace('= "nano/', f'= "{PACKAGE.as_posix()}/nano/')


def _print_nothing_found(urls: Sequence[str], out: Path) -> None:
    from r2reasoner.pool.discover import PROVIDERS

    print("found no provider key and no model server")
    print("  keys looked for: " + ", ".join(p.key_env for p in PROVIDERS if p.key_env))
    print("  servers asked:   " + ", ".join(urls))
    print(f"wrote the nano pool, which needs neither, to {out}: edit it, or run init again")


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        numeric = column == "latency" or column.startswith("$")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Names and errors come from outside: as Text they cannot act as markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    Console().print(table)
