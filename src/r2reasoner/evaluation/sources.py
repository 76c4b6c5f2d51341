"""Where a benchmark's items come from: a file, a folder as published, the hub, or the nano tasks.

Leaves out: which split a pool is fit for (`nano.splits`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r2reasoner.benchmarks import Benchmark, Item
from r2reasoner.errors import ConfigError
from r2reasoner.nano.splits import is_made, make_items

TRAINING: Final = "train"


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder, or the hub; neither: items are made, or else come from the hub.

    Raises ConfigError for both at once.
    """

    path: Path | None = None
    hub: bool = False
    dataset: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.path is not None and self.is_hub:
            raise ConfigError("--items and --hub are two sources of items: leave one out")

    @property
    def is_hub(self) -> bool:
        """True where the hub is asked for, if only by naming what to take there."""
        return bool(self.hub or self.dataset or self.revision)

    def load(
        self, benchmark: Benchmark, split: str, seed: int = 0, limit: int | None = None
    ) -> tuple[Item, ...]:
        """Return a split's items; `seed` and `limit` are for those that are made by chance.

        Raises ConfigError where a split cannot be had, or is one that routers are trained on;
        DataError naming file and line for whatever is wrong there.
        """
        labelled = self.path is not None and self.path.is_file()
        if split == TRAINING and not labelled:
            raise ConfigError(
                f"{benchmark.name}: {split} is what routers are trained on, so figures on it mean"
                f" nothing; take another --split (without one: {benchmark.default_split})"
            )
        if self.path is not None:
            return benchmark.load(self.path, split)
        if self.is_hub or (benchmark.hub is not None and not is_made(benchmark)):
            return benchmark.load_hub(split, self.dataset, self.revision)
        return make_items(benchmark, split, seed, limit)
