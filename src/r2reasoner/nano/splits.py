"""The test side of the nano tasks' splits: items made on the spot, and which items are no test.

SCAN: `length` and `addprim_jump` are generated whole; `simple` can only be read from a file.
Arithmetic: `test` meets held-out operations only, `values` a two-digit number that nobody saw;
both take operand counts after a colon (`test:5`), else 3 and 4 in turn.
"""

from functools import cache
from typing import Final

from r2reasoner.benchmarks import ARITHMETIC, SCAN, Benchmark, Item
from r2reasoner.config import did_you_mean
from r2reasoner.errors import ConfigError
from r2reasoner.nano import arithmetic, scan
from r2reasoner.pool.cards import Pool

OPERANDS: Final = (3, 4)
MOST_OPERANDS: Final = 6
ARITHMETIC_ITEMS: Final = 1000
ARITHMETIC_SPLITS: Final = frozenset({"test", "values"})


def check_split(benchmark: Benchmark, split: str, pool: Pool, *, from_file: bool) -> None:
    """Raise ConfigError for an unknown split, or one that the pool's weights are no match for."""
    if benchmark is SCAN and split not in scan.SPLITS:
        known = did_you_mean(split, set(scan.SPLITS))
        raise ConfigError(f"no SCAN split {split!r}{known}")
    if benchmark is ARITHMETIC and not from_file:
        _operands(split)
    trained = trained_splits(pool)
    wanted = {SCAN: split, ARITHMETIC: ARITHMETIC.name}.get(benchmark)
    if trained and wanted is not None and wanted not in trained:
        raise ConfigError(
            f"the weights of pool {pool.name!r} were trained for {', '.join(sorted(trained))}, so"
            f" what they score on {wanted} means nothing; choose another --split, or a --pool"
            " trained for it"
        )


def default_split(benchmark: Benchmark, pool: Pool) -> str:
    """Return the split to take where none is asked for: one that the pool was trained for."""
    fitting = [s for s in scan.SPLITS if s in trained_splits(pool)] if benchmark is SCAN else []
    if benchmark.default_split in fitting or not fitting:
        return benchmark.default_split
    return fitting[0]


def trained_splits(pool: Pool) -> frozenset[str]:
    """Return the splits that a pool's weights were trained for; none means that it is not said."""
    return frozenset(getattr(pool, "splits", None) or ())


def is_made(benchmark: Benchmark) -> bool:
    """Tell whether `make_items` makes items of a benchmark."""
    return benchmark is SCAN or benchmark is ARITHMETIC


def make_items(benchmark: Benchmark, split: str, seed: int, count: int | None) -> tuple[Item, ...]:
    """Return the test items of a split: SCAN's whole side, or `count` arithmetic ones by seed.

    Raises ConfigError for what cannot be made here.
    """
    if benchmark is SCAN and split != "simple":
        _, commands = scan.split(split)
        return SCAN.items({"command": c, "actions": scan.interpret(c)} for c in commands)
    if benchmark is ARITHMETIC:
        operands = _operands(split)
        wanted = ARITHMETIC_ITEMS if count is None else count
        unseen = split.startswith("values")
        return ARITHMETIC.items(
            arithmetic.held_out_items(operands, wanted, seed, unseen_values=unseen)
        )
    if benchmark is SCAN:
        raise ConfigError("SCAN's split simple is random: give its official file with --items")
    raise ConfigError(f"{benchmark.name}: give its items with --items FILE.jsonl or FOLDER")


def is_trained_on(benchmark: Benchmark, split: str, item: Item) -> bool:
    """Tell whether an item stands on the training side, so that it tests nothing."""
    if benchmark is SCAN:
        return split != "simple" and item.query in _training_commands(split)
    if benchmark is not ARITHMETIC:
        return False
    try:
        met = arithmetic.operations(arithmetic.parse(item.query))
        return any(arithmetic.side(o) not in arithmetic.UNSEEN for o in met)
    except ValueError:
        return False


@cache
def _training_commands(split: str) -> frozenset[str]:
    return frozenset(scan.split(split)[0])


def _operands(split: str) -> list[int]:
    name, colon, counts = split.partition(":")
    operands = [int(n) for n in counts.split(",") if n.isascii() and n.isdigit()]
    fits = len(operands) == len(counts.split(",")) if colon else not operands
    if name not in ARITHMETIC_SPLITS or not fits:
        raise ConfigError(f"no arithmetic split {split!r}; known: test, values, test:5, test:3,4")
    if any(not 2 <= n <= MOST_OPERANDS for n in operands):
        raise ConfigError(f"{split}: expected 2 to {MOST_OPERANDS} operands")
    return operands or list(OPERANDS)
