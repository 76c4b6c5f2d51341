"""Training rows of the nano workers: (question, answer) texts of a weight set.

Every rule about what a worker may see stands here: SCAN's official training side of the set's
split, and arithmetic whose operations are all on the `train` side.
"""

import random
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import Final, NamedTuple

from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.vocabulary import MOST_SUBTASKS

TRAIN: Final[frozenset[arithmetic.Side]] = frozenset({"train"})
SIGN_WEIGHTS: Final = {"+": 0.3, "-": 0.35, "*": 0.35}
BRACKETED_SHARE: Final = 0.12
SCAN_SHARE: Final = 0.12
PHRASE_SHARE: Final = 0.25
_ATOM: Final = re.compile(r"#?\d+")
_NUMBER: Final = re.compile(r"(?<!#)\b\d+")


class Row(NamedTuple):
    """One training row: what is asked and what is right."""

    question: str
    answer: str


class Mix(NamedTuple):
    """What a worker's rows are drawn from; a shifted mix leaves out what search runs on."""

    commands: list[str]
    most_operands: int = 4
    scan_share: float = SCAN_SHARE


def rows(mix: Mix, count: int, seed: int) -> Iterator[Row]:
    """Yield `count` rows of a mix, reproducibly."""
    rng = random.Random(f"rows {seed}")
    actions = {command: scan.interpret(command) for command in mix.commands}
    single = [c for c in mix.commands if "and" not in c.split() and "after" not in c.split()]
    for _ in range(count):
        if rng.random() < mix.scan_share:
            command = rng.choice(single if rng.random() < PHRASE_SHARE else mix.commands)
            yield Row(command, actions[command])
        else:
            yield arithmetic_row(mix.most_operands, rng)


def policy_rows(lines: Iterable[tuple[str, str]], copies: int, seed: int) -> Iterator[Row]:
    """Yield a decomposer's rows: each line, and steps in `copies` versions with other references.

    There references are renumbered and some numbers are references, so that the policy has read
    `#7` and `#2 - ( #5 + 47 )` though no training query makes them. References of a whole plan
    count its own subtasks, so they stay.
    """
    rng = random.Random(f"policy rows {seed}")
    for asked, written in lines:
        yield Row(asked, written)
        for _ in range(copies):
            yield (
                _with_references(asked, written, rng)
                if _NUMBER.search(asked)
                else Row(asked, written)
            )


def _with_references(asked: str, written: str, rng: random.Random) -> Row:
    share = rng.choice((0.0, 0.2, 0.4))
    atoms = list(dict.fromkeys(_ATOM.findall(asked)))
    chosen = [atom for atom in atoms if atom.startswith("#") or rng.random() < share]
    chosen = chosen[:MOST_SUBTASKS]
    numbers = rng.sample(range(1, MOST_SUBTASKS + 1), len(chosen))
    new = {atom: f"#{n}" for atom, n in zip(chosen, numbers, strict=True)}

    def rename(text: str) -> str:
        return _ATOM.sub(lambda m: new.get(m.group(0), m.group(0)), text)

    return Row(rename(asked), rename(written))


def arithmetic_row(most_operands: int, rng: random.Random) -> Row:
    """Draw a single operation (two times in three) or a whole expression of 3 operands or more."""
    if most_operands > 2 and rng.random() < 1 / 3:
        node = arithmetic.sample(rng.randint(3, most_operands), TRAIN, rng)
        return Row(arithmetic.render(node), str(node.value))
    left, sign, right = _met(rng) if rng.random() < 0.5 else _balanced(rng)
    text = f"{left} {sign} {right}"
    if rng.random() < BRACKETED_SHARE:
        text = f"( {text} )"
    return Row(text, str(arithmetic.OPERATORS[sign](left, right)))


def _met(rng: random.Random) -> arithmetic.Operation:
    """Draw an operation as met while evaluating expressions of the family."""
    node = arithmetic.sample(rng.randint(2, 4), TRAIN, rng)
    return rng.choice(list(arithmetic.operations(node)))


def _balanced(rng: random.Random) -> arithmetic.Operation:
    """Draw an operation evenly over signs and digit counts."""
    while True:
        sign = rng.choices(list(SIGN_WEIGHTS), list(SIGN_WEIGHTS.values()))[0]
        operation = rng.choice(_products()) if sign == "*" else _sum_or_difference(sign, rng)
        if arithmetic.side(operation) == "train":
            return operation


def _sum_or_difference(sign: str, rng: random.Random) -> arithmetic.Operation:
    while True:
        left, right = (rng.randint(*rng.choice([(0, 9), (10, 99), (100, 999)])) for _ in "ab")
        if 0 <= arithmetic.OPERATORS[sign](left, right) <= arithmetic.LARGEST_VALUE:
            return left, sign, right


@cache
def _products() -> list[arithmetic.Operation]:
    """All products in range; the large ones ("nobody can") thinned to a tenth of the rest."""
    pairs = [(a, "*", b) for a, b in product(range(1000), repeat=2) if a * b <= 999 and (a or b)]
    zero_free = [p for p in pairs if p[0] and p[2]]
    large = [p for p in zero_free if arithmetic.is_large_product(p)]
    small = [p for p in zero_free if not arithmetic.is_large_product(p)]
    return small + random.Random("large products").sample(large, min(len(large), len(small) // 10))
