"""Train the nano policies in parts and with parts left out, and judge every variant alike.

    python recipes/ablation.py --out runs/ablation --seeds 0,1,2 --jobs 2
    python recipes/ablation.py --out runs/ablation --table docs/results/ablation.json

Data and fine-tuning are done once for each seed; every variant goes on from there in a run folder
of its own. What is judged is the greedy, converted policy, through the router, on test items.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from r2reasoner.strategies.kind_table import KindTable, Trials, Tried

DATA: Final = ("workers", "decompositions", "allocations")
TUNED: Final = ("sft-decomposer", "sft-allocator")
NO_SFT: Final = ("sft.decomposer.steps=0", "sft.allocator.steps=0")
VARIANTS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    # name: what the recipe is told, and which stages are taken from the base run
    "untrained": ((*NO_SFT, "grpo.rounds=0"), DATA),
    "sft": (("grpo.rounds=0",), (*DATA, *TUNED)),
    "sft+grpo-decomposer": (("grpo.steps_allocator=0",), (*DATA, *TUNED)),
    "sft+grpo-allocator": (("grpo.steps_decomposer=0",), (*DATA, *TUNED)),
    "alternating": ((), (*DATA, *TUNED)),
    "without-sft": (NO_SFT, DATA),
    "without-cost": (("reward.lambda_floor=0", "reward.lambda_max=0"), (*DATA, *TUNED)),
    "per-subtask-credit": (("reward.per_subtask_credit=0.5",), (*DATA, *TUNED)),
    "shuffled-labels": (
        ("controls.shuffle_labels=true", "grpo.rounds=0", "sft.decomposer.steps=1000"),
        DATA,
    ),
}
TABLE: Final = "kind-table"
DIALS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
ITEMS: Final = 1000
TEST_SEED: Final = 21


def main() -> None:
    """Train what is missing, judge it, or print the table of what was judged."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--recipe", default="nano")
    options.add_argument("--out", type=Path, default=Path("runs/ablation"))
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--variants", default=",".join(VARIANTS))
    options.add_argument("--set", action="append", default=[], dest="settings")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--one", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        seed, _, variant = chosen.one.partition(":")
        one(chosen, int(seed), variant)
        return
    seeds = [int(s) for s in chosen.seeds.split(",")]
    variants = chosen.variants.split(",")
    with ThreadPoolExecutor(chosen.jobs) as jobs:
        bases = {s: jobs.submit(child, chosen, s, "base") for s in seeds}

        def after_base(seed: int, variant: str) -> None:
            bases[seed].result()
            child(chosen, seed, variant)

        for variant in [*variants, TABLE]:
            for seed in seeds:
                jobs.submit(after_base, seed, variant)


def child(chosen: argparse.Namespace, seed: int, variant: str) -> None:
    """Do one run in a process of its own, on one core."""
    arguments = [
        *("--recipe", chosen.recipe, "--out", str(chosen.out), "--one", f"{seed}:{variant}"),
        *(word for setting in chosen.settings for word in ("--set", setting)),
    ]
    done = subprocess.run([sys.executable, __file__, *arguments], check=False)
    if done.returncode:
        print(f"seed {seed}, {variant}: failed", file=sys.stderr)


def one(chosen: argparse.Namespace, seed: int, variant: str) -> None:
    """Train a variant of a seed, and judge it."""
    from r2reasoner.training.alternate import fork, run
    from r2reasoner.training.recipe import load_recipe, stages

    base = chosen.out / f"{seed}-base"
    folder = chosen.out / f"{seed}-{variant}"
    told, kept = VARIANTS.get(variant, ((), ()))
    recipe = load_recipe(chosen.recipe, [*recipe_of(chosen, seed, folder), *told])

    def say(line: str) -> None:
        print(f"[{seed} {variant}] {line}", file=sys.stderr, flush=True)

    if variant == "base":
        run(recipe, [*DATA, *TUNED], say)
        return
    if variant == TABLE:
        recipe = load_recipe(chosen.recipe, [*recipe_of(chosen, seed, folder), "grpo.rounds=0"])
        kept = (*DATA, *TUNED)
    if not (folder / "config.toml").exists():
        fork(base, recipe, kept)
    run(recipe, stages(recipe), say)
    result = folder / "judged.json"
    if not result.exists():
        document = judged(folder, seed, variant)
        result.write_text(json.dumps(document) + "\n")


def recipe_of(chosen: argparse.Namespace, seed: int, folder: Path) -> list[str]:
    """Return what every run's recipe is told."""
    return [*chosen.settings, f"recipe.seed={seed}", f'recipe.out="{folder}"']


def judged(folder: Path, seed: int, variant: str) -> dict[str, Any]:
    """Return rows of the variant's pool on all test items at all settings of the dial."""
    from r2reasoner.pool.load import load_pool

    pool = load_pool(folder / "pool.toml")
    table = fit_table(folder) if variant == TABLE else None
    found = asyncio.run(_judge(pool, folder, table))
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "seed": seed,
        "variant": variant,
        "minutes": summary["total"]["hours"] * 60,
        "dollars": summary["total"]["dollars"],
        "rows": found,
    }


async def _judge(pool: Any, folder: Path, table: "KindTable | None") -> list[dict[str, Any]]:
    from r2reasoner.benchmarks import ARITHMETIC, SCAN
    from r2reasoner.client import PoolClient
    from r2reasoner.config import settings
    from r2reasoner.evaluation.evaluate import Evaluation, evaluate, limited
    from r2reasoner.evaluation.rows import RowsFile
    from r2reasoner.nano.splits import make_items
    from r2reasoner.outcomes.client import RecordedClient
    from r2reasoner.outcomes.store import OutcomeStore
    from r2reasoner.training.rollouts import TrainingLedger

    tests = {
        (ARITHMETIC, "test"): make_items(ARITHMETIC, "test", TEST_SEED, ITEMS),
        (SCAN, "length"): limited(make_items(SCAN, "length", 0, None), ITEMS, TEST_SEED),
        (ARITHMETIC, "test:2"): make_items(ARITHMETIC, "test:2", TEST_SEED, 300),
    }
    found: list[dict[str, Any]] = []
    with (
        OutcomeStore.open(folder / "outcomes") as store,
        TrainingLedger.in_memory() as ledger,
        RowsFile(folder / "judged.rows.jsonl") as rows,
    ):
        client = RecordedClient(PoolClient(), store, "judged")
        for (benchmark, split), items in tests.items():
            evaluation = Evaluation(
                benchmark=benchmark,
                split=split,
                items=items,
                strategies=tuple(f"r2@{dial:g}" for dial in DIALS),
                pool=pool,
                settings=settings(),
            )
            if table is not None:
                routers = {
                    f"r2@{dial:g}": by_table(table, pool, dial, ledger, client) for dial in DIALS
                }
                found += await _by_table(evaluation, routers)
                continue
            for strategy in await evaluate(evaluation, ledger, client, rows):
                found += [_short(asdict(row)) for row in strategy]
        await client.close()
    return found


async def _by_table(evaluation: Any, routers: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows of routers that no strategy's name stands for."""
    gate = asyncio.Semaphore(96)

    async def one(name: str, router: Any, item: Any) -> dict[str, Any]:
        async with gate:
            trace = await router.trace(item.query)
        return {
            "benchmark": evaluation.benchmark.name,
            "split": evaluation.split,
            "strategy": name,
            "item": item.id,
            "right": evaluation.benchmark.grade(trace.answer.text, item.gold) is True,
            "workers_cost": trace.workers_cost,
            "net_cost": trace.cost(),
            "subtasks": len(trace.plan.subtasks),
            "decomposed": not trace.plan.is_direct,
            "plan_failed": trace.plan_failed,
            "models": {},
        }

    wanted = [(n, r, i) for n, r in routers.items() for i in evaluation.items]
    return await asyncio.gather(*(one(*each) for each in wanted))


def by_table(table: "KindTable", pool: Any, dial: float, ledger: Any, client: Any) -> Any:
    """Return the pool's decomposer with a table as its allocator, at the reward's own trade-off."""
    from r2reasoner.config import settings
    from r2reasoner.plan import in_context
    from r2reasoner.router import Router
    from r2reasoner.strategies.base import RuleAllocator
    from r2reasoner.training.recipe import Reward
    from r2reasoner.training.rewards import weight_at

    weight = weight_at(dial, Reward())

    def rule(query: Any, plan: Any) -> Any:
        return lambda number: pool.card(table.best(in_context(plan, number), weight))

    allocator = RuleAllocator(TABLE, pool.workers, rule)
    return Router.open(pool, settings(trade_off=dial), ledger, client=client, allocator=allocator)


def fit_table(folder: Path) -> "KindTable":
    """Fit the table on the subtasks of the allocation data, every model asked for each."""
    from r2reasoner.client import PoolClient
    from r2reasoner.nano.solve import solve_arithmetic, solve_scan
    from r2reasoner.outcomes.client import RecordedClient
    from r2reasoner.outcomes.store import OutcomeStore
    from r2reasoner.plan import expand, in_context
    from r2reasoner.pool.load import load_pool
    from r2reasoner.strategies.kind_table import KindTable, kind_of
    from r2reasoner.training.rollouts import TrainingLedger
    from r2reasoner.training.rows import read_plan
    from r2reasoner.training.run_folder import RunFolder
    from r2reasoner.training.shard_folder import made_rows

    pool = load_pool(folder / "pool.toml")
    rows = made_rows(RunFolder.reading(folder).produced("allocations")["allocations"])

    def truth(text: str) -> str | None:
        return solve_arithmetic(text) if any(c.isdigit() for c in text) else solve_scan(text)

    asked: list[tuple[str, str, str, float]] = []
    for row in rows:
        plan = read_plan(row["plan"], row["query"])
        answers: dict[int, str] = {}
        for number, subtask in enumerate(plan.subtasks, 1):
            text = expand(subtask.text, answers)
            right = text if subtask.is_join else truth(text)
            if right is None:
                break
            answers[number] = right
            if not subtask.is_join:
                asked.append(
                    (kind_of(in_context(plan, number)), text, right, row["reference_cost"])
                )

    async def ask() -> KindTable:
        with OutcomeStore.open(folder / "outcomes") as store:
            ledger = TrainingLedger.in_memory()
            client = RecordedClient(PoolClient(), store, TABLE)
            found = await _ask_all(pool, asked, client, ledger)
            await client.close()
        return KindTable(found, [card.name for card in pool.workers])

    return asyncio.run(ask())


async def _ask_all(
    pool: Any, asked: list[tuple[str, str, str, float]], client: Any, ledger: Any
) -> "Trials":
    from r2reasoner.budget import Meter
    from r2reasoner.client.base import ChatRequest
    from r2reasoner.errors import CallError
    from r2reasoner.strategies.kind_table import Tried
    from r2reasoner.types import Message, Role

    gate = asyncio.Semaphore(256)
    meter = Meter(ledger, TABLE)

    async def one(card: Any, text: str, right: str, reference: float) -> "Tried":
        request = ChatRequest(
            messages=(Message("user", text),), max_tokens=card.max_tokens, role=Role.WORKER
        )
        async with gate:
            try:
                said = await client.complete(card, request, meter)
            except CallError:
                return Tried(0.0, 1.0)
        return Tried(float(said.text == right), (said.cost or 0) / reference)

    by_kind: dict[str, list[list[Tried]]] = {}
    for card_number, card in enumerate(pool.workers):
        told = await asyncio.gather(*(one(card, t, r, c) for _, t, r, c in asked))
        for (kind, *_), outcome in zip(asked, told, strict=True):
            of_kind = by_kind.setdefault(kind, [[] for _ in pool.workers])
            of_kind[card_number].append(outcome)
    return by_kind


def _short(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("benchmark", "split", "strategy", "item", "right", "workers_cost", "net_cost")
    return {name: row[name] for name in (*kept, "subtasks", "decomposed", "plan_failed", "models")}


def documents(out: Path) -> Iterator[dict[str, Any]]:
    """Yield what was judged."""
    for file in sorted(out.glob("*/judged.json")):
        yield json.loads(file.read_text())


if __name__ == "__main__":
    main()
