"""What a recipe's items are like on average: lengths, candidates, subtasks; for forecasts.

A few items of each source are drawn (those made here) or read (files), and the nano proposer is
asked for their plans. Nothing is run. Plans that no rule knows, and items whose file is not there
yet, are assumed to be of some length.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from r2reasoner.benchmarks import open_benchmark
from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.data import TRAIN
from r2reasoner.nano.propose import propose
from r2reasoner.training.environment import nano_weights
from r2reasoner.training.recipe import Data, Source
from r2reasoner.types import Task

SAMPLE: Final = 60
PLAN_SUBTASKS: Final = 4.0
"""Subtasks of a plan that a prompted model writes (assumed)."""
ASSUMED: Final = Task("word " * 80, "word " * 10)
"""Stands for items whose file is not there yet."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The average item; bytes, and tokens of a nano model (words and digits).

    `tried`: subtasks over all its candidates, so what running them all takes; `subtasks`: of one
    plan that decomposes; `lines`: calls by which a policy writes it.
    """

    query_bytes: float
    query_words: float
    gold_words: float
    candidates: float
    tried: float
    subtasks: float
    lines: float


@dataclass(frozen=True, slots=True)
class Items:
    """How many items a recipe has, to search and imitate and for GRPO, and what they are like.

    `missing`: files that are not there; their items are assumed.
    """

    count: int
    reinforced: int
    profile: Profile
    missing: tuple[str, ...] = ()


def items_of(data: Data, seed: int) -> Items:
    """Return the items of all sources together. Raises DataError for a file that is none."""
    counts, reinforced, profiles = [], [], []
    missing = tuple(str(f) for f in map(file_of, data.sources) if f is not None and not f.exists())
    for source in data.sources:
        there, sample = _sample(source, data, seed)
        count = min(source.count, there)
        counts.append(count)
        reinforced.append(min(source.reinforce, max(there - count, 0)) or count)
        profiles.append(_profile(sample, data))
    total = sum(counts)
    mean = {
        f.name: sum(getattr(p, f.name) * n for p, n in zip(profiles, counts, strict=True)) / total
        for f in fields(Profile)
    }
    return Items(total, sum(reinforced), Profile(**mean), missing)


def file_of(source: Source) -> Path | None:
    """Return the file that a source's items stand in; None where they are made here."""
    name = source.benchmark if source.is_own else source.items
    return Path(name) if name else None


def _sample(source: Source, data: Data, seed: int) -> tuple[int, Sequence[Task]]:
    """Return how many items there are (of those made here: as many as wanted), and a few."""
    rng = random.Random(f"profile {seed}")
    wanted = source.count + source.reinforce
    file = file_of(source)
    if file is not None and not file.exists():
        return wanted, [ASSUMED]
    if file is not None:
        benchmark = open_benchmark(source.benchmark, source.scorer if source.is_own else None)
        found = benchmark.load(file)
        few = rng.sample(found, min(SAMPLE, len(found)))
        return len(found), [Task(item.query, item.gold) for item in few]
    if source.benchmark == "scan":
        commands = nano_weights(data).training
        drawn = rng.sample(commands, min(SAMPLE, len(commands)))
        return len(commands), [Task(c, scan.interpret(c)) for c in drawn]
    nodes = (arithmetic.sample(rng.choice(source.operands), TRAIN, rng) for _ in range(SAMPLE))
    return wanted, [Task(arithmetic.render(node), str(node.value)) for node in nodes]


def _profile(sample: Sequence[Task], data: Data) -> Profile:
    plans = [_plans(task, data) for task in sample]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return Profile(
        query_bytes=mean([len(task.query.encode()) for task in sample]),
        query_words=mean([_words(task.query) for task in sample]),
        gold_words=mean([_words(task.gold) for task in sample]),
        candidates=mean([candidates for candidates, *_ in plans]),
        tried=mean([tried for _, tried, *_ in plans]),
        subtasks=mean([subtasks for *_, subtasks, _ in plans]),
        lines=mean([lines for *_, lines in plans]),
    )


def _plans(task: Task, data: Data) -> tuple[float, float, float, float]:
    """Return an item's candidates, their subtasks, and subtasks and lines of its usual plan."""
    if data.proposer == "prompted":
        more = data.candidates - 1
        return data.candidates, 1 + more * PLAN_SUBTASKS, PLAN_SUBTASKS, 1.0
    found = propose(task.query, primitives=data.nano_set == "addprim_jump")[: data.candidates]
    called = [sum(not s.is_join for s in c.plan.subtasks) for c in found]
    # the first is direct; the others differ little in length
    usual = found[1] if len(found) > 1 else found[0]
    return len(found), sum(called), called[found.index(usual)], len(usual.lines)


def _words(text: str) -> int:
    return sum(len(word) if word.isdigit() else 1 for word in text.split())
