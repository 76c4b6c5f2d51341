"""`r2reasoner outcomes`: what was ever asked and paid for, in figures and as files."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from r2reasoner.cli.ledger import console, exact, foreign, print_json, report_export, table
from r2reasoner.cli.pool import JsonOption
from r2reasoner.errors import ConfigError

if TYPE_CHECKING:
    from r2reasoner.outcomes.stats import ModelStats, Stats

app = typer.Typer(
    help="Show, export or import recorded outcomes: answers that are not paid for twice.",
    no_args_is_help=True,
)

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")]
OutFile = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="File to write: .jsonl or .parquet.")
]
OutStore = Annotated[
    Path, typer.Option("--out", metavar="STORE", help="Store to add to, made if need be.")
]

MODEL_TITLES: Final = (
    "model", "answers", "in", "out", "cost", "latency", "judged", "right", "coverage",
)  # fmt: skip
SOURCE_TITLES: Final = ("source", "answers", "outcomes")


@app.command("stats")
def show_stats(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Show what a store holds, by model and by source."""
    from r2reasoner.outcomes.stats import store_stats
    from r2reasoner.outcomes.store import OutcomeStore

    with OutcomeStore.open(store, create=False) as opened:
        found = store_stats(opened)
    if as_json:
        print_json(_document(found))
        return
    out = console()
    out.print(table(MODEL_TITLES, set(MODEL_TITLES[1:]), map(_model_cells, found.models)))
    out.print()
    sources = [(s.source, f"{s.answers:,}", f"{s.outcomes:,}") for s in found.sources]
    out.print(table(SOURCE_TITLES, set(SOURCE_TITLES[1:]), sources))
    out.print()
    out.print(_in_words(found))


@app.command()
def export(store: StoreArgument, out: OutFile, as_json: JsonOption = False) -> None:
    """Write all answers and outcomes to one file; the field `kind` tells them apart."""
    from r2reasoner.outcomes.layouts import write_export
    from r2reasoner.outcomes.store import OutcomeStore

    with OutcomeStore.open(store, create=False) as opened:
        count = write_export(opened, out)
    report_export(out, {"records": count}, as_json=as_json)


@app.command("import")
def take_in(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="An export, or what `calibrate` measured for a pool (.jsonl)."
        ),
    ],
    out: OutStore,
    layout: Annotated[
        str | None, typer.Option(help="How the file is laid out [default: by its fields].")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add the answers and outcomes of a file to a store; what it has already is not doubled."""
    from r2reasoner.outcomes.layouts import read_records, take_in
    from r2reasoner.outcomes.store import OutcomeStore

    source = _measured(file)
    name, records = read_records(source, layout)
    with OutcomeStore.open(out) as store:
        taken = take_in(records, store)
    if as_json:
        print_json({"store": str(out), "file": str(source), "layout": name} | taken._asdict())
        return
    console().print(
        foreign(
            f"{out}: {taken.answers:,} answers and {taken.outcomes:,} outcomes added"
            f" ({name}), {taken.held:,} were there already"
        )
    )


def _measured(file: Path) -> Path:
    """Return the file with the rows: a pool file names the estimate (.npz) that stands beside."""
    rows = file.with_suffix(".jsonl") if file.suffix == ".npz" else file
    if not rows.is_file():
        beside = f" ({file.name} is what was learned from it)" if rows != file else ""
        raise ConfigError(f"{rows}: no such file{beside}; expected .jsonl or .parquet")
    return rows


def _document(found: "Stats") -> dict[str, Any]:
    def model(row: "ModelStats") -> dict[str, Any]:
        fields = asdict(row) | asdict(row.usage)
        del fields["usage"]
        cost = fields.pop("cost")
        return fields | {"cost_pico": cost, "cost_dollars": exact(cost)}

    return asdict(found) | {"models": [model(row) for row in found.models]}


def _model_cells(row: "ModelStats") -> tuple[str, ...]:
    from r2reasoner.bill import show_money

    unpriced = f" + {row.unpriced:,} unknown" if row.unpriced else ""
    return (
        row.model,
        f"{row.answers:,}",
        f"{row.usage.input_tokens:,}",
        f"{row.usage.output_tokens:,}",
        f"{show_money(row.cost)}{unpriced}",
        "" if row.latency_s is None else f"{row.latency_s:.3f} s",
        f"{row.judged:,}",
        _percent(row.right),
        _percent(row.coverage),
    )


def _in_words(found: "Stats") -> str:
    answers = sum(row.answers for row in found.models)
    outcomes = sum(row.outcomes for row in found.models)
    covered = (
        f"; {found.places:,} subtasks of {found.items:,} items judged,"
        f" {_percent(found.coverage)} of them for each model on average"
        if found.places
        else ""
    )
    return f"{answers:,} answers, {outcomes:,} outcomes{covered}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.1f} %"
