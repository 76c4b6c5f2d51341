"""Controls that ship with the trainer: ways to find out that nothing was learned.

A policy trained on *shuffled labels* must fall to the majority choice, one trained on *random
features* must do no better; a router that gives nearly everything to one model does not route;
and items that stand in training and test both measure memory. All functions are pure.
"""

import math
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from r2reasoner.errors import DataError

SHOWN: Final = 3
Pair = tuple[str, str]


class Asked(Protocol):
    """An item: whatever has a query."""

    @property
    def query(self) -> str:
        """What is asked."""
        ...


def shuffled(rows: Sequence[Pair], seed: int) -> list[Pair]:
    """Return (asked, written) rows with what is written permuted among them.

    Every label stays as frequent as it was; a policy can learn nothing but that frequency.
    """
    labels = [written for _, written in rows]
    random.Random(f"shuffled {seed}").shuffle(labels)
    return [(asked, label) for (asked, _), label in zip(rows, labels, strict=True)]


def random_features(rows: Sequence[Pair], seed: int) -> list[Pair]:
    """Return (asked, written) rows whose texts are random words, as many as there were.

    Words are drawn as often as they stand in all texts, anew for every row: nothing but the
    length of a text is left to learn from.
    """
    rng = random.Random(f"random features {seed}")
    words = [word for asked, _ in rows for word in asked.split()]
    return [
        (" ".join(rng.choice(words) for _ in asked.split()), written) for asked, written in rows
    ]


def one_model_alarm(shares: Mapping[str, float], limit: float = 0.9) -> str | None:
    """Return a warning where one model takes more than `limit` of the subtasks; else None.

    `shares` are shares or counts by model. Raises ValueError for a negative or NaN share.
    """
    if not all(0 <= share < math.inf for share in shares.values()):
        raise ValueError(f"expected shares of at least 0, got {dict(shares)}")
    total = sum(shares.values())
    if not total:
        return None
    model, most = max(shares.items(), key=lambda pair: pair[1])
    if most <= limit * total:
        return None
    return (
        f"{model} takes {most / total:.1%} of the subtasks (alarm above {limit:.0%}): this router"
        " hardly routes; compare it with that model alone"
    )


def content(text: str) -> str:
    """Return a text as items are compared: without regard to case, spacing and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def overlap(train_items: Iterable[Asked | str], test_items: Iterable[Asked | str]) -> list[str]:
    """Return the queries of the test items that stand among the training items, each once."""
    seen = {content(_query(item)) for item in train_items}
    shared = (_query(item) for item in test_items if content(_query(item)) in seen)
    return list(dict.fromkeys(shared))


def check_disjoint(
    train_items: Iterable[Asked | str], test_items: Iterable[Asked | str], what: str = "training"
) -> None:
    """Raise DataError naming the first items that stand in training and test both."""
    shared = overlap(train_items, test_items)
    if shared:
        shown = ", ".join(repr(_cut(query)) for query in shared[:SHOWN])
        more = f" and {len(shared) - SHOWN:,} more" if len(shared) > SHOWN else ""
        raise DataError(
            f"{len(shared):,} test items stand in the {what} data too: {shown}{more};"
            " split by content before anything is built on the items"
        )


class Unparseable(NamedTuple):
    """A stage's plans: how many were written, how many were none, and why."""

    stage: str
    plans: int
    unparseable: int
    faults: dict[str, int]

    @property
    def share(self) -> float | None:
        """Share of the plans that could not be read; None without plans."""
        return self.unparseable / self.plans if self.plans else None


def unparseable_plans(rows: Iterable[Mapping[str, Any]]) -> list[Unparseable]:
    """Return the unparseable plans of each stage, from the rows of a run's metrics."""
    plans, unparseable = Counter[str](), Counter[str]()
    faults: dict[str, Counter[str]] = {}
    for row in rows:
        if row.get("plans") is not None:
            stage = row["stage"]
            plans[stage] += row["plans"]
            unparseable[stage] += row.get("unparseable") or 0
            faults.setdefault(stage, Counter()).update(row.get("faults") or {})
    return [Unparseable(s, plans[s], unparseable[s], dict(faults[s].most_common())) for s in faults]


def _query(item: Asked | str) -> str:
    return item if isinstance(item, str) else item.query


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
