"""How far grouped search is from the optimum, and what it saves (see `allocations`)."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Final, NamedTuple

from r2reasoner.errors import DataError
from r2reasoner.types import Pico

FIGURE: Final = "grouped_"


class Found(NamedTuple):
    """What a search of one item came to.

    `cost` is that of the cheapest right allocation in pico-dollars, None where none was right;
    `calls` are those that differ: what is paid for where answers are recorded.
    """

    cost: Pico | None
    trials: int
    calls: int


class Compared(NamedTuple):
    """One item, searched in groups and exhaustively."""

    grouped: Found
    optimum: Found


class Gap(NamedTuple):
    """Grouped against exhaustive search, over items. Shares are 0 to 1.

    `optimal`: share of the solvable items where it found the cheapest right allocation; `missed`:
    where it found no right one. Where both did, `cost_ratio` is the mean over items of its cost
    over the optimum's, `total_ratio` the same of the sums. Trials and calls are means per item.
    """

    items: int
    solvable: int
    optimal: float
    missed: float
    cost_ratio: float
    total_ratio: float
    trials: float
    all_trials: float
    calls: float
    all_calls: float

    def figures(self) -> dict[str, float]:
        """Return all of it under the names by which a run's metrics have it."""
        return {f"{FIGURE}{name}": value for name, value in self._asdict().items()}

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> "Gap | None":
        """Return what `figures` gave; None where these are others."""
        own = {n.removeprefix(FIGURE): v for n, v in figures.items() if n.startswith(FIGURE)}
        return cls(**own) if own else None

    def __str__(self) -> str:
        return (
            f"{self.items:,} items, {self.solvable:,} of them solvable: the optimum for"
            f" {self.optimal:.1%}, nothing right for {self.missed:.1%}; cost {self.total_ratio:.2f}"
            f" times the optimum's ({self.cost_ratio:.2f} as a mean over items);"
            f" {self.trials:.1f} trials an item instead of {self.all_trials:.1f}"
            f" ({1 - self.trials / self.all_trials:.1%} saved), {self.calls:.1f} calls instead of"
            f" {self.all_calls:.1f} ({1 - self.calls / self.all_calls:.1%} saved)"
        )


def gap(compared: Sequence[Compared]) -> Gap:
    """Sum up comparisons. Raises DataError where grouped search solved nothing."""
    solvable = [c for c in compared if c.optimum.cost is not None]
    both = [
        (c.grouped.cost, c.optimum.cost)
        for c in solvable
        if c.grouped.cost is not None and c.optimum.cost
    ]
    if not both:
        raise DataError("no item has a right allocation; take easier items or stronger models")
    return Gap(
        items=len(compared),
        solvable=len(solvable),
        optimal=sum(mine <= best for mine, best in both) / len(solvable),
        missed=1 - len(both) / len(solvable),
        cost_ratio=fmean(mine / best for mine, best in both),
        total_ratio=sum(mine for mine, _ in both) / sum(best for _, best in both),
        trials=fmean(c.grouped.trials for c in compared),
        all_trials=fmean(c.optimum.trials for c in compared),
        calls=fmean(c.grouped.calls for c in compared),
        all_calls=fmean(c.optimum.calls for c in compared),
    )
