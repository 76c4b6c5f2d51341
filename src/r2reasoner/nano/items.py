"""Training and calibration items of a weight set, and which of them workers have not seen.

`length`: the search's worker is trained on SCAN commands of at most 11 actions (less a fifth)
and on arithmetic of two operands, so that search items are longer, or left out, for it as the
test's are for the shipped workers. `addprim_jump`: that worker knows two other verbs alone, as
the shipped ones know "jump"; search items are made of those two.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from r2reasoner.errors import ConfigError
from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.data import TRAIN, Mix
from r2reasoner.types import Task

SHIFTED_ACTIONS: Final = 11
HELD_VERBS: Final = ("walk", "look")
KEPT_SHARE: Final = 0.8
SHIFTED_SCAN_SHARE: Final = 0.3
SEARCH_OPERANDS: Final = (2, 3, 3, 4, 4, 4)
DEV: Final[frozenset[arithmetic.Side]] = frozenset({"dev"})


@dataclass(frozen=True, slots=True)
class WeightSet:
    """What a set of nano weights is for: a SCAN split, with its training commands.

    Only `length` has arithmetic too.
    """

    split: str
    training: tuple[str, ...]

    @property
    def arithmetic(self) -> bool:
        """True where workers and policies are trained on arithmetic as well."""
        return self.split == "length"

    @property
    def mix(self) -> Mix:
        """What the shipped workers are trained on."""
        return Mix(list(self.training)) if self.arithmetic else Mix(list(self.training), 2, 1.0)


def weight_set(split: str, training: Sequence[str] | None = None) -> WeightSet:
    """Return a weight set; a split that cannot be generated needs its training commands.

    Raises ConfigError for an unknown split, or one without training commands.
    """
    if training is None:
        try:
            training, _ = scan.split(split)
        except ValueError as error:
            raise ConfigError(f"{error}; give its training file (--train-items)") from None
    return WeightSet(split, tuple(training))


class Shifted(NamedTuple):
    """What the search's worker is trained on, and SCAN commands that it has not seen."""

    mix: Mix
    unseen: list[str]


def shifted(weights: WeightSet, seed: int) -> Shifted:
    """Return the shifted training mix of a weight set and the training commands outside it."""
    rng = random.Random(f"shifted {seed}")
    training = weights.training
    if weights.split == "addprim_jump":
        seen = {c for c in training if c in HELD_VERBS or not set(c.split()) & set(HELD_VERBS)}
        others = set(scan.VERBS) - set(HELD_VERBS)
        unseen = [c for c in training if c not in seen and not set(c.split()) & others]
    else:
        seen = {
            command
            for command in training
            if len(scan.interpret(command).split()) <= SHIFTED_ACTIONS and rng.random() < KEPT_SHARE
        }
        unseen = [c for c in training if c not in seen]
    share = SHIFTED_SCAN_SHARE if weights.arithmetic else 1.0
    kept = [c for c in training if c in seen]
    return Shifted(Mix(kept, most_operands=2, scan_share=share), unseen)


def search_items(
    weights: WeightSet,
    scan_count: int,
    arithmetic_count: int,
    seed: int,
    operands: Collection[int] = SEARCH_OPERANDS,
) -> list[Task]:
    """Return items to search plans for: unseen commands, and expressions of so many operands.

    Of the longer ones there are more, for there are more ways to take them apart.
    """
    drawn = [count for count in SEARCH_OPERANDS if count in operands]
    rng = random.Random(f"search {seed}")
    unseen = shifted(weights, seed).unseen
    single = [c for c in unseen if not {"and", "after"} & set(c.split())]
    commands = single + rng.sample(unseen, min(scan_count, len(unseen)))
    items = [Task(c, scan.interpret(c)) for c in dict.fromkeys(commands)]
    for _ in range(arithmetic_count if weights.arithmetic else 0):
        node = arithmetic.sample(rng.choice(drawn), TRAIN, rng)
        items.append(Task(arithmetic.render(node), str(node.value)))
    return items


def calibration_items(
    weights: WeightSet, scan_count: int, arithmetic_count: int, seed: int
) -> list[Task]:
    """Return items to measure the pool on: operations that no worker has seen, no test item."""
    rng = random.Random(f"calibration {seed}")
    longest = sorted(weights.training, key=lambda c: -len(scan.interpret(c).split()))
    commands = rng.sample(longest[: len(longest) // 2], min(scan_count, len(longest) // 2))
    items = [Task(c, scan.interpret(c)) for c in commands]
    for number in range(arithmetic_count if weights.arithmetic else 0):
        node = arithmetic.sample((2, 3, 4)[number % 3], DEV, rng)
        items.append(Task(arithmetic.render(node), str(node.value)))
    return items
