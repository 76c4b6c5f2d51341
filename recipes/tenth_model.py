"""A tenth model: leave one worker out of a pool, add it again by `pool add`, compare.

python recipes/tenth_model.py [--pool FILE] [--hold-out MODEL ...] [--allocator NAME ...]

The pool of the others is written as a file; the command itself adds the worker, scored on N
subtasks, for several N and several draws of them. Both pools then answer the same test items, and
so does the whole pool as it was measured in full. No answer is computed twice: all pools share an
outcome store, so only what they decide differs. What adding costs is booked without the store.

With a pool whose allocator is a trained policy, the policy may name the worker that is left out.
Such a token then means the next stronger worker, as a failed call falls to it: the policy asked
for at least that skill. A policy that was trained without the worker needs no such reading.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from r2reasoner.benchmarks import ARITHMETIC, SCAN, Benchmark, Item
from r2reasoner.client import PoolClient
from r2reasoner.config import settings
from r2reasoner.evaluation.bootstrap import Interval, Ratio, intervals
from r2reasoner.evaluation.evaluate import Evaluation, evaluate, limited
from r2reasoner.evaluation.provenance import provenance
from r2reasoner.evaluation.results import write_result
from r2reasoner.evaluation.rows import ItemRow, RowsFile
from r2reasoner.evaluation.spending import SpendingLedger
from r2reasoner.nano.ladder import trained_split
from r2reasoner.nano.splits import make_items
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import ALLOCATORS, load_pool
from r2reasoner.pool.write import card_text, write_pool
from r2reasoner.types import to_dollars

OWN: Final = "own"
BEFORE: Final = "before"
FULL: Final = "all measured in full"


class Tested(NamedTuple):
    """The test items of a benchmark."""

    benchmark: Benchmark
    split: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a pool on a benchmark, compared with the pool before.

    Figures are means over `draws` draws of the subtasks, costs dollars an item; `adding` is what
    adding cost in dollars, `own` the newcomer's calls alone. `worst_difference` is of the draw
    with the lowest accuracy.
    """

    held_out: str
    allocator: str
    benchmark: str
    split: str
    n: int
    stage: str
    draws: int
    accuracy: float
    accuracy_difference: float
    accuracy_difference_ci95: Interval | None
    worst_difference: float
    net_cost: float
    net_cost_ratio: float
    net_cost_ratio_ci95: Interval | None
    newcomer_share: float
    adding: float | None
    own: float | None
    places: list[int]


def main() -> None:
    """Print the table and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pool", default="nano", help="a shipped pool or a pool file")
    parser.add_argument("--hold-out", nargs="+", default=["96x3", "64x2"], metavar="MODEL")
    parser.add_argument(
        "--allocator",
        nargs="+",
        default=[OWN, "calibrated"],
        metavar="NAME",
        help=f"allocators of the pools, by name as in a pool file; {OWN}: the pool's",
    )
    parser.add_argument("--calibrate", nargs="+", type=int, default=[20, 50, 200], metavar="N")
    parser.add_argument("--draws", type=int, default=3, help="draws of the subtasks, for each N")
    parser.add_argument("--items", type=int, default=1000, help="test items of each benchmark")
    parser.add_argument("--seed", type=int, default=3, help="of the items and the intervals")
    parser.add_argument("--trade-off", type=float, default=0.3)
    parser.add_argument("--work", type=Path, default=Path("runs/tenth-model"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/training/tenth-model.json"))
    options = parser.parse_args()
    lines = asyncio.run(compare(options))
    write_result(
        options.out,
        {
            "provenance": provenance(load_pool(options.pool), options.seed)
            | {"trade_off": options.trade_off},
            "rows": [asdict(line) for line in lines],
        },
    )
    print("\n".join(table(lines)))


async def compare(options: argparse.Namespace) -> list[Line]:
    """Return the lines of all workers that are left out."""
    options.work.mkdir(parents=True, exist_ok=True)
    pool = load_pool(options.pool)
    lines: list[Line] = []
    with (
        OutcomeStore.open(options.work / "store") as store,
        SpendingLedger.in_memory() as ledger,
        RowsFile(options.work / "rows.jsonl") as rows,
    ):
        client = RecordedClient(PoolClient(), store, "tenth model")
        bench = _Bench(options, ledger, client, rows)
        for name in options.hold_out:
            added = {n: add(pool, name, n, options) for n in options.calibrate}
            before = load_pool(options.work / name / "before.toml")
            for allocator in dict.fromkeys(allocators(pool, options.allocator)):
                for tested in test_sets(pool, options.items, options.seed):
                    lines += await bench.lines(name, allocator, tested, before, added, pool)
        await client.close()
    return lines


def allocators(pool: Pool, names: Sequence[str]) -> list[str]:
    """Return the names of allocators as a pool file has them. Raises ConfigError."""
    wanted = [pool.allocator if name == OWN else name for name in names]
    return [name if name in ALLOCATORS else pool.card(name).name for name in wanted]


def test_sets(pool: Pool, count: int, seed: int) -> Iterator[Tested]:
    """Yield the test items that the pool's weights are meant for."""
    wanted = [(SCAN, trained_split(pool))]
    if "arithmetic" in pool.splits:
        wanted.append((ARITHMETIC, "test"))
    for benchmark, split in wanted:
        items = limited(make_items(benchmark, split, seed, count), count, seed)
        yield Tested(benchmark, split, items)


def without(pool: Pool, name: str) -> Pool:
    """Return the pool without a worker; a policy's token for it means the next stronger one."""
    card = pool.card(name)
    left = tuple(worker for worker in pool.workers if worker is not card)
    stand_in = next(iter(pool.stronger(name)), left[-1]).name
    policies = {
        key: replace(c, knows=tuple(stand_in if known == name else known for known in c.knows))
        for key, c in pool.policies.items()
    }
    return replace(pool, workers=left, policies=policies)


def add(pool: Pool, name: str, count: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Leave a worker out and add it by the command, once a draw; return what it reports."""
    folder = options.work / name
    folder.mkdir(exist_ok=True)
    write_pool(without(pool, name), folder / "before.toml")
    (folder / "card.toml").write_text(card_text(pool.card(name)))
    reports = []
    for draw in range(options.draws):
        out = folder / f"after-{count}-{draw}.toml"
        told = subprocess.run(
            [
                str(Path(sys.executable).with_name("r2reasoner")),
                *("pool", "add", str(folder / "card.toml"), "--pool", str(folder / "before.toml")),
                *("--calibrate", str(count), "--seed", str(draw), "--out", str(out)),
                *("--db", str(options.work / "adding.db"), "--force", "--json"),
            ],
            check=False,
            stdout=subprocess.PIPE,
        )
        report = json.loads(told.stdout)
        if told.returncode:
            sys.exit(f"error: {report['error']['message']}")
        reports.append(report)
    return reports


@dataclass(frozen=True, slots=True)
class _Bench:
    """Answers test items with a pool, once under the same conditions."""

    options: argparse.Namespace
    ledger: SpendingLedger
    client: RecordedClient
    rows: RowsFile

    async def lines(
        self,
        name: str,
        allocator: str,
        tested: Tested,
        before: Pool,
        added: Mapping[int, Sequence[dict[str, Any]]],
        whole: Pool,
    ) -> list[Line]:
        """Return the lines of one worker, allocator and benchmark."""
        base = await self._rows(before, allocator, tested)
        compared = _Compared(name, allocator, tested, base, self.options.seed)
        lines = [compared.line(BEFORE, [base], [])]
        for n, reports in added.items():
            pools = [load_pool(report["out"]) for report in reports]
            found = [await self._rows(pool, allocator, tested) for pool in pools]
            lines.append(compared.line(f"N = {n}", found, reports))
        return [*lines, compared.line(FULL, [await self._rows(whole, allocator, tested)], [])]

    async def _rows(self, pool: Pool, allocator: str, tested: Tested) -> list[ItemRow]:
        """Return a row an item, in the order of the items."""
        evaluation = Evaluation(
            benchmark=tested.benchmark,
            split=tested.split,
            items=tested.items,
            strategies=("r2",),
            pool=replace(pool, allocator=allocator),
            settings=settings(trade_off=self.options.trade_off),
            seed=self.options.seed,
        )
        (found,) = await evaluate(evaluation, self.ledger, self.client, self.rows)
        return found


@dataclass(frozen=True, slots=True)
class _Compared:
    """What lines are compared with: the rows of the pool before."""

    name: str
    allocator: str
    tested: Tested
    base: Sequence[ItemRow]
    seed: int

    def line(
        self,
        stage: str,
        draws: Sequence[Sequence[ItemRow]],
        reports: Sequence[dict[str, Any]],
    ) -> Line:
        """Compare pools with the pool before, item by item, on the mean over the draws."""
        right, cost = _mean(draws, "right"), _mean(draws, "net_cost")
        right_before = _mean([self.base], "right")
        difference = Ratio(right - right_before, np.ones(len(self.base)))
        ratio = Ratio(cost, _mean([self.base], "net_cost"))
        difference_ci, ratio_ci = intervals([difference, ratio], self.seed)
        answered = [sum(row.models.values()) for rows in draws for row in rows]
        by_newcomer = [row.models.get(self.name, 0) for rows in draws for row in rows]
        accuracies = [float(_mean([rows], "right").mean()) for rows in draws]
        return Line(
            held_out=self.name,
            allocator=self.allocator,
            benchmark=self.tested.benchmark.name,
            split=self.tested.split,
            n=len(self.base),
            stage=stage,
            draws=len(draws),
            accuracy=float(right.mean()),
            accuracy_difference=float(difference.numerator.mean()),
            accuracy_difference_ci95=difference_ci,
            worst_difference=min(accuracies) - float(right_before.mean()),
            net_cost=float(to_dollars(round(cost.mean()))),
            net_cost_ratio=float(cost.sum() / ratio.denominator.sum()),
            net_cost_ratio_ci95=ratio_ci,
            newcomer_share=sum(by_newcomer) / sum(answered),
            adding=_mean_dollars(reports, "cost_pico"),
            own=_mean_dollars(reports, "own_cost_pico"),
            places=[report["place"] for report in reports],
        )


def _mean(draws: Sequence[Sequence[ItemRow]], field: str) -> Any:
    return np.mean([[float(getattr(row, field)) for row in rows] for rows in draws], axis=0)


def _mean_dollars(reports: Sequence[dict[str, Any]], field: str) -> float | None:
    if not reports:
        return None
    return float(to_dollars(round(np.mean([report[field] for report in reports]))))


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Yield a Markdown table: one line per worker left out, allocator, benchmark and pool."""
    yield (
        "| left out | allocator | test items | pool | right | against before, points (worst draw)"
        " | net cost, µ$ an item | against before | subtasks it gets"
        " | place | adding it, µ$ (its own calls) |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for line in lines:
        yield "| " + " | ".join(_cells(line)) + " |"


def _cells(line: Line) -> Iterator[str]:
    yield line.held_out
    yield line.allocator
    yield f"{line.benchmark} {line.split} ({line.n:,})"
    yield line.stage
    yield f"{line.accuracy:.1%}"
    if line.stage == BEFORE:
        yield from ("", f"{line.net_cost * 1e6:.3g}", "", "", "", "")
        return
    worst = f" ({100 * line.worst_difference:+.1f})" if line.draws > 1 else ""
    yield f"{100 * line.accuracy_difference:+.1f} {_interval(line.accuracy_difference_ci95)}{worst}"
    yield f"{line.net_cost * 1e6:.3g}"
    yield f"{line.net_cost_ratio:.1%} {_interval(line.net_cost_ratio_ci95)}"
    yield f"{line.newcomer_share:.1%}"
    yield ", ".join(map(str, line.places))
    adding = line.adding is not None and line.own is not None
    yield f"{(line.adding or 0) * 1e6:.0f} ({(line.own or 0) * 1e6:.0f})" if adding else ""


def _interval(ci95: Interval | None) -> str:
    return "" if ci95 is None else f"[{100 * ci95[0]:.1f}, {100 * ci95[1]:.1f}]"


if __name__ == "__main__":
    main()
