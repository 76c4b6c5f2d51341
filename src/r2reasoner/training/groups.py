"""The workers in the paper's three groups, as a ladder that grouped search walks on."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from r2reasoner.pool.cards import Card, Group

GROUPS: Final = tuple(Group)
Rungs: TypeAlias = tuple[int | None, ...]
"""The model of each subtask as its place on the ladder; None for joins."""


class Ladder:
    """Workers from the weakest of the small group to the strongest of the large one.

    Groups are what the cards say; by `thirds`, or where a card has none, the workers are cut in
    three, in the pool's order.
    """

    def __init__(
        self, workers: Sequence[Card], groups: Literal["cards", "thirds"] = "cards"
    ) -> None:
        thirds = [GROUPS[n * len(GROUPS) // len(workers)] for n in range(len(workers))]
        told = [card.group for card in workers if card.group is not None]
        marks = told if groups == "cards" and len(told) == len(workers) else thirds
        order = sorted(range(len(workers)), key=lambda n: GROUPS.index(marks[n]))
        self.cards = tuple(workers[n] for n in order)
        self.groups = tuple(marks[n] for n in order)

    def middle(self, group: Group | None = None) -> int:
        """Return the middle rung of a group (of the nearest where it is empty), or of all."""
        rungs = list(range(len(self.cards)))
        if group is not None:
            wanted = GROUPS.index(group)
            nearest = min(self.groups, key=lambda other: abs(GROUPS.index(other) - wanted))
            rungs = [rung for rung in rungs if self.groups[rung] is nearest]
        return rungs[(len(rungs) - 1) // 2]

    def below(self, rung: int, *, across: bool, far: bool) -> list[int]:
        """Return where a move down may lead, nearest first: inside the rung's group, or across.

        Without `far` that is one rung at most: the next one of the group, or the top of the next.
        """
        rungs = range(rung - 1, -1, -1)
        targets = [r for r in rungs if (self.groups[r] is not self.groups[rung]) == across]
        return targets if far else targets[:1]

    def names(self, rungs: Rungs) -> list[str | None]:
        """Return the names of the models on rungs."""
        return [None if rung is None else self.cards[rung].name for rung in rungs]
