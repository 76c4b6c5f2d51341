"""`r2reasoner ledger`: which models were called, what that cost, the books as a file, their upkeep.

Also what both reading commands (`ledger`, `trace`) share: finding the ledger, days, foreign text
on a terminal, and files that are written whole or not at all.
"""

import csv
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from r2reasoner.cli.ask import DbOption
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

OneQuery = Annotated[
    str | None, typer.Option("--query", metavar="ID", help="Only the calls of this query.")
]
Since = Annotated[
    str | None, typer.Option(metavar="DAY", help="From this day on (UTC), as 2026-11-30.")
]
Until = Annotated[str | None, typer.Option(metavar="DAY", help="Up to this day, with it.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.")]


TITLES: Final = (
    "time", "role", "model", "subtask", "try", "outcome", "in", "out", "cost", "s", "remark",
)  # fmt: skip
DAY_S: Final = 86_400.0
MOST_DAYS: Final = 36_500
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
    db: DbOption = None,
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
    if totals.calls > len(entries) == limit:
        out.print(f"the newest {len(entries):,} of {totals.calls:,} calls; more with --limit")
    out.print(_in_words(totals))


@app.command()
def export(
    out: Out,
    form: Annotated[
        Format | None, typer.Option("--format", help="By the ending of the file, else jsonl.")
    ] = None,
    query: OneQuery = None,
    since: Since = None,
    until: Until = None,
    as_json: JsonOption = False,
    db: DbOption = None,
) -> None:
    """Write entries to a file, oldest first."""
    begin, end = bounds(since, until)
    if form is None:
        form = Format.CSV if out.suffix == ".csv" else Format.JSONL
    with open_existing(db) as ledger:
        records = map(record, ledger.iter_entries(query_id=query, since=begin, until=end))
        count = write_whole(
            out, _csv(records) if form is Format.CSV else map(_line, records), replace=True
        )
    report_export(out, {"format": form.value, "entries": count}, as_json=as_json)


@app.command()
def prune(
    older_than: Annotated[
        str, typer.Option(metavar="DAYS", help="Remove what is older than so many days, as 90d.")
    ],
    traces_only: Annotated[
        bool, typer.Option("--traces-only", help="Only prompts and answers; keep every call.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how much it would be; remove nothing.")
    ] = False,
    as_json: JsonOption = False,
    db: DbOption = None,
) -> None:
    """Remove old traces and settled calls; what they cost stays in all sums."""
    from r2reasoner import retention

    before = time.time() - _days(older_than) * DAY_S
    with open_existing(db) as ledger:
        remove = retention.count if dry_run else retention.prune
        removed = remove(ledger.database, before, traces_only=traces_only)
    if as_json:
        print_json(removed._asdict() | {"before": before, "dry_run": dry_run})
        return
    done = "would be removed" if dry_run else "removed"
    old = f"{removed.traces:,} traces and {removed.calls:,} calls"
    typer.echo(f"{old} from before {clock(before)} {done}")


@app.command()
def migrate(as_json: JsonOption = False, db: DbOption = None) -> None:
    """Bring the database of an older release up to date. Keep a copy of it first."""
    from r2reasoner.schema import migrate_at

    where = existing(db)
    migrated = migrate_at(where)
    if as_json:
        print_json(migrated._asdict())
    elif migrated.before == migrated.after:
        typer.echo(f"up to date (revision {migrated.after})")
    else:
        typer.echo(f"revision {migrated.before or 'none'} became {migrated.after}")


def bounds(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    """Return the Unix times in which days lie, the last one with it. Raises ConfigError."""
    begin = None if since is None else _midnight(since, "--since")
    end = None if until is None else _midnight(until, "--until") + DAY_S
    if begin is not None and end is not None and begin >= end:
        raise ConfigError(f"--since {since} is after --until {until}")
    return begin, end


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


def existing(db: str | None) -> str:
    """Return the ledger that a command reads. Raises ConfigError if there is none yet."""
    from r2reasoner.ledger import default_db

    where = str(default_db()) if db is None else db
    if "://" not in where and not Path(where).expanduser().is_file():
        raise ConfigError(f"no ledger at {where}: nothing was asked yet, or --db names another")
    return where


def open_existing(db: str | None) -> "Ledger":
    """Open the ledger that a command reads. Raises ConfigError if there is none yet."""
    from r2reasoner.ledger import Ledger

    return Ledger.open(existing(db))


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


def _midnight(text: str, flag: str) -> float:
    try:
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    except ValueError:
        raise ConfigError(f"{flag}: expected a day, like 2026-11-30, got {text[:40]!r}") from None


def _days(text: str) -> int:
    digits = text.removesuffix("d")
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits[:9]) <= MOST_DAYS):
        raise ConfigError(f"--older-than: expected days, like 90d (1 or more), got {text[:40]!r}")
    return int(digits)


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
