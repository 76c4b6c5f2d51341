"""`r2reasoner demo`: the main job on real test items, shown and measured, in under a minute."""

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from r2reasoner.cli.ask import DbOption
from r2reasoner.cli.pool import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from r2reasoner.benchmarks import Item
    from r2reasoner.evaluation.evaluate import Evaluation
    from r2reasoner.evaluation.results import Summary
    from r2reasoner.evaluation.rows import ItemRow
    from r2reasoner.evaluation.spending import SpendingLedger
    from r2reasoner.pool.cards import Pool

STRATEGIES: Final = ("r2", "single:*", "cot", "strongest", "last-node", "random", "cheapest")
TASKS: Final = (("scan", "length"), ("arithmetic", "test"))
SHOWN: Final = 2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    items: Annotated[int, typer.Option(min=2, help="Test items of each benchmark.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the sample of items.")] = 0,
    pool: Annotated[
        str, typer.Option("--pool", "-p", help="The nano pool, or one that takes another road.")
    ] = "nano",
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decompose, allocate, run and bill real test items of SCAN and arithmetic."""
    from rich.console import Console

    from r2reasoner.evaluation.spending import SpendingLedger
    from r2reasoner.ledger import evaluations_path
    from r2reasoner.pool.load import load_pool

    started = time.monotonic()
    console = Console(quiet=as_json)
    loaded = load_pool(pool)
    evaluations = [_evaluation(loaded, *task, items, seed) for task in TASKS]
    _introduce(loaded, console)
    with SpendingLedger.open(db or evaluations_path()) as ledger:
        for evaluation in evaluations:
            asyncio.run(_show(evaluation, ledger, console))
        summaries = [_measure(evaluation, ledger, console) for evaluation in evaluations]
    if as_json:
        print(
            json.dumps(
                [{"rows": s.rows, "comparisons": s.comparisons} for s in summaries], indent=2
            )
        )
    _conclude(summaries, time.monotonic() - started, console)


def _evaluation(pool: "Pool", name: str, split: str, count: int, seed: int) -> "Evaluation":
    from r2reasoner.benchmarks import open_benchmark
    from r2reasoner.config import load_settings
    from r2reasoner.evaluation.evaluate import Evaluation, limited
    from r2reasoner.nano.splits import make_items
    from r2reasoner.pool.load import find_pool
    from r2reasoner.strategies import expand_strategies

    task = open_benchmark(name)
    found: tuple[Item, ...] = limited(make_items(task, split, seed, count), count, seed)
    return Evaluation(
        benchmark=task,
        split=split,
        items=found,
        strategies=expand_strategies(STRATEGIES, pool),
        pool=pool,
        settings=load_settings(find_pool(pool.source)),
        seed=seed,
    )


def _introduce(pool: "Pool", console: "Console") -> None:
    console.rule("[bold]Route-and-Reason: decompose, allocate, run, bill")
    ladder = ", ".join(f"{c.name} ({c.parameters:,})" for c in pool.workers if c.parameters)
    console.print(
        f"Nine language models run in this process; by parameters: {ladder}.\n"
        "They are tiny: a laboratory, not an assistant. Each token costs one pico-dollar per"
        " parameter,\nthe decomposer's tokens too. No model and no policy was trained on what"
        " follows.\n"
    )


async def _show(evaluation: "Evaluation", ledger: "SpendingLedger", console: "Console") -> None:
    """Show a few runs in full."""
    from r2reasoner.bill import bill
    from r2reasoner.cli.view import PlanView, print_answer, print_bill
    from r2reasoner.router import Router

    async with Router.open(evaluation.pool, evaluation.settings, ledger) as router:
        for item in evaluation.items[:SHOWN]:
            trace = await router.trace(evaluation.benchmark.query(item, plain=evaluation.plain))
            console.print(PlanView.of(trace))
            print_answer(trace, console)
            verdict = evaluation.benchmark.grade(trace.answer.text, item.gold)
            console.print("[green]right[/]" if verdict else f"[red]wrong[/], it is {item.gold}")
            print_bill(trace, bill(trace, evaluation.pool), console)
            console.print()


def _measure(evaluation: "Evaluation", ledger: "SpendingLedger", console: "Console") -> "Summary":
    from r2reasoner.cli.figures import print_summary
    from r2reasoner.evaluation.results import summarise

    with console.status(f"{evaluation.benchmark.name}: {len(evaluation.strategies)} strategies"):
        summary = summarise(asyncio.run(_rows(evaluation, ledger)), evaluation.seed)
    print_summary(summary, console)
    console.print()
    return summary


async def _rows(evaluation: "Evaluation", ledger: "SpendingLedger") -> "list[list[ItemRow]]":
    from r2reasoner.client import PoolClient
    from r2reasoner.evaluation.evaluate import evaluate
    from r2reasoner.evaluation.rows import RowsFile

    client = PoolClient()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            RowsFile(Path(folder) / "demo.rows.jsonl") as rows,
        ):
            return await evaluate(evaluation, ledger, client, rows)
    finally:
        await client.close()


def _conclude(summaries: "list[Summary]", seconds: float, console: "Console") -> None:
    for summary in summaries:
        ours = next(row for row in summary.rows if row["strategy"] == "r2")
        for against in summary.comparisons:
            if against["against"] == "cot" and against["net_cost_ratio"] is not None:
                console.print(
                    f"{ours['benchmark']} {ours['split']}: r2 is right {ours['accuracy']:.1%} of"
                    f" the time at [bold]{against['net_cost_ratio']:.1%}[/] of the net cost of the"
                    " paper's CoT with the strongest model, router billed."
                )
    console.print(
        f'[dim]{seconds:.0f} s. Next: r2reasoner ask "( 12 + 34 ) * 5 - 7" · r2reasoner evaluate'
        " --help · r2reasoner init (your own models)[/]"
    )
