"""Rows of data to rows to imitate: what a policy is asked, and what it should write.

Where a policy reads the dial, a row comes with a level drawn at random: fine-tuning knows no
better plan for one than for another; that is for the reward to teach. Models may come with a
margin for each level.
"""

import json
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from r2reasoner.nano.data import policy_rows
from r2reasoner.policy import model_token
from r2reasoner.training.rows import Row


class Pair(NamedTuple):
    """One row to imitate."""

    asked: str
    written: str


def decomposer_pairs(rows: Iterable[Row], copies: int, dial: int, rng: Random) -> list[Pair]:
    """Return the lines of the kept decompositions, steps in versions with other references."""
    lines = [(a, w) for row in rows for a, w in json.loads(row["lines"]) if not w.startswith("{")]
    made = policy_rows(lines, copies, rng.randrange(2**31))
    return _dialled([Pair(row.question, row.answer) for row in made], dial, rng)


def allocator_pairs(
    rows: Iterable[Row], knows: Sequence[str], dial: int, margins: Sequence[int], rng: Random
) -> list[Pair]:
    """Return each subtask in its context with the model that the search gave it.

    Plans that no allocation solves teach nothing and are left out. With `margins`, a row stands
    once for each level of the dial, with a model so many places stronger.
    """
    found = [
        (text, knows.index(model))
        for row in rows
        if row["right"]
        for text, model in zip(json.loads(row["subtasks"]), json.loads(row["models"]), strict=True)
        if model is not None
    ]
    if not (dial and margins):
        return _dialled(
            [Pair(text, model_token(knows[at], knows)) for text, at in found], dial, rng
        )
    top = len(knows) - 1
    pairs = [
        Pair(f"t{level} {text}", model_token(knows[max(0, min(top, at + more))], knows))
        for text, at in found
        for level, more in enumerate(margins)
    ]
    rng.shuffle(pairs)
    return pairs


def _dialled(pairs: list[Pair], dial: int, rng: Random) -> list[Pair]:
    if dial:
        pairs = [Pair(f"t{rng.randrange(dial)} {p.asked}", p.written) for p in pairs]
    rng.shuffle(pairs)
    return pairs
