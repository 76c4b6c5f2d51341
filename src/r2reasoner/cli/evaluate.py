"""`r2reasoner evaluate`: strategies on a benchmark's items, as a table and a result file."""

import asyncio
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from r2reasoner.cli.ask import DbOption, TradeOffOption
from r2reasoner.cli.exits import INTERRUPTED
from r2reasoner.cli.pool import JsonOption, PoolOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from r2reasoner.benchmarks import Benchmark, Item
    from r2reasoner.client import Client
    from r2reasoner.evaluation.evaluate import Evaluation
    from r2reasoner.evaluation.forecast import Forecast
    from r2reasoner.evaluation.rows import ItemRow
    from r2reasoner.evaluation.sources import Source
    from r2reasoner.evaluation.spending import SpendingLedger
    from r2reasoner.pool.cards import Pool
    from r2reasoner.types import Pico

    Items = tuple[Item, ...]

DEFAULT_STRATEGIES: Final = "r2,cot,strongest"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    benchmark: Annotated[
        str,
        typer.Argument(
            help="p3, scan, math, champ, csqa, musique, arithmetic, or your own FILE.jsonl with"
            " query and answer."
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            help="SCAN: length, addprim_jump, simple; arithmetic: test, test:5, values; others:"
            " their test side."
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            "-s",
            help="Strategies, by commas: r2, r2@TRADE_OFF, single:MODEL, single:*, cot, tot,"
            " datashunt, automix, frugal, frugal@THRESHOLD, dot, router-r1, routellm, knn,"
            " light:ROUTER, kind-table, strongest, cheapest, random, last-node, oracle.",
        ),
    ] = DEFAULT_STRATEGIES,
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="JSON lines to take items from, or a folder of them laid out as published; else"
            " they are made, or come from the hub.",
        ),
    ] = None,
    hub: Annotated[
        bool, typer.Option("--hub", help="Take items from the hub, at a pinned revision.")
    ] = False,
    dataset: Annotated[
        str | None, typer.Option(help="With --hub: another dataset of the same columns.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="With --hub: another commit of the dataset.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most items: a sample of them, by the seed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of samples, draws and intervals.")] = 0,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="0,1,2",
            help="Run strategies that draw once with each; figures are means over them.",
        ),
    ] = None,
    pool: PoolOption = None,
    trade_off: TradeOffOption = None,
    max_cost: Annotated[
        str | None, typer.Option(help="Hard cap in dollars over the whole command.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Queries in flight; else 96 in process, 16 over HTTP."),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="For your own file: exact (default), number, sequence.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Result file; one row per item goes beside it, to OUT.rows.jsonl."),
    ] = None,
    outcomes: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE", help="Recorded outcomes: what stands there is not paid for again."
        ),
    ] = None,
    engine: Annotated[
        Literal["asyncio", "ray"],
        typer.Option(help="What runs it: this process, or a Ray cluster."),
    ] = "asyncio",
    again: Annotated[
        bool, typer.Option("--again", help="Also run anew items that got no whole answer.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it may cost, and call nothing.")
    ] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate strategies on items; a run that was stopped goes on where it stood."""
    from r2reasoner.benchmarks import open_benchmark
    from r2reasoner.config import load_settings, settings
    from r2reasoner.errors import R2Error
    from r2reasoner.evaluation.evaluate import Evaluation, default_in_flight, runnable
    from r2reasoner.evaluation.seeds import over_seeds, read_seeds
    from r2reasoner.evaluation.sources import Source
    from r2reasoner.evaluation.spending import SpendingLedger
    from r2reasoner.ledger import evaluations_path
    from r2reasoner.pool.load import find_pool, load_pool
    from r2reasoner.strategies import expand_strategies

    task = open_benchmark(benchmark, scorer)
    file = items or (Path(benchmark) if benchmark.endswith(".jsonl") else None)
    source = Source(file, hub, dataset, revision)
    all_seeds = read_seeds(seeds) if seeds is not None else (seed,)
    pool = pool or _pool_for(task, split)
    loaded = load_pool(pool)
    name = _split(task, split, loaded, source)
    cap = settings(max_cost=max_cost).cap
    evaluation = Evaluation(
        benchmark=task,
        split=name,
        items=_items(task, name, source, limit, seed),
        strategies=expand_strategies(strategy.split(","), loaded),
        pool=loaded,
        settings=load_settings(find_pool(pool), trade_off=trade_off),
        seed=seed,
    )
    evaluation, without = runnable(evaluation)
    notes = _warnings(evaluation)
    notes += [f"{name} is left out: {reason}" for name, reason in without.items()]
    evaluations = over_seeds(evaluation, all_seeds)
    in_flight = concurrency or default_in_flight(loaded)
    if dry_run:
        _dry_run(evaluations, notes, as_json=as_json)
        return
    result = out or Path("runs") / f"{task.name}-{name.replace(':', '-')}.json"
    rows_file = result.with_name(f"{result.name}.rows.jsonl")
    with SpendingLedger.open(db or evaluations_path()) as ledger:
        ledger.cap = cap
        try:
            rows = asyncio.run(
                _run(evaluations, ledger, rows_file, outcomes, engine, in_flight, again)
            )
        except KeyboardInterrupt:
            _say(f"stopped; {_kept(rows_file, engine)}")
            raise typer.Exit(INTERRUPTED) from None
        except R2Error:
            if rows_file.exists():
                _say(_kept(rows_file, engine))
            raise
    calls = {
        "calls": sum(row.calls for own in rows for row in own),
        "calls_on_record": sum(row.on_record for own in rows for row in own),
    }
    run: dict[str, Any] = {"engine": engine, "in_flight": in_flight, **calls, "notes": notes}
    if len(all_seeds) > 1:
        run["seeds"] = list(all_seeds)
    _report(evaluation, rows, result, run, as_json=as_json)


def _pool_for(task: "Benchmark", split: str | None) -> str | None:
    """Return the shipped pool whose weights are for a SCAN split, where no pool is named."""
    from r2reasoner.benchmarks import SCAN
    from r2reasoner.pool.load import POOL_ENV, shipped

    name = f"nano-{split}"
    return name if task is SCAN and name in shipped() and not os.environ.get(POOL_ENV) else None


def _split(task: "Benchmark", split: str | None, pool: "Pool", source: "Source") -> str:
    from r2reasoner.benchmarks import ARITHMETIC
    from r2reasoner.nano.splits import check_split, default_split

    file = source.path
    if split is None and task is ARITHMETIC and file is not None and not file.is_dir():
        split = file.stem
    name = split or default_split(task, pool)
    check_split(task, name, pool, from_file=file is not None)
    return name


def _items(
    task: "Benchmark", split: str, source: "Source", limit: int | None, seed: int
) -> "Items":
    from r2reasoner.evaluation.evaluate import limited

    return limited(source.load(task, split, seed, limit), limit, seed)


def _warnings(evaluation: "Evaluation") -> list[str]:
    """Say where items are no test of a pool whose training is known."""
    from r2reasoner.nano.splits import is_trained_on, trained_splits

    if not trained_splits(evaluation.pool):
        return []
    task, split, items = evaluation.benchmark, evaluation.split, evaluation.items
    trained_on = sum(is_trained_on(task, split, item) for item in items)
    if not trained_on:
        return []
    return [
        f"{trained_on:,} of {len(items):,} items stand on the training side of {task.name} {split}"
        " (or meet operations of it), so they are no fair test of this pool"
    ]


async def _run(
    evaluations: "Sequence[Evaluation]",
    ledger: "SpendingLedger",
    rows_file: Path,
    outcomes: Path | None,
    engine: str,
    in_flight: int,
    again: bool,
) -> "list[list[ItemRow]]":
    from r2reasoner.evaluation.evaluate import Conditions, Progress, missing, open_client
    from r2reasoner.evaluation.evaluate import evaluate as run
    from r2reasoner.evaluation.rows import RowsFile
    from r2reasoner.evaluation.seeds import together

    with RowsFile(rows_file) as rows, _bar() as bar:
        each = [len(missing(e, Conditions.of(e), rows.rows, again=again)) for e in evaluations]
        task = bar.add_task("evaluating", total=sum(each), spent="")
        results: list[list[list[ItemRow]]] = []

        def show(at: Progress) -> None:
            spent = f"${_dollars(at.spent)}" + (" and unpriced" if ledger.unpriced else "")
            bar.update(task, completed=sum(each[: len(results)]) + at.done, spent=spent)

        async def one(evaluation: "Evaluation", client: "Client | None") -> None:
            made: list[list[ItemRow]]
            if client is None:
                from r2reasoner.evaluation.sharded import evaluate_in_shards

                made = await evaluate_in_shards(
                    evaluation,
                    ledger,
                    rows,
                    store=outcomes,
                    in_flight=in_flight,
                    again=again,
                    progress=show,
                )
            else:
                made = await run(
                    evaluation,
                    ledger,
                    client,
                    rows,
                    in_flight=in_flight,
                    again=again,
                    progress=show,
                )
            results.append(made)

        async with nullcontext() if engine == "ray" else open_client(outcomes) as client:
            for evaluation in evaluations:
                await one(evaluation, client)
        return together(results)


def _kept(rows_file: Path, engine: str) -> str:
    """Say where finished items are; those of a cluster that are not all there stand beside."""
    where = f"beside {rows_file}" if engine == "ray" else f"in {rows_file}"
    return f"finished items are {where}: the same command goes on from there"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[spent]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _report(
    evaluation: "Evaluation",
    rows: "list[list[ItemRow]]",
    result: Path,
    run: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    from r2reasoner.evaluation.provenance import provenance
    from r2reasoner.evaluation.results import summarise, write_result

    summary = summarise(rows, evaluation.seed)
    origin = provenance(evaluation.pool, evaluation.seed)
    document = {
        "provenance": {
            **origin,
            "trade_off": evaluation.settings.trade_off,
            **run,
        },
        "rows": summary.rows,
        "comparisons": summary.comparisons,
    }
    write_result(result, document)
    if as_json:
        print(json.dumps(document, indent=2))
        return
    from rich.console import Console

    from r2reasoner.cli.figures import print_summary

    print_summary(summary, Console())
    print(f"result in {result}, one row per item in {result}.rows.jsonl")
    if run["calls_on_record"]:
        print(f"{run['calls_on_record']:,} of {run['calls']:,} calls were answered from record")
    for note in run["notes"] + _empty_handed(rows):
        _say(f"warning: {note}")


def _empty_handed(rows: "list[list[ItemRow]]") -> list[str]:
    """Say which strategies got no whole answer at all: that is a failure, not a result."""
    from r2reasoner.evaluation.results import WHOLE

    return [
        f"{own[0].strategy}: no whole answer to any item, so its figures mean nothing"
        f" ({next((row.error for row in own if row.error), 'no error was told')});"
        " mend the cause and run the same command with --again"
        for own in rows
        if not any(row.status in WHOLE for row in own)
    ]


def _dry_run(evaluations: "Sequence[Evaluation]", notes: list[str], *, as_json: bool) -> None:
    evaluation = evaluations[0]
    forecasts = asyncio.run(_forecasts(evaluations))
    costs = [f.most_cost for f in forecasts.values()]
    known = [cost for cost in costs if cost is not None]
    total = sum(known) if len(known) == len(costs) else None
    if as_json:
        document = {
            "items": len(evaluation.items),
            "strategies": {
                name: {
                    "least_calls": f.least_calls,
                    "most_calls": f.most_calls,
                    "most_dollars": _dollars(f.most_cost),
                }
                for name, f in forecasts.items()
            },
            "most_dollars": _dollars(total),
            "notes": notes,
        }
        print(json.dumps(document, indent=2))
        return
    print(f"{evaluation.benchmark.name} {evaluation.split}, {len(evaluation.items):,} items")
    for name, f in forecasts.items():
        calls = f"{f.least_calls:,} to {f.most_calls:,} calls"
        if f.least_calls == f.most_calls:
            calls = f"{f.least_calls:,} calls"
        print(f"  {name}: {calls}, at most ${_dollars(f.most_cost) or 'unknown'}")
    print(
        f"together at most ${_dollars(total) or 'unknown'}, without retries and fall-backs;"
        " usually a small part of it; --max-cost sets a hard cap"
    )
    for note in notes:
        _say(f"warning: {note}")


async def _forecasts(evaluations: "Sequence[Evaluation]") -> "dict[str, Forecast]":
    """Return what each strategy may cost, over all seeds that it is run with."""
    from r2reasoner.client import PoolClient
    from r2reasoner.evaluation.forecast import forecast
    from r2reasoner.ledger import Ledger
    from r2reasoner.strategies import open_strategy

    evaluation = evaluations[0]
    queries = [
        evaluation.benchmark.query(item, plain=evaluation.plain) for item in evaluation.items
    ]
    with Ledger.in_memory() as ledger:
        context = evaluation.context(ledger, PoolClient())
        return {
            name: forecast(
                open_strategy(name, context),
                queries * sum(name in each.strategies for each in evaluations),
            )
            for name in evaluation.strategies
        }


def _dollars(pico: "Pico | None") -> str | None:
    """Write an amount exactly, without an exponent."""
    from r2reasoner.types import to_dollars

    if pico is None:
        return None
    text = f"{to_dollars(pico):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _say(text: str) -> None:
    print(text, file=sys.stderr)
