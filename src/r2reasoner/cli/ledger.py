"""`r2reasoner ledger`: which models were called, what that cost, and the books as a file.

Also what both reading commands (`ledger`, `trace`) share: finding the ledger,
foreign text on a terminal, and files that are written whole or not at all.
"""

import csv
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from r2reasoner.cli.pool import JsonOption
from r2reasoner.errors import ConfigError
from r2reasoner.files import write_whole

if TYPE_CHECKING:
    from decimal import Decimal

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from r2reasoner.ledger import Entry, Ledger, Totals
    from r2reasoner.pool.cards import Price

app = typer.Typer(help="Show or export every call to a model and its cost.", no_args_is_help=True)

Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="PATH",
        help="Ledger file or database URL, instead of the one in $R2REASONER_HOME.",
    ),
]
OneQuery = Annotated[
    str | None, typer.Option("--query", metavar="ID", help="Only the calls of this query.")
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.")]


TITLES: Final = (
    "time", "role", "model", "subtask", "try", "outcome", "in", "out", "cost", "s", "remark",
)  # fmt: skip
NUMBERS: Final = frozenset({"subtask", "try", "in", "out", "cost", "s"})


class Format(StrEnum):
    """What an export may be."""

    JSONL = "jsonl"
    CSV = "csv"


@app.command()
def show(
    query: OneQuery = None,
    limit: Annotated[int, typer.Option(min=1, help="Most entries to show, newest kept.")] = 50,
    as_json: JsonOption = False,
    db: Database = None,
) -> None:
    """Show the calls to models, and the sums over all of them."""
    with open_existing(db) as ledger:
        entries = ledger.entries(query_id=query, limit=limit)
        totals = ledger.totals(query_id=query)
    if as_json:
        sums = totals._asdict() | {"cost_pico": totals.cost, "cost_dollars": exact(totals.cost)}
        del sums["cost"]
        print_json({"entries": [record(entry) for entry in entries], "totals": sums})
        return
    out = console()
    out.print(table(TITLES, NUMBERS, map(_cells, entries)))
    if totals.calls > len(entries):
        out.print(f"the newest {len(entries):,} of {totals.calls:,} calls; more with --limit")
    out.print(_in_words(totals))


@app.command()
def export(
    out: Out,
    form: Annotated[
        Format | None, typer.Option("--format", help="By the ending of the file, else jsonl.")
    ] = None,
    query: OneQuery = None,
    as_json: JsonOption = False,
    db: Database = None,
) -> None:
    """Write all entries to a file, oldest first."""
    if form is None:
        form = Format.CSV if out.suffix == ".csv" else Format.JSONL
    with open_existing(db) as ledger:
        records = map(record, ledger.iter_entries(query_id=query))
        count = write_whole(
            out, _csv(records) if form is Format.CSV else map(_line, records), replace=True
        )
    report_export(out, {"format": form.value, "entries": count}, as_json=as_json)


def record(entry: "Entry") -> dict[str, Any]:
    """Return an entry as flat JSON values: tokens, seconds, money in pico-dollars and dollars."""
    return {
        "id": entry.id,
        "query_id": entry.query_id,
        "role": entry.role.value,
        "model": entry.model,
        "subtask": entry.subtask,
        "attempt": entry.attempt,
        "outcome": entry.outcome.value,
        "input_tokens": entry.usage.input_tokens,
        "output_tokens": entry.usage.output_tokens,
        "cached_tokens": entry.usage.cached_tokens,
        "reasoning_tokens": entry.usage.reasoning_tokens,
        "cost_pico": entry.cost,
        "cost_dollars": exact(entry.cost),
        "bound_pico": entry.bound,
        **_rates(entry.price),
        "started_at": entry.started_at,
        "latency_s": entry.latency_s,
        "ttft_s": entry.ttft_s,
        "finish_reason": entry.finish_reason,
        "error": entry.error,
        "note": entry.note,
        "lease": entry.lease,
    }


def open_existing(db: str | None) -> "Ledger":
    """Open the ledger that a command reads. Raises ConfigError if there is none yet."""
    from r2reasoner.ledger import Ledger, default_path

    where = str(default_path()) if db is None else db
    if "://" not in where and not Path(where).expanduser().is_file():
        raise ConfigError(f"no ledger at {where}: nothing was asked yet, or --db names another")
    return Ledger.open(where)


def report_export(out: Path, counts: dict[str, Any], *, as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        print_json({"out": str(out)} | counts)
        return
    said = ", ".join(f"{value:,} {name}" for name, value in counts.items() if name != "format")
    console().print(foreign(f"{out}: {said}"))


def exact(pico: int | None) -> str | None:
    """Return pico-dollars as exact dollars in plain digits."""
    from r2reasoner.types import to_dollars

    return None if pico is None else f"{to_dollars(pico):f}"


def foreign(text: str) -> "Text":
    """Return text from a model or file for a terminal: no markup, no control characters."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text))


def console() -> "Console":
    """Return where people read; wide when piped, so that lines stay whole."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def table(titles: Sequence[str], numbers: Set[str], rows: Iterable[Sequence[str]]) -> "Table":
    """Return a table of foreign text, `numbers` to the right; the last column may wrap."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for title in titles:
        justify: Literal["left", "right"] = "right" if title in numbers else "left"
        shown.add_column(title, justify=justify, no_wrap=title != titles[-1], overflow="fold")
    for row in rows:
        shown.add_row(*map(foreign, row))
    return shown


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2))


def clock(moment: float) -> str:
    """Return a moment (seconds since 1970) as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _cells(entry: "Entry") -> tuple[str, ...]:
    from r2reasoner.bill import show_money

    return (
        clock(entry.started_at),
        entry.role.value,
        entry.model,
        "" if entry.subtask is None else str(entry.subtask),
        str(entry.attempt),
        entry.outcome.value,
        f"{entry.usage.input_tokens:,}",
        f"{entry.usage.output_tokens:,}",
        show_money(entry.cost),
        f"{entry.latency_s:.2f}",
        entry.error or entry.note or "",
    )


def _in_words(totals: "Totals") -> str:
    from r2reasoner.bill import show_money

    states = {"failed": totals.failed, "unknown": totals.unknown, "open": totals.open}
    told = "".join(f", {count:,} {name}" for name, count in states.items() if count)
    unpriced = f" and {totals.unpriced:,} calls of unknown price" if totals.unpriced else ""
    return (
        f"{totals.calls:,} calls{told}; {totals.input_tokens:,} tokens in, "
        f"{totals.output_tokens:,} out; {show_money(totals.cost)}{unpriced}"
    )


def _rates(price: "Price | None") -> dict[str, Any]:
    def text(rate: "Decimal | None") -> str | None:
        return None if rate is None else f"{rate:f}"

    return {
        "input_rate": text(price.input) if price else None,
        "output_rate": text(price.output) if price else None,
        "cached_rate": text(price.cached) if price else None,
        "rate_tiers": [[t.above, *map(text, t[1:])] for t in price.tiers] if price else [],
        "price_source": price.source if price else None,
    }


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _csv(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(buffer, row.keys(), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
