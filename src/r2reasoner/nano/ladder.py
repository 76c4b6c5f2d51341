"""The ladder: how often each model of a nano pool is right, kind of subtask by kind of subtask.

Arithmetic is asked on held-out operations only. Short SCAN phrases are too few for that: those
on the training side of the split were all trained on, so they stand as kinds of their own,
marked `seen`. One-digit operations, products of two numbers of two digits and values that nobody
saw stand apart, outside the summary. Left out: plans (`r2reasoner evaluate` runs those).
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Final, Literal, NamedTuple

from r2reasoner.budget import Meter
from r2reasoner.client import ChatRequest, Client
from r2reasoner.errors import CallError, CallFault, ConfigError
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.nano import arithmetic, scan
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import Message, Role, Task

RIGHT: Final = 0.95
NOISE: Final = 0.02
IN_FLIGHT: Final = 64
SPARE_DRAWS: Final = 100
CEILING_OPERANDS: Final = (3, 4, 5)
CEILING_ITEMS: Final = 100
DIGITS: Final = {1: range(1, 10), 2: range(10, 100), 3: range(100, 1000)}
ONE_DIGIT, NOBODY, UNSEEN_VALUES = "one digit: memorised", "nobody can", "unseen values"

Family = Literal["scan", "arithmetic"]


class Kind(NamedTuple):
    """One kind of subtask. `seen`: in the workers' training; `apart`: why outside the summary."""

    family: Family
    name: str
    items: tuple[Task, ...]
    seen: bool = False
    apart: str = ""


@dataclass(frozen=True, slots=True)
class Rung:
    """One kind, measured. `accuracy` is by model, weakest first.

    `cheapest` is the cheapest one right at least RIGHT of the time (`reached`), else the best.
    """

    family: Family
    kind: str
    items: int
    seen: bool
    apart: str
    accuracy: Mapping[str, float]
    cheapest: str
    reached: bool

    @property
    def best(self) -> float:
        """The best model's accuracy."""
        return max(self.accuracy.values())


@dataclass(frozen=True, slots=True)
class Summary:
    """The ladder over some kinds. `cheapest_for`: for how many is a model the cheapest right one.

    For `nobodys` kinds no model is right often enough. `mean` is a model's accuracy averaged over
    kinds, weakest first.
    """

    kinds: int
    cheapest_for: Mapping[str, int]
    nobodys: int
    mean: Mapping[str, float]

    @property
    def has_one_model_for_most(self) -> bool:
        """True where a single model is the cheapest right one for more than half of the kinds."""
        return 2 * max(self.cheapest_for.values(), default=0) > self.kinds

    @property
    def rises(self) -> bool:
        """True where no model is worse on average than the next smaller one, noise aside."""
        means = list(self.mean.values())
        return all(b >= a - NOISE for a, b in pairwise(means))


@dataclass(frozen=True, slots=True)
class Ladder:
    """All rungs of a pool. `ceilings`: the most that a perfect plan can reach, by operands.

    `split` is the SCAN split that the pool was trained for.
    """

    pool: str
    split: str
    seed: int
    rungs: tuple[Rung, ...]
    ceilings: Mapping[int, float]

    def summary(self, *, unseen_only: bool = False) -> Summary:
        """Summarise the kinds that do not stand apart."""
        rungs = [r for r in self.rungs if not r.apart and not (unseen_only and r.seen)]
        models = list(self.rungs[0].accuracy)
        cheapest = Counter(r.cheapest for r in rungs if r.reached)
        return Summary(
            kinds=len(rungs),
            cheapest_for={m: cheapest[m] for m in models},
            nobodys=len(rungs) - cheapest.total(),
            mean={m: sum(r.accuracy[m] for r in rungs) / max(len(rungs), 1) for m in models},
        )


def trained_split(pool: Pool) -> str:
    """Return the SCAN split that a pool's weights were trained for; unless it says, `length`."""
    known = ("length", "addprim_jump")
    return next((s for s in known if s in pool.splits or f"scan/{s}" in pool.splits), known[0])


def scan_kinds(split: str, count: int, seed: int) -> list[Kind]:
    """Return the kinds of SCAN with at most `count` items each, the same for the same seed."""
    return list(_scan_kinds(split, count, random.Random(f"ladder scan {seed}")))


def arithmetic_kinds(count: int, seed: int) -> list[Kind]:
    """Return the kinds of arithmetic, likewise."""
    rng = random.Random(f"ladder arithmetic {seed}")
    single = [_operation_kind(*operation, count, rng) for operation in _operations()]
    return [*single, *_expression_kinds(count, seed)]


def _scan_kinds(split: str, count: int, rng: random.Random) -> Iterator[Kind]:
    training, test = scan.split(split)
    phrases = frozenset(scan.phrases())
    for commands, seen in ((training, True), (test, False)):
        groups: dict[str, list[str]] = {}
        for command in commands:
            name = phrase_kind(command) if command in phrases else "whole command"
            groups.setdefault(name, []).append(command)
        for name in sorted(groups, key=_PHRASE_ORDER.index):
            chosen = rng.sample(groups[name], min(count, len(groups[name])))
            items = tuple(Task(c, scan.interpret(c)) for c in chosen)
            yield Kind("scan", name if seen else f"{name}, {split} test", items, seen)


_PHRASE_ORDER: Final = (
    "verb or turn",
    "verb direction",
    "verb opposite direction",
    "verb around direction",
    "repeated phrase",
    "whole command",
)


def phrase_kind(phrase: str) -> str:
    """Name the kind of a SCAN phrase (a command without a conjunction)."""
    words = phrase.split()
    if words[-1] in scan.REPEATS:
        return "repeated phrase"
    for manner in ("opposite", "around"):
        if manner in words:
            return f"verb {manner} direction"
    return "verb direction" if len(words) == 2 and words[0] != "turn" else "verb or turn"


def _operations() -> Iterator[tuple[int, str, int]]:
    """Every (digits, sign, digits) that evaluating an expression may meet, easiest first."""
    for sign in arithmetic.OPERATORS:
        for left in DIGITS:
            for right in DIGITS:
                if (sign == "-" and left < right) or (sign == "*" and left + right > 4):
                    continue
                yield left, sign, right


def _operation_kind(left: int, sign: str, right: int, count: int, rng: random.Random) -> Kind:
    apply = arithmetic.OPERATORS[sign]
    lefts, rights = DIGITS[left], DIGITS[right]
    pairs = range(len(lefts) * len(rights))
    items: list[Task] = []
    for number in rng.sample(pairs, min(len(pairs), SPARE_DRAWS * count)):
        if len(items) == count:
            break
        a, b = lefts[number // len(rights)], rights[number % len(rights)]
        in_range = 0 <= apply(a, b) <= arithmetic.LARGEST_VALUE
        if in_range and arithmetic.side((a, sign, b)) == "test":
            items.append(Task(f"{a} {sign} {b}", str(apply(a, b))))
    apart = NOBODY if (left, sign, right) == (2, "*", 2) else ONE_DIGIT if left + right == 2 else ""
    return Kind("arithmetic", f"{left}x{right} {sign}", tuple(items), apart=apart)


def _expression_kinds(count: int, seed: int) -> Iterator[Kind]:
    for unseen in (False, True):
        for operands in (2, 3, 4):
            name = f"{operands} operands" + (f", {UNSEEN_VALUES}" if unseen else "")
            found = arithmetic.held_out_items([operands], count, seed, unseen_values=unseen)
            items = tuple(Task(str(i["expression"]), str(i["value"])) for i in found)
            yield Kind("arithmetic", name, items, apart=UNSEEN_VALUES if unseen else "")


async def climb(
    pool: Pool,
    client: Client,
    count: int,
    seed: int,
    say: Callable[[int, int], None] = lambda done, total: None,
) -> Ladder:
    """Measure every worker on every kind; `say` hears how many answers came, and of how many.

    The calls are booked in memory only. Raises ConfigError for a pool that is not nano (its
    cards have no `parameters`), and what the client raises; an empty answer is a wrong one.
    """
    if not all(card.parameters for card in pool.workers):
        raise ConfigError(
            f"pool {pool.name!r}: the ladder needs the size of every model (parameters), as the"
            " nano pools have it; for other pools take `r2reasoner calibrate ITEMS.jsonl`"
        )
    split = trained_split(pool)
    wanted = scan_kinds(split, count, seed)
    if knows_arithmetic := not pool.splits or "arithmetic" in pool.splits:
        wanted += arithmetic_kinds(count, seed)
    measured = await _measure(pool.workers, client, wanted, say)
    rungs = tuple(_rung(kind, measured[i], pool) for i, kind in enumerate(wanted))
    best = {r.kind: r.best for r in rungs if r.family == "arithmetic"}
    ceilings = _ceilings(best, min(count, CEILING_ITEMS), seed) if knows_arithmetic else {}
    return Ladder(pool.name, split, seed, rungs, ceilings)


def _ceilings(best: Mapping[str, float], count: int, seed: int) -> dict[int, float]:
    drawn = {n: arithmetic.held_out_items([n], count, seed) for n in CEILING_OPERANDS}
    return {n: ceiling((str(i["expression"]) for i in d), best) for n, d in drawn.items()}


async def _measure(
    cards: Sequence[Card],
    client: Client,
    wanted: Sequence[Kind],
    say: Callable[[int, int], None],
) -> list[dict[str, float]]:
    """Return the accuracy of each model for each kind."""
    right: Counter[tuple[int, str]] = Counter()
    total = len(cards) * sum(len(kind.items) for kind in wanted)
    done = 0

    async def work(card: Card, left: Iterator[tuple[int, Task]], meter: Meter) -> None:
        nonlocal done
        for kind, item in left:
            correct = await _is_right(card, item, client, meter)
            right[kind, card.name] += correct
            done += 1
            say(done, total)

    with Ledger.in_memory() as ledger:
        meter = Meter(ledger, new_id())
        try:
            async with asyncio.TaskGroup() as group:
                for card in cards:
                    left = iter([(i, item) for i, kind in enumerate(wanted) for item in kind.items])
                    for _ in range(IN_FLIGHT):
                        group.create_task(work(card, left, meter))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
    return [
        {card.name: right[i, card.name] / len(kind.items) for card in cards}
        for i, kind in enumerate(wanted)
    ]


async def _is_right(card: Card, item: Task, client: Client, meter: Meter) -> bool:
    request = ChatRequest(
        messages=(Message("user", item.query),),
        max_tokens=card.max_tokens,
        role=Role.CALIBRATION,
    )
    try:
        completion = await client.complete(card, request, meter)
    except CallError as error:
        if error.fault is CallFault.EMPTY:
            return False
        raise
    return completion.text.split() == item.gold.split()


def _rung(kind: Kind, accuracy: Mapping[str, float], pool: Pool) -> Rung:
    by_price = [card.name for card in pool.by_price]
    good = [name for name in by_price if accuracy[name] >= RIGHT]
    # max() keeps the first of equals, which is the cheapest
    cheapest = good[0] if good else max(by_price, key=lambda name: accuracy[name])
    return Rung(
        kind.family,
        kind.name,
        len(kind.items),
        kind.seen,
        kind.apart,
        accuracy,
        cheapest,
        bool(good),
    )


def ceiling(expressions: Iterable[str], best: Mapping[str, float]) -> float:
    """Return how often a perfect plan over perfectly chosen models is right, on average.

    `best` is the pool's best accuracy by kind of operation (`2x1 +`); an expression's chance is
    the product over the operations that it meets. Raises KeyError for a kind that is not there.
    """
    chances = [
        prod(best[arithmetic.kind(o)] for o in arithmetic.operations(arithmetic.parse(text)))
        for text in expressions
    ]
    return sum(chances) / len(chances)
