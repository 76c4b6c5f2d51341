"""`r2reasoner calibrate`: measure a pool on a user's own items, for the calibrated allocator.

What was measured is written in every case, also when the cap or Ctrl-C ends it: it is paid for.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from r2reasoner.cli.ask import DbOption
from r2reasoner.cli.exits import INTERRUPTED
from r2reasoner.cli.pool import JsonOption, PoolOption
from r2reasoner.errors import ConfigError, DataError, R2Error

if TYPE_CHECKING:
    from r2reasoner.benchmarks import Grade
    from r2reasoner.calibrate import Calibration, Measured
    from r2reasoner.client import Client
    from r2reasoner.decomposer import Decomposer
    from r2reasoner.estimate import OutcomeModel
    from r2reasoner.evaluation.spending import SpendingLedger
    from r2reasoner.pool.cards import Card, Pool
    from r2reasoner.types import Pico, Task

FEW_ITEMS: Final = 30


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("calibrate")(calibrate)


def calibrate(
    items: Annotated[
        Path, typer.Argument(metavar="ITEMS.jsonl", help="A query and its answer a line.")
    ],
    pool: PoolOption = None,
    max_cost: Annotated[
        str | None, typer.Option(help="Hard cap in dollars over the whole command.")
    ] = None,
    scorer: Annotated[
        Literal["exact", "number", "sequence"] | None,
        typer.Option(help="When an answer is right [default: exact]."),
    ] = None,
    benchmark: Annotated[
        Literal["scan", "arithmetic"] | None,
        typer.Option(help="The items are of this benchmark: its fields and its scorer."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="File to write [default: beside the pool file]."),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="Also ask every model each whole query: what knn and routellm learn from.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure which model gets which subtask right, for the calibrated allocator."""
    from r2reasoner.config import settings
    from r2reasoner.evaluation.spending import CapReached, SpendingLedger
    from r2reasoner.pool.load import load_pool

    loaded = load_pool(pool)
    task = Exam.load(items, scorer, benchmark, loaded)
    file = _out_file(out, loaded, whole=whole, force=force)
    with SpendingLedger.open(db) as ledger:
        ledger.cap = settings(max_cost=max_cost).cap
        check_prices((*loaded.workers, loaded.card(loaded.decomposer)), ledger.cap)
        run = _Run(loaded, task, ledger, whole)
        ended: CapReached | None = None
        try:
            asyncio.run(run.measure())
        except CapReached as reached:
            ended = reached
        except (R2Error, KeyboardInterrupt) as error:
            if run.measured.outcomes:
                run.write(file)
                _say(f"what was measured until then is in {file}")
            if isinstance(error, R2Error):
                raise
            raise typer.Exit(INTERRUPTED) from None
        if ended is not None and not run.measured.outcomes:
            raise ended
        model = run.write(file)
        spent = None if ledger.unpriced else ledger.spent
    queries = run.whole.measured if run.whole else None
    report = _Report(loaded, run.measured, len(task.items), model, file, spent, ended, queries)
    if as_json:
        print(json.dumps(report.document(), indent=2))
    else:
        report.show()


@dataclass(frozen=True, slots=True)
class Exam:
    """What to ask, and when an answer is right; `scorer` is the name of `grade`."""

    items: "tuple[Task, ...]"
    grade: "Grade"
    scorer: str

    @classmethod
    def load(cls, file: Path, scorer: str | None, benchmark: str | None, pool: "Pool") -> "Exam":
        """Read a file's items, worded as `evaluate` words them. Raises ConfigError, DataError."""
        from r2reasoner.benchmarks import BENCHMARKS, SCORERS, open_benchmark
        from r2reasoner.types import Task

        if benchmark is not None and scorer is not None:
            raise ConfigError(f"{benchmark} has its own scorer; leave out --scorer or --benchmark")
        if not file.is_file():
            raise DataError(f"{file}: no such file; expected JSON lines with query and answer")
        task = BENCHMARKS[benchmark] if benchmark else open_benchmark("items.jsonl", scorer)
        plain = all(card.prompt == "plain" for card in pool.workers)
        items = tuple(Task(task.query(i, plain=plain), i.gold) for i in task.load(file))
        name = next(name for name, grade in SCORERS.items() if grade is task.grade)
        return cls(items, task.grade, name)


@dataclass(slots=True)
class _Run:
    """One measuring, with its progress on a terminal; `with_whole`: of whole queries too."""

    pool: "Pool"
    task: Exam
    ledger: "SpendingLedger"
    with_whole: bool
    parts: "Calibration | None" = None
    whole: "Calibration | None" = None

    @property
    def measured(self) -> "Measured":
        """What was found of subtasks so far."""
        from r2reasoner.calibrate import Measured

        return self.parts.measured if self.parts else Measured()

    async def measure(self) -> None:
        """Measure all items. Raises CapReached, and what Calibration raises."""
        from r2reasoner.client import PoolClient
        from r2reasoner.decomposer import Direct, open_decomposer

        client = PoolClient()
        try:
            planner = open_decomposer(self.pool.card(self.pool.decomposer))
            self.parts = self._calibration(client, planner)
            await self._run(self.parts, "measuring")
            if self.with_whole:
                self.whole = self._calibration(client, Direct())
                await self._run(self.whole, "measuring whole queries")
        finally:
            await client.close()
            await self.ledger.flush()

    def write(self, file: Path) -> "OutcomeModel":
        """Write what was found. Raises DataError where nothing was."""
        from r2reasoner.calibrate import write_outcomes, write_queries

        model = write_outcomes(self.measured, file, self.task.scorer)
        if self.whole is not None and self.whole.measured.outcomes:
            write_queries(self.whole.measured, file)
        return model

    def _calibration(self, client: "Client", decomposer: "Decomposer") -> "Calibration":
        from r2reasoner.budget import Meter
        from r2reasoner.calibrate import Calibration
        from r2reasoner.ledger import new_id

        meter = Meter(self.ledger, f"calibrate-{new_id()}")
        return Calibration(self.pool, client, decomposer, meter, self.task.grade)

    async def _run(self, calibration: "Calibration", what: str) -> None:
        before = self.ledger.spent
        with bar(self.ledger.cap) as progress:
            total = len(self.task.items)
            shown = progress.add_task(what, total=total, spent="$0")

            def show(done: int) -> None:
                spent = self.ledger.spent - before
                likely = _money(spent * total // done)
                told = f"{_money(spent)}, likely {likely} in all"
                progress.update(shown, completed=done, spent=told)

            await calibration.run(self.task.items, show)


@dataclass(frozen=True, slots=True)
class _Report:
    """What the command tells at its end. `spent` (pico-dollars) None: a price is unknown.

    `queries` is what was found of whole queries, None where they were not asked.
    """

    pool: "Pool"
    measured: "Measured"
    asked: int
    model: "OutcomeModel"
    file: Path
    spent: "Pico | None"
    ended: R2Error | None
    queries: "Measured | None"

    def lines_for_pool_file(self) -> list[str]:
        """Return what the pool file still lacks under [pool]."""
        pool = self.pool
        lines = []
        if pool.outcomes is None or pool.outcomes.resolve() != self.file.resolve():
            folder = pool.source.parent if pool.source and not is_shipped(pool) else None
            near = folder is not None and self.file.resolve().is_relative_to(folder)
            shown = self.file.resolve().relative_to(folder) if near and folder else self.file
            lines.append(f"outcomes = {json.dumps(str(shown if near else self.file.resolve()))}")
        policy = pool.policies.get(pool.allocator)
        # a trained policy compares workers that it does not know by the outcomes, and stays
        if pool.allocator != "calibrated" and not (policy and policy.knows):
            lines.append('allocator = "calibrated"')
        return lines

    def models(self) -> list[dict[str, Any]]:
        """Return each worker's measured share of right answers and mean cost (pico-dollars)."""
        rows = []
        for card in self.pool.workers:
            right = [o.right for o in self.measured.outcomes if o.model == card.name]
            cost = self.model.mean_cost.get(card.name)
            rows.append(
                {
                    "model": card.name,
                    "subtasks": len(right),
                    "right": sum(right) / len(right) if right else None,
                    "mean_cost_pico": None if cost is None or cost != cost else cost,
                }
            )
        return rows

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON document."""
        found = self.measured
        return {
            "pool": self.pool.name,
            "items": self.asked,
            "measured": found.items,
            "unsolved": found.unsolved,
            "ungraded": found.ungraded,
            "outcomes": len(found.outcomes),
            "models": self.models(),
            "cost_pico": self.spent,
            "stopped": None if self.ended is None else str(self.ended),
            "out": str(self.file),
            "raw": str(self.file.with_suffix(".jsonl")),
            "whole_queries": None if self.queries is None else len(self.queries.outcomes),
            "pool_file": str(self.pool.source),
            "pool_lines": self.lines_for_pool_file(),
        }

    def show(self) -> None:
        """Print the report."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        found = self.measured
        table = Table(box=None, pad_edge=False)
        table.add_column("model")
        for column in ("subtasks", "right", "mean cost"):
            table.add_column(column, justify="right")
        for row in self.models():
            right = "" if row["right"] is None else f"{row['right']:.1%}"
            mean = row["mean_cost_pico"]
            cost = _money(None if mean is None else round(mean))
            table.add_row(Text(row["model"]), f"{row['subtasks']:,}", right, cost)
        Console().print(table)
        print(
            f"{found.items:,} of {self.asked:,} items measured for {_money(self.spent)};"
            f" {found.unsolved:,} of them no model got right, so they teach nothing"
        )
        if self.ended is not None:
            print(f"stopped: {self.ended}")
        if found.items - found.unsolved < FEW_ITEMS:
            print(f"fewer than {FEW_ITEMS} items taught something: take the estimate with care")
        if self.queries is not None:
            print(f"{self.queries.items:,} whole queries asked, each of every model")
        print(f"wrote {self.file}, and raw outcomes and right answers beside it")
        self._show_lines()

    def _show_lines(self) -> None:
        lines = self.lines_for_pool_file()
        if not lines:
            print(f"{self.pool.source} names it already: nothing is left to do")
            return
        if is_shipped(self.pool):
            print(f"to use it, copy {self.pool.source} and put this under [pool] in your copy:")
        else:
            print(f"to use it, put this under [pool] in {self.pool.source}:")
        for line in lines:
            print(f"  {line}")


def _out_file(out: Path | None, pool: "Pool", *, whole: bool, force: bool) -> Path:
    """Return where to write, checked before anything is paid for. Raises ConfigError."""
    from r2reasoner.outcomes.measured import queries_file
    from r2reasoner.references import references_file

    if out is None:
        stem = pool.source.stem if pool.source else pool.name
        beside = pool.source.parent if pool.source and not is_shipped(pool) else Path()
        out = beside / f"{stem}-outcomes.npz"
    beside_it = [out.with_suffix(".jsonl"), references_file(out)]
    beside_it += [queries_file(out)] if whole else []
    check_outputs((out, *beside_it), ".npz", force=force)
    return out


def check_outputs(files: Sequence[Path], suffix: str, *, force: bool) -> None:
    """Raise ConfigError where files cannot be written, or are there and may not be replaced.

    The first is what the user named, and has to end in `suffix`.
    """
    out = files[0]
    if out.suffix != suffix:
        raise ConfigError(f"{out}: expected a file name that ends in {suffix}")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}; make it first")
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(f"{out}: you may not write in {out.parent}; choose another --out")
    taken = [file for file in files if file.exists()]
    if taken and not force:
        raise ConfigError(f"{taken[0]} exists; choose another --out, or --force to replace it")


def check_prices(cards: "Sequence[Card]", cap: "Pico | None") -> None:
    """Raise ConfigError where a cap cannot be held, before anything is paid for."""
    unpriced = sorted({card.name for card in cards if card.price is None})
    if cap is not None and unpriced:
        raise ConfigError(
            f"--max-cost cannot be held: the price of {', '.join(unpriced[:8])} is unknown; set"
            " input_price and output_price in the pool file"
        )


def is_shipped(pool: "Pool") -> bool:
    """Tell whether a pool file belongs to the package, so that users write elsewhere."""
    from r2reasoner.pool.load import SHIPPED

    return pool.source is not None and pool.source.parent == SHIPPED


def bar(cap: "Pico | None") -> Any:
    """Return a progress bar on stderr with a field `spent`; a context manager."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[spent]}"),
        TextColumn("no cap" if cap is None else f"cap {_money(cap)}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _money(pico: "Pico | None") -> str:
    from r2reasoner.bill import show_money

    return show_money(pico)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
