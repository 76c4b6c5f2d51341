"""Training and calibration items of a weight set, and which of them workers have not seen.

`length`: the search's worker is trained on SCAN commands of at most 11 actions (less a fifth)
and on arithmetic of two operands, so that search items are longer, or left out, for it as the
test's are for the shipped workers. `addprim_jump`: one other verb at a time is held out.
"""

import random
from typing import Final, NamedTuple

from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.data import TRAIN, Mix
from r2reasoner.training.decompositions import Item

SHIFTED_ACTIONS: Final = 11
KEPT_SHARE: Final = 0.8
DEV: Final[frozenset[arithmetic.Side]] = frozenset({"dev"})


class Shifted(NamedTuple):
    """What the search's worker is trained on, and SCAN commands that it has not seen."""

    mix: Mix
    unseen: list[str]


def shifted(split: str, seed: int) -> Shifted:
    """Return the shifted training mix of a split and the training commands outside it."""
    rng = random.Random(f"shifted {seed}")
    training, _ = scan.split(split)
    seen = {
        command
        for command in training
        if len(scan.interpret(command).split()) <= SHIFTED_ACTIONS and rng.random() < KEPT_SHARE
    }
    kept = [c for c in training if c in seen]
    return Shifted(Mix(kept, most_operands=2, scan_share=0.3), [c for c in training if c not in seen])


def search_items(split: str, scan_count: int, arithmetic_count: int, seed: int) -> list[Item]:
    """Return items to search plans for: unseen commands, and expressions of 2 to 4 operands."""
    rng = random.Random(f"search {seed}")
    unseen = shifted(split, seed).unseen
    commands = rng.sample(unseen, min(scan_count, len(unseen)))
    items = [Item(c, scan.interpret(c)) for c in commands]
    for _ in range(arithmetic_count):
        node = arithmetic.sample(rng.choice((2, 3, 3, 4, 4, 4)), TRAIN, rng)
        items.append(Item(arithmetic.render(node), str(node.value)))
    return items


def calibration_items(split: str, scan_count: int, arithmetic_count: int, seed: int) -> list[Item]:
    """Return items to measure the pool on: operations that no worker has seen, no test item."""
    rng = random.Random(f"calibration {seed}")
    training, _ = scan.split(split)
    longest = sorted(training, key=lambda c: -len(scan.interpret(c).split()))
    commands = rng.sample(longest[: len(longest) // 2], min(scan_count, len(longest) // 2))
    items = [Item(c, scan.interpret(c)) for c in commands]
    for number in range(arithmetic_count):
        node = arithmetic.sample((2, 3, 4)[number % 3], DEV, rng)
        items.append(Item(arithmetic.render(node), str(node.value)))
    return items
