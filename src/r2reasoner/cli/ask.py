"""`r2reasoner ask`: one query, its plan as a live tree, the answer and the bill."""

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from r2reasoner.cli.pool import JsonOption, PoolOption
from r2reasoner.errors import ConfigError, R2Error

if TYPE_CHECKING:
    from r2reasoner.bill import Bill
    from r2reasoner.events import Event
    from r2reasoner.pool.cards import Pool
    from r2reasoner.telemetry.told import Timed
    from r2reasoner.types import Trace

NANO_KNOWS: Final = """\
The nano pool is a laboratory of tiny models, not an assistant. It knows
  - arithmetic with + - * and brackets on whole numbers, e.g.  r2reasoner ask "( 12 + 34 ) * 5 - 7"
  - SCAN commands, e.g.  r2reasoner ask "walk around left twice and run opposite right"
For anything else point it at real models: set a key (say OPENAI_API_KEY) or start Ollama, then
  r2reasoner init --out r2.toml  &&  r2reasoner ask --pool r2.toml "..."."""

TradeOffOption = Annotated[
    float | None,
    typer.Option("--trade-off", "-t", help="0 = quality only, 1 = cheapest."),
]
DbOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Ledger: a file, or postgresql://…; else $R2REASONER_DB, else a file in"
        " $R2REASONER_HOME (~/.r2reasoner).",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ask")(ask)


def ask(
    query: Annotated[str, typer.Argument(help="The query; `-` reads it from standard input.")],
    pool: PoolOption = None,
    trade_off: TradeOffOption = None,
    max_cost: Annotated[
        str | None, typer.Option(help="Hard cap in dollars over everything the query causes.")
    ] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds given to the query.")] = None,
    direct: Annotated[bool, typer.Option("--direct", help="Do not decompose.")] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a query: decompose, allocate, run, and show the bill."""
    from r2reasoner.bill import bill
    from r2reasoner.config import load_settings
    from r2reasoner.ledger import Ledger
    from r2reasoner.pool.load import find_pool, load_pool
    from r2reasoner.router import Router
    from r2reasoner.telemetry import open_spans
    from r2reasoner.telemetry.told import Told
    from r2reasoner.types import AnswerStatus

    loaded = load_pool(pool)
    settings = load_settings(
        find_pool(pool), trade_off=trade_off, max_cost=max_cost, deadline_s=deadline
    )
    text = _read_stdin(settings.max_query_bytes) if query == "-" else query
    with Ledger.open(db) as ledger:
        router = Router.open(loaded, settings, ledger)
        spans = open_spans(loaded)
        events: list[Timed] = []
        trace = asyncio.run(_run(router, text, events, direct=direct, quiet=as_json))
        if spans is not None:
            spans.record(Told.of(trace, events), {"traceparent": os.environ.get("TRACEPARENT", "")})
            spans.close()
    total = bill(trace, loaded)
    if as_json:
        print(json.dumps({"trace": _plain(trace), "bill": _plain(total)}, indent=2))
    else:
        _print_end(trace, total, loaded)
    if trace.answer.status is AnswerStatus.FAILED:
        raise typer.Exit(1)


def _read_stdin(most: int) -> str:
    """Return what stands on standard input; of what is too large, just enough to say so."""
    raw = sys.stdin.buffer.read(most + 1)
    try:
        return raw.decode(errors="strict" if len(raw) <= most else "replace").strip()
    except UnicodeDecodeError:
        raise ConfigError("standard input is not text; expected UTF-8") from None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(asdict(value), default=str))


async def _run(
    router: Any, text: str, events: "list[Timed]", *, direct: bool, quiet: bool
) -> "Trace":
    from rich.console import Console
    from rich.live import Live

    from r2reasoner.cli.view import PlanView
    from r2reasoner.types import Trace

    def note(event: "Event") -> None:
        events.append((time.time(), event))

    async with router:
        if quiet:
            done: Trace = await router.trace(text, direct=direct, emit=note)
            return done
        view = PlanView(text)
        trace: Trace | None = None
        console = Console()
        with Live(view, console=console, refresh_per_second=12, transient=False) as live:
            try:
                async for event in router.run(text, direct=direct, watch=note):
                    if isinstance(event, Trace):
                        trace = event
                        view.finish(trace)
                    else:
                        view.take(event)
                    live.refresh()
            except R2Error:
                live.update("", refresh=True)  # the message says all that the tree could
                raise
        if not console.is_terminal:
            console.print()  # a live tree ends without a newline there
        assert trace is not None
        return trace


def _print_end(trace: "Trace", total: "Bill", pool: "Pool") -> None:
    from rich.console import Console

    from r2reasoner.cli.view import print_answer, print_bill

    console = Console()
    print_answer(trace, console)
    print_bill(trace, total, console)
    console.print(f"[dim]trace {trace.id} · r2reasoner trace show {trace.id}[/]")
