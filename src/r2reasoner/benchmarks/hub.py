"""Where a benchmark's items stand on the hub, and how they come from there, through `datasets`.

A dataset is read at a pinned revision, so that the same items come out tomorrow. Leaves out:
datasets that are a script (`datasets` runs none), and tokens (`datasets` finds its own).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

from r2reasoner.errors import ConfigError, DataError

Convert: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A row of the hub -> one as the benchmark's files have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A dataset on the hub, or a folder that `datasets` can read.

    `revision` is a commit; a dataset on the hub without one is refused. `splits`: our name of a
    split -> the hub's. `row` makes a row of the hub one of the benchmark's files; None: it is one.
    """

    dataset: str
    config: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(hash=False)
    row: Convert | None = None

    def __str__(self) -> str:
        return f"{self.dataset}@{self.revision[:12]}" if self.revision else self.dataset

    def at(self, dataset: str | None, revision: str | None) -> Self:
        """Return the same with another dataset or revision, where one is named.

        A pinned revision belongs to its dataset: another dataset comes without it.
        """
        if dataset is None:
            return replace(self, revision=revision or self.revision)
        own = self.revision if dataset == self.dataset else None
        return replace(self, dataset=dataset, revision=revision or own)

    def rows(self, split: str) -> Iterator[tuple[int, Any]]:
        """Yield a split's rows in the benchmark's own layout, numbered from 1.

        Raises ConfigError where `datasets` is missing, no revision is pinned, or there is no such
        dataset or split; DataError naming a row that cannot be converted.
        """
        if split not in self.splits:
            raise ConfigError(
                f"{self.dataset}: no split {split!r} known; known: {', '.join(self.splits)}"
            )
        for number, row in enumerate(self._load(self.splits[split]), 1):
            try:
                yield number, dict(self.row(row)) if self.row else dict(row)
            except (KeyError, TypeError, ValueError) as error:
                wrong = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise DataError(f"{self}: row {number}: {wrong}") from None

    def _load(self, split: str) -> Any:
        try:
            import datasets
        except ImportError:
            raise ConfigError(
                "the hub needs the package datasets: pip install 'r2reasoner[evaluation]'"
            ) from None
        if self.revision is None and not Path(self.dataset).exists():
            raise ConfigError(
                f"{self.dataset}: no revision pinned; name a commit of it with --revision, so that"
                " the same items come out tomorrow"
            )
        try:
            return datasets.load_dataset(
                self.dataset, self.config, split=split, revision=self.revision
            )
        except Exception as error:  # whatever `datasets` and the hub's client raise, of many kinds
            first = str(error).partition("\n")[0][:300]
            raise ConfigError(
                f"{self}: cannot be loaded from the hub ({type(error).__name__}: {first});"
                " without a network give the items with --items"
            ) from error
