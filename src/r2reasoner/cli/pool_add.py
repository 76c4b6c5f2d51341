"""`r2reasoner pool add`: one more worker for a measured pool, scored on recorded subtasks.

The pool file that was named stays as it is; another is written whole, with the newcomer at its
rank and an estimate that knows it. What was measured is kept in every case, as by `calibrate`.
"""

import asyncio
import json
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import typer

from r2reasoner.cli.ask import DbOption
from r2reasoner.cli.calibrate import (
    Exam,
    bar,
    check_outputs,
    check_prices,
    is_shipped,
)
from r2reasoner.cli.exits import INTERRUPTED
from r2reasoner.cli.pool import JsonOption, PoolOption
from r2reasoner.errors import ConfigError, DataError, R2Error

if TYPE_CHECKING:
    from r2reasoner.benchmarks import Grade
    from r2reasoner.client import Client
    from r2reasoner.estimate import OutcomeModel
    from r2reasoner.evaluation.spending import SpendingLedger
    from r2reasoner.newcomer import Joined, Scoring
    from r2reasoner.pool.cards import Card, Pool
    from r2reasoner.references import Reference
    from r2reasoner.types import Pico, Task

FEW: Final = 20
SPARE_ITEMS: Final = 4
"""Made items per wanted subtask: several may share one, and one may have no right run."""
SOURCE: Final = "pool add"


def register(app: typer.Typer) -> None:
    """Add the command to the pool's."""
    app.command("add")(add)


def add(
    card: Annotated[
        Path,
        typer.Argument(
            metavar="CARD.toml",
            help="One [[workers]] table as in a pool file, and its [endpoints.X] if that is new.",
        ),
    ],
    calibrate: Annotated[
        int,
        typer.Option(min=1, max=100_000, metavar="N", help="Recorded subtasks to score it on."),
    ],
    pool: PoolOption = None,
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="ITEMS.jsonl",
            help="Take subtasks from these items, which the pool solves first [default: what"
            " `calibrate` recorded for the pool; for a nano pool, items made here].",
        ),
    ] = None,
    scorer: Annotated[
        Literal["exact", "number", "sequence"] | None,
        typer.Option(help="When an answer to --items is right [default: exact]."),
    ] = None,
    benchmark: Annotated[
        Literal["scan", "arithmetic"] | None,
        typer.Option(help="The --items are of this benchmark: its fields and its scorer."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Outcome store: what it has is not paid again, what is new is kept."),
    ] = None,
    max_cost: Annotated[
        str | None, typer.Option(help="Hard cap in dollars over the whole command.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Pool file to write [default: beside the pool's]."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the order in which items are taken.")] = 0,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a worker: score it on N subtasks; no policy and no other estimate is trained again."""
    from r2reasoner.config import settings
    from r2reasoner.evaluation.spending import CapReached, SpendingLedger
    from r2reasoner.pool.load import load_card, load_pool

    loaded = load_pool(pool)
    newcomer = load_card(card, loaded)
    measured = _measured(loaded)
    files = _Files.of(out, loaded, newcomer, force=force)
    subtasks = _subtasks(loaded, items, scorer, benchmark, calibrate, seed)
    with SpendingLedger.open(db) as ledger:
        ledger.cap = settings(max_cost=max_cost).cap
        check_prices((newcomer, *subtasks.helpers(loaded)), ledger.cap)
        run = _Run(loaded, newcomer, subtasks, ledger, calibrate, seed, store)
        ended: R2Error | None = None
        try:
            asyncio.run(run.score())
        except CapReached as reached:
            ended = reached
        except (R2Error, KeyboardInterrupt) as error:
            if run.scoring is not None and run.scoring.scored:
                _write(run, measured, files)
                _say(f"what was measured until then is in {files.pool}")
            if isinstance(error, R2Error):
                raise
            raise typer.Exit(INTERRUPTED) from None
        if run.scoring is None or not run.scoring.scored:
            raise ended or _nothing(newcomer, subtasks)
        joined = _write(run, measured, files)
        spent = None if ledger.unpriced else ledger.spent
    report = _Report(run, run.scoring, joined, files, spent, ended)
    if as_json:
        print(json.dumps(report.document(), indent=2))
    else:
        report.show()


class _Subtasks(NamedTuple):
    """Where subtasks come from, and when an answer is right; `scorer` is the name of `grade`.

    Either `recorded` references, whose right answers are known, or `items` to find them for.
    """

    items: "Sequence[Task]"
    recorded: "Sequence[Reference]"
    grade: "Grade"
    scorer: str
    origin: str

    def helpers(self, pool: "Pool") -> "tuple[Card, ...]":
        """Return the models that are asked for plans and right answers before the newcomer is."""
        return () if self.recorded else (*pool.workers, pool.card(pool.decomposer))


class _Files(NamedTuple):
    """What is written: a pool file, and what was measured beside it."""

    pool: Path
    outcomes: Path

    @classmethod
    def of(cls, out: Path | None, pool: "Pool", card: "Card", *, force: bool) -> "_Files":
        """Return the files, checked before anything is paid for. Raises ConfigError."""
        from r2reasoner.references import references_file

        if out is None:
            stem = pool.source.stem if pool.source else pool.name
            own = pool.source and not is_shipped(pool)
            beside = _near(pool.source.parent) if pool.source and own else Path()
            out = beside / f"{stem}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', card.name)}.toml"
        outcomes = out.with_name(f"{out.stem}-outcomes.npz")
        raw = outcomes.with_suffix(".jsonl")
        check_outputs((out, outcomes, raw, references_file(outcomes)), ".toml", force=force)
        return cls(out, outcomes)


def _measured(pool: "Pool") -> "OutcomeModel":
    from r2reasoner.estimate import OutcomeModel

    if pool.outcomes is None or not pool.outcomes.exists():
        raise ConfigError(
            f"pool {pool.name!r} has no measured outcomes that a newcomer could be compared with;"
            " run `r2reasoner calibrate ITEMS.jsonl` with this pool first"
        )
    return OutcomeModel.load(pool.outcomes)


def _subtasks(
    pool: "Pool",
    items: Path | None,
    scorer: str | None,
    benchmark: str | None,
    wanted: int,
    seed: int,
) -> _Subtasks:
    """Return where the subtasks come from. Raises ConfigError and DataError."""
    from r2reasoner.benchmarks import SCORERS
    from r2reasoner.references import read_references, references_file

    if items is not None:
        exam = Exam.load(items, scorer, benchmark, pool)
        return _Subtasks(exam.items, (), exam.grade, exam.scorer, str(items))
    if scorer is not None or benchmark is not None:
        raise ConfigError("--scorer and --benchmark belong to --items; name the file of items")
    file = references_file(pool.outcomes) if pool.outcomes else Path()
    if file.is_file():
        found = read_references(file)
        if found.scorer not in SCORERS:
            raise DataError(f"{file}: no scorer {found.scorer!r}; known: {', '.join(SCORERS)}")
        return _Subtasks(
            (), found.references, SCORERS[found.scorer], found.scorer, str(_near(file))
        )
    if pool.splits and all(worker.parameters for worker in pool.workers):
        made = _nano_items(pool, SPARE_ITEMS * wanted, seed)
        return _Subtasks(made, (), SCORERS["exact"], "exact", "the nano items made here")
    raise ConfigError(
        f"no recorded subtasks stand beside {pool.outcomes}; give items with --items ITEMS.jsonl,"
        " which the pool will solve first"
    )


def _near(path: Path) -> Path:
    """Return a path as it is seen from the working folder, if it lies in there."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _nano_items(pool: "Pool", count: int, seed: int) -> "list[Task]":
    """Return items as the shipped pool was measured on, a third of them SCAN."""
    from r2reasoner.nano.items import calibration_items, weight_set
    from r2reasoner.nano.ladder import trained_split

    weights = weight_set(trained_split(pool))
    commands = count // 3 if weights.arithmetic else count
    return calibration_items(weights, commands, count - commands, seed)


@dataclass(slots=True)
class _Run:
    """One scoring, with its progress on a terminal."""

    pool: "Pool"
    card: "Card"
    subtasks: _Subtasks
    ledger: "SpendingLedger"
    wanted: int
    seed: int
    store: Path | None
    scoring: "Scoring | None" = None

    async def score(self) -> None:
        """Score the newcomer. Raises what `Scoring.run` raises, and ConfigError for the store."""
        from r2reasoner.budget import Meter
        from r2reasoner.client import PoolClient
        from r2reasoner.decomposer import open_decomposer
        from r2reasoner.ledger import new_id
        from r2reasoner.newcomer import Scoring

        client = PoolClient()
        with ExitStack() as held:
            try:
                self.scoring = Scoring(
                    self.pool,
                    self.card,
                    self._recorded(client, held),
                    open_decomposer(self.pool.card(self.pool.decomposer)),
                    Meter(self.ledger, f"add-{new_id()}"),
                    self.subtasks.grade,
                    self.wanted,
                )
                source = self.subtasks.recorded or self.subtasks.items
                with bar(self.ledger.cap) as progress:
                    shown = progress.add_task("scoring", total=self.wanted, spent="$0")

                    def show(done: int) -> None:
                        progress.update(shown, completed=done, spent=_money(self.ledger.spent))

                    await self.scoring.run(source, self.seed, show)
            finally:
                await client.close()
                await self.ledger.flush()

    def _recorded(self, client: "Client", held: ExitStack) -> "Client":
        """Return the client, with the store before it if there is one."""
        if self.store is None:
            return client
        from r2reasoner.outcomes.client import RecordedClient
        from r2reasoner.outcomes.store import OutcomeStore

        store = held.enter_context(OutcomeStore.open(self.store))
        held.callback(self._judge, store)
        return RecordedClient(client, store, SOURCE)

    def _judge(self, store: Any) -> None:
        """Put beside the newcomer's answers how each was judged."""
        from r2reasoner.calibrate import request
        from r2reasoner.outcomes.store import Outcome, answer_key, content_id
        from r2reasoner.references import plan_document

        for reference, number, outcome in self.scoring.scored if self.scoring else ():
            store.add(
                Outcome(
                    content_id(reference.query),
                    content_id(json.dumps(plan_document(reference.plan))),
                    number,
                    self.card.name,
                    answer_key(self.card, request(reference, number, self.card)),
                    float(outcome.right),
                    f"{SOURCE}, {self.subtasks.scorer}",
                )
            )


def _write(run: _Run, measured: "OutcomeModel", files: _Files) -> "Joined":
    """Write what was measured, and the pool file last, so that it names what is there."""
    from r2reasoner.calibrate import write_raw
    from r2reasoner.config import TABLE, read_toml
    from r2reasoner.newcomer import join
    from r2reasoner.pool.write import write_pool
    from r2reasoner.references import references_file, write_references

    assert run.scoring is not None
    pool, outcomes, subtasks = run.pool, run.scoring.outcomes, run.subtasks
    before = pool.outcomes.with_suffix(".jsonl") if pool.outcomes else None
    known = before.read_text(encoding="utf-8") if before and before.is_file() else ""
    router = read_toml(pool.source).get(TABLE) if pool.source else None
    references = subtasks.recorded or run.scoring.references
    write_raw(files.outcomes, outcomes, known)
    write_references(references_file(files.outcomes), references, subtasks.scorer)
    joined = join(pool, run.card, measured, outcomes)
    joined.estimate.save(files.outcomes)
    with_newcomer = replace(joined.pool, outcomes=files.outcomes.resolve())
    write_pool(with_newcomer, files.pool, base=files.pool.resolve().parent, router=router)
    return joined


def _nothing(card: "Card", subtasks: _Subtasks) -> DataError:
    return DataError(
        f"nothing to score {card.name} on: no item of {subtasks.origin} was answered right by any"
        " model; take easier items, or check the answers and the scorer"
    )


@dataclass(frozen=True, slots=True)
class _Report:
    """What the command tells at its end. `spent` (pico-dollars) None: a price is unknown."""

    run: _Run
    scoring: "Scoring"
    joined: "Joined"
    files: _Files
    spent: "Pico | None"
    ended: R2Error | None

    @property
    def right(self) -> float:
        """The newcomer's share of right answers."""
        outcomes = self.scoring.outcomes
        return sum(outcome.right for outcome in outcomes) / len(outcomes)

    @property
    def place(self) -> int:
        """The newcomer's rank, from 1, the weakest."""
        return 1 + [c.name for c in self.joined.pool.workers].index(self.run.card.name)

    def next_step(self) -> str:
        """Return the one line that says what to do now."""
        if self.joined.pool.allocator == "ladder":
            return f'to use what was measured, put allocator = "calibrated" in {self.files.pool}'
        return f'now: r2reasoner ask --pool {self.files.pool} "..."'

    def ladder(self) -> list[dict[str, Any]]:
        """Return the workers, weakest first, with their shares right on the same subtasks."""
        rows = []
        for card in self.joined.pool.workers:
            cost = self.joined.estimate.mean_cost.get(card.name)
            rows.append(
                {
                    "model": card.name,
                    "right": self.joined.right.get(card.name),
                    "mean_cost_pico": None if cost is None or cost != cost else cost,
                    "prior": self.joined.prior.get(card.name),
                }
            )
        return rows

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON document."""
        costs = [outcome.cost for outcome in self.scoring.outcomes]
        known = [cost for cost in costs if cost is not None]
        return {
            "pool": self.run.pool.name,
            "model": self.run.card.name,
            "wanted": self.run.wanted,
            "subtasks": len(costs),
            "failed": self.scoring.failed,
            "origin": self.run.subtasks.origin,
            "right": self.right,
            "place": self.place,
            "ladder": self.ladder(),
            "cost_pico": self.spent,
            "own_cost_pico": sum(known) if len(known) == len(costs) else None,
            "stopped": None if self.ended is None else str(self.ended),
            "out": str(self.files.pool),
            "outcomes": str(self.files.outcomes),
            "next": self.next_step(),
        }

    def show(self) -> None:
        """Print the report."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        new = self.run.card.name
        table = Table(box=None, pad_edge=False)
        table.add_column("model")
        table.add_column("right, by estimate", justify="right")
        table.add_column("mean cost", justify="right")
        for row in self.ladder():
            share, mean = row["right"], row["mean_cost_pico"]
            cost = _money(None if mean is None else round(mean))
            name = Text(row["model"], style="bold" if row["model"] == new else "")
            table.add_row(name, "" if share is None else f"{share:.1%}", cost)
        Console().print(table)
        count, workers = len(self.scoring.scored), len(self.joined.pool.workers)
        failed = f", {self.scoring.failed:,} calls failed" if self.scoring.failed else ""
        print(
            f"{new} is right on {self.right:.1%} of {count:,} subtasks{failed}, for"
            f" {_money(self.spent)} in all: {self.place} of {workers}, from the weakest"
        )
        if self.ended is not None:
            print(f"stopped: {self.ended}")
        elif count + self.scoring.failed < self.run.wanted:
            print(f"{self.run.wanted:,} were wanted; {self.run.subtasks.origin} has no more")
        if count < FEW:
            print(f"fewer than {FEW} subtasks: take its estimate with care")
        print(f"wrote {self.files.pool} and {self.files.outcomes}; {self.next_step()}")


def _money(pico: "Pico | None") -> str:
    from r2reasoner.bill import show_money

    return show_money(pico)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
