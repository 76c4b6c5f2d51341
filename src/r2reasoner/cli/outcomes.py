"""`r2reasoner outcomes`: what was ever asked and paid for, in figures and as files."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from r2reasoner.cli.ledger import console, exact, foreign, print_json, report_export, table
from r2reasoner.cli.pool import JsonOption
from r2reasoner.errors import ConfigError

if TYPE_CHECKING:
    from r2reasoner.outcomes.layouts import Grade
    from r2reasoner.outcomes.sets import OutcomeSet
    from r2reasoner.outcomes.stats import ModelStats, Stats

app = typer.Typer(
    help="Show, export, import or judge recorded outcomes: answers that are not paid for twice.",
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
JUDGED_TITLES: Final = (
    "router", "APGR", "CPT50", "CPT80", "AIQ", "score", "price", "price at best", "coverage",
)  # fmt: skip
STEP_TITLES: Final = ("arm", "at", "plans", "success", "strong", "strong, covered", "coverage")
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
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|FILE",
            help="A recorded outcome set, an export, or what `calibrate` measured for a pool.",
        ),
    ],
    out: OutStore,
    layout: Annotated[
        str | None, typer.Option(help="How the files are laid out [default: by their fields].")
    ] = None,
    rescore: Annotated[
        bool,
        typer.Option(
            "--rescore", help="Judge MATH and CHAMP answers anew that their own model judged."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add the answers and outcomes of files to a store; what it has already is not doubled."""
    from r2reasoner.outcomes.layouts import read_records, take_in
    from r2reasoner.outcomes.store import OutcomeStore

    source = _measured(path)
    name, records, skipped = read_records(source, layout, grade=_grader() if rescore else None)
    with OutcomeStore.open(out) as store:
        taken = take_in(records, store)
    if as_json:
        document = {"store": str(out), "file": str(source), "layout": name}
        print_json(document | taken._asdict() | {"skipped": dict(skipped)})
        return
    shown = console()
    shown.print(
        foreign(
            f"{out}: {taken.answers:,} answers and {taken.outcomes:,} outcomes added"
            f" ({name}), {taken.held:,} were there already"
        )
    )
    for why, times in skipped.items():
        shown.print(foreign(f"left out: {times:,} x {why}"))


TrainStore = Annotated[Path, typer.Option("--train", metavar="STORE", help="Store to learn from.")]
TestStore = Annotated[
    Path | None,
    typer.Option(
        "--test", metavar="STORE", help="Store to be judged on [default: cross-validation]."
    ),
]
ResultFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="File for the result, as JSON.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of folds, routers and resamples.")]
Folds = Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")]


@app.command("judge")
def judge_routers(
    train: TrainStore,
    router: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Routers, with commas between [default: all]."),
    ] = None,
    test: TestStore = None,
    out: ResultFile = None,
    only: Annotated[
        str | None,
        typer.Option("--set", metavar="NAMES", help="Outcome sets, with commas between."),
    ] = None,
    folds: Folds = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Times to deal the folds anew.")] = 1,
    draws: Annotated[int, typer.Option(min=1, help="Resamples behind the intervals.")] = 2000,
    seed: Seed = 0,
    as_json: JsonOption = False,
) -> None:
    """Judge light routers on recorded outcomes, against each other and what needs no router."""
    from r2reasoner.outcomes.judge import Terms, judge
    from r2reasoner.outcomes.routers import ROUTERS

    names = list(ROUTERS) if router is None else _names(router)
    if unknown := [name for name in names if name not in ROUTERS]:
        raise ConfigError(f"no router {unknown[0]!r}; known: {', '.join(ROUTERS)}")
    terms = Terms(folds=folds, repeats=repeats, draws=draws, seed=seed)
    wanted = None if only is None else _names(only)
    learned = _sets(train, wanted)
    report = judge(
        learned,
        None if test is None else _sets(test, wanted),
        {name: ROUTERS[name] for name in names},
        terms,
        lambda name: print(f"judging {name} ...", file=sys.stderr, flush=True),
    )
    settings = asdict(terms) if test is None else {"draws": draws, "seed": seed}
    document = {
        "rows": report.rows,
        "comparisons": report.comparisons,
        "sets": report.sets,
        "notes": report.notes,
        "settings": settings,
        "provenance": _provenance(seed, train, test),
    }
    _give(document, out, as_json=as_json)
    if not as_json:
        _show_judged(report.rows)
        for note in report.notes:
            console().print(foreign(note))


@app.command("steps")
def judge_steps(
    train: TrainStore,
    test: TestStore = None,
    out: ResultFile = None,
    folds: Folds = 5,
    seed: Seed = 0,
    as_json: JsonOption = False,
) -> None:
    """Learn which steps of a plan can go to the small model; judge that on recorded allocations."""
    from r2reasoner.outcomes.steps import judge_steps, recorded_plans
    from r2reasoner.outcomes.store import OutcomeStore

    with OutcomeStore.open(train, create=False) as store:
        learned = recorded_plans(store)
    held = None
    if test is not None:
        with OutcomeStore.open(test, create=False) as store:
            held = recorded_plans(store)
    found = judge_steps(learned, held, folds=folds, seed=seed)
    document = found | {"provenance": _provenance(seed, train, test)}
    _give(document, out, as_json=as_json)
    if not as_json:
        _show_steps(found)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"expected names with commas between, got {text!r}")
    return names


def _sets(folder: Path, wanted: list[str] | None) -> "dict[str, OutcomeSet]":
    from r2reasoner.outcomes.sets import outcome_sets
    from r2reasoner.outcomes.store import OutcomeStore

    with OutcomeStore.open(folder, create=False) as store:
        found = outcome_sets(store)
    if not found:
        raise ConfigError(f"{folder}: no outcomes of whole queries in this store")
    for name in wanted or ():
        if name not in found:
            raise ConfigError(f"{folder}: no outcome set {name!r}; it has {', '.join(found)}")
    return {name: each for name, each in found.items() if wanted is None or name in wanted}


def _provenance(seed: int, train: Path, test: Path | None) -> dict[str, Any]:
    """Return where a result comes from: stores by their manifests' hashes, not by their place."""
    from hashlib import sha256

    from r2reasoner.evaluation.provenance import origin
    from r2reasoner.outcomes.shards import MANIFEST

    stores = {
        name: {"name": folder.name, "sha256": sha256((folder / MANIFEST).read_bytes()).hexdigest()}
        for name, folder in {"train": train, "test": test}.items()
        if folder is not None
    }
    return origin(seed, {"stores": stores})


def _give(document: dict[str, Any], out: Path | None, *, as_json: bool) -> None:
    """Write a result to its file, and to stdout where that was asked for."""
    from r2reasoner.evaluation.results import write_result

    if out is not None:
        write_result(out, document)
    if as_json:
        print_json(document)


def _show_judged(rows: "list[dict[str, Any]]") -> None:
    shown = console()
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        best = next(row for row in of_set if row["router"] == "best single")
        oracle = _plain(of_set[0]["oracle"])
        shown.print()
        shown.print(foreign(f"{name}: {of_set[0]['n']:,} items, oracle {oracle}"))
        cells = [_judged_cells(row, best["mean_price"]) for row in of_set]
        shown.print(table(JUDGED_TITLES, set(JUDGED_TITLES[1:]), cells))


def _judged_cells(row: "dict[str, Any]", dearest: float | None) -> tuple[str, ...]:
    at_best = row["price_at_best_single_score"]
    share = "" if at_best is None or not dearest else f"{at_best / dearest * 100:.0f} %"
    return (
        row["router"],
        _with_interval(row, "apgr"),
        _plain(row["cpt50"]),
        _plain(row["cpt80"]),
        _plain(row["aiq"]),
        _with_interval(row, "mean_score"),
        "" if row["mean_price"] is None else f"{row['mean_price'] * 1e6:,.1f} µ$",
        share,
        _percent(row["coverage"]),
    )


def _show_steps(found: "dict[str, Any]") -> None:
    shown = console()
    cells = [
        (
            row["arm"],
            "" if row["at"] is None else f"{row['at']:g}",
            f"{row['plans']:,}",
            _with_interval(row, "success"),
            _percent(row["strong_share"]),
            _percent(row["strong_share_covered"]),
            _percent(row["coverage"]),
        )
        for row in found["rows"]
    ]
    shown.print(table(STEP_TITLES, set(STEP_TITLES[1:]), cells))
    for row in found["comparisons"]:
        text = _with_interval(row, "success_difference")
        shown.print(f"learned against lottery at {row['at']:g}: {text}")


def _with_interval(row: "dict[str, Any]", figure: str) -> str:
    ci95 = row[f"{figure}_ci95"]
    middle = _plain(row[figure])
    return middle if ci95 is None else f"{middle} ({_plain(ci95[0])} to {_plain(ci95[1])})"


def _plain(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.3f}"


def _grader() -> "Grade":
    """Return what judges a formula against the right one. Raises ConfigError without it."""
    from r2reasoner.benchmarks import BENCHMARKS

    if "math" not in BENCHMARKS:
        raise ConfigError("--rescore needs the benchmark math, which this version does not have")
    return BENCHMARKS["math"].grade


def _measured(file: Path) -> Path:
    """Return the file with the rows: a pool file names the estimate (.npz) that stands beside."""
    rows = file.with_suffix(".jsonl") if file.suffix == ".npz" else file
    if not rows.exists():
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
