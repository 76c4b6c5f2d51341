"""Where training happens: which items, on which workers, scored how.

A recipe's sources are files of a benchmark (or of one's own), or made here from the training side
of a nano weight set. Nano plans are searched on a worker that has not seen the items; policies are
reinforced on operations that no worker has seen, and SCAN's decompositions once more on the
search's worker, in the place of all others: on what the shipped ones were trained on, answering
directly would look right.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from r2reasoner.benchmarks import ARITHMETIC, BENCHMARKS, SCAN, Grade, open_benchmark
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.items import DEV, WeightSet, search_items, shifted, weight_set
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.training.recipe import Data, Recipe, Source, load_recipe
from r2reasoner.training.rows import Row, item_row
from r2reasoner.training.run_folder import CONFIG
from r2reasoner.types import Task

WORKERS: Final = "workers.toml"
SEARCHER: Final = "searcher.toml"
"""Pool files in a run folder: of the workers that it trained, and of the one that searches."""
MAIN: Final = "main"
SHIFTED: Final = "shifted"


@dataclass(frozen=True)
class Environment:
    """What a recipe trains on. `searcher`: the folder of the search's worker (nano sets only)."""

    recipe: Recipe
    pool: Pool
    searcher: Card | None

    @cached_property
    def weights(self) -> WeightSet | None:
        """The nano weight set, or None. Raises DataError for a file of commands that is none."""
        data = self.recipe.data
        return None if data.nano_set == "none" else nano_weights(data)

    @property
    def parts_first(self) -> bool:
        """True where long items have too many plans, unless those of their parts are found first.

        On `addprim_jump` phrases are cut down to turns and verbs: 900 plans for two of them.
        """
        return self.recipe.data.nano_set == "addprim_jump"

    @property
    def grades(self) -> dict[str, Grade]:
        """The scorer of each family of items."""
        return {family(s): _benchmark_grade(s) for s in self.recipe.data.sources}

    @property
    def search_pool(self) -> Pool:
        """Who runs candidate decompositions."""
        return self.pool if self.searcher is None else _alone(self.pool, self.searcher)

    def pools(self, pool: Pool) -> dict[str, Pool]:
        """Return the pools that rollouts run on, for a pool with the policies of the moment."""
        if self.searcher is None:
            return {MAIN: pool}
        return {MAIN: pool, SHIFTED: _stand_in(pool, self.searcher)}

    def searched(self) -> list[Row]:
        """Return the items whose decompositions are searched. Raises DataError."""
        rows = [row for s in self.recipe.data.sources for row in self._search_rows(s)]
        return _distinct(rows)

    def reinforced(self) -> list[Row]:
        """Return the items whose models are searched and that policies are reinforced on."""
        rows = [row for s in self.recipe.data.sources for row in self._reinforce_rows(s)]
        return _distinct(rows)

    def _search_rows(self, source: Source) -> list[Row]:
        if source.items or source.is_own or self.weights is None:
            return _file_rows(source)[: source.count]
        wanted = (source.count, 0) if source.benchmark == SCAN.name else (0, source.count)
        tasks = search_items(self.weights, *wanted, self.recipe.run.seed, source.operands)
        return [item_row(task, source.benchmark) for task in tasks if _is(source, task)]

    def _reinforce_rows(self, source: Source) -> list[Row]:
        if source.items or source.is_own or self.weights is None:
            rows = _file_rows(source)
            more = rows[source.count : source.count + source.reinforce]
            return more or rows[: source.count]
        rng = random.Random(f"reinforce {self.recipe.run.seed}")
        count = source.reinforce or source.count
        if source.benchmark == SCAN.name:
            known = self._reinforced_commands(self.weights)
            commands = rng.sample(known, min(count, len(known)))
            return [item_row(Task(c, scan.interpret(c)), SCAN.name) for c in commands]
        nodes = (
            arithmetic.sample(source.operands[n % len(source.operands)], DEV, rng)
            for n in range(count)
        )
        return [item_row(Task(arithmetic.render(n), str(n.value)), ARITHMETIC.name) for n in nodes]

    def _reinforced_commands(self, weights: WeightSet) -> Sequence[str]:
        """Return the training commands that policies are reinforced on.

        A policy that cannot tell the verbs apart must meet only verbs that the searcher knows
        alone, or it learns that answering directly is right half of the time.
        """
        return (
            shifted(weights, self.recipe.run.seed).unseen if self.parts_first else weights.training
        )


def nano_weights(data: Data) -> WeightSet:
    """Return the nano weight set of a recipe's data. Raises DataError."""
    file = data.train_items
    commands = [item.query for item in SCAN.load(Path(file))] if file else None
    return weight_set(data.nano_set, commands)


def is_phrase(row: Row) -> bool:
    """Tell whether a SCAN command is a part of longer ones."""
    return not {"and", "after"} & set(row["query"].split())


def family(source: Source) -> str:
    """Return what the items of a source are called."""
    return Path(source.benchmark).stem if source.is_own else source.benchmark


def open_environment(run: Path) -> Environment:
    """Return the environment of a run folder: its recipe, and the workers that it trained.

    Raises ConfigError and DataError for what is wrong with them.
    """
    recipe = load_recipe(run / CONFIG)
    trained = run / WORKERS
    pool = load_pool(trained if trained.is_file() else recipe.run.pool)
    return Environment(recipe, pool, _searcher(run, recipe))


def _searcher(run: Path, recipe: Recipe) -> Card | None:
    home = Path(recipe.data.searcher) if recipe.data.searcher else run
    file = home / SEARCHER
    if recipe.data.nano_set == "none" or not file.is_file():
        return None
    (card,) = load_pool(file).workers
    return card


def _alone(pool: Pool, card: Card) -> Pool:
    return replace(
        pool,
        workers=(card,),
        policies={},
        decomposer=card.name,
        allocator="ladder",
        outcomes=None,
    )


def _stand_in(pool: Pool, card: Card) -> Pool:
    """Return the pool with one model's weights behind every worker's name and price."""
    workers = tuple(
        replace(w, endpoint=card.endpoint, model=card.model, sha256=card.sha256)
        for w in pool.workers
    )
    return replace(pool, workers=workers)


def _is(source: Source, task: Task) -> bool:
    """Tell whether a searched task is of the source: single phrases come with any of them."""
    digits = any(c.isdigit() for c in task.query)
    return digits == (source.benchmark == ARITHMETIC.name)


def _benchmark_grade(source: Source) -> Grade:
    if source.is_own:
        return open_benchmark(source.benchmark, source.scorer).grade
    return BENCHMARKS[source.benchmark].grade


def _file_rows(source: Source) -> list[Row]:
    path = Path(source.benchmark if source.is_own else source.items)
    if not source.is_own and not source.items:
        raise ConfigError(f"{source.benchmark}: no items: name its file in items")
    scorer = source.scorer if source.is_own else None
    items = open_benchmark(source.benchmark, scorer).load(path)
    return [item_row(Task(i.query, i.gold), family(source)) for i in items]


def _distinct(rows: list[Row]) -> list[Row]:
    """Return rows with every item once. Raises DataError where two golds contradict."""
    known: dict[str, Row] = {}
    for row in rows:
        other = known.setdefault(row["item"], row)
        if other["gold"] != row["gold"]:
            raise DataError(
                f"item {row['query'][:80]!r} has two right answers: {other['gold'][:40]!r} and"
                f" {row['gold'][:40]!r}"
            )
    return list(known.values())
