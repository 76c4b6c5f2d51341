"""What a store holds, in figures: pure functions of its answers and outcomes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, TypeAlias

from r2reasoner.outcomes.store import Answered, Outcome, OutcomeStore
from r2reasoner.types import Pico, Usage

RIGHT: Final = 1.0
"""The score of a right answer; less is partly right, and counts as wrong here."""

_Place: TypeAlias = tuple[str, str | None, int | None]


@dataclass(frozen=True, slots=True)
class ModelStats:
    """One model's answers and outcomes.

    `cost` is the sum in pico-dollars over answers of known price; `unpriced` counts the others.
    `right` is the share of right among its `judged` outcomes, `coverage` the share of all places
    (an item, a plan and a subtask) where it was judged, `latency_s` the mean in seconds.
    """

    model: str
    answers: int
    outcomes: int
    judged: int
    right: float | None
    usage: Usage
    cost: Pico
    unpriced: int
    latency_s: float | None
    coverage: float | None


@dataclass(frozen=True, slots=True)
class SourceStats:
    """How many answers and outcomes one source gave."""

    source: str
    answers: int
    outcomes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """Models and sources, by name.

    `items` and `places` count what was judged for any model. `coverage` is the share of pairs of
    a place and a model that were judged; where it is 1, any choice of models can be looked up.
    """

    models: tuple[ModelStats, ...]
    sources: tuple[SourceStats, ...]
    items: int
    places: int
    coverage: float | None


def store_stats(store: OutcomeStore) -> Stats:
    """Return a store in figures."""
    return stats(store.answers(), store.outcomes())


def stats(answers: Sequence[Answered], outcomes: Sequence[Outcome]) -> Stats:
    """Return answers and outcomes in figures."""
    given: dict[str, list[Answered]] = defaultdict(list)
    for answer in answers:
        given[answer.model].append(answer)
    stood: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        stood[outcome.model].append(outcome)
    places = _places(outcomes)
    pairs = sum(len(_places(of_one)) for of_one in stood.values())
    models = tuple(
        _model(name, given[name], stood[name], len(places)) for name in sorted({*given, *stood})
    )
    return Stats(
        models,
        _sources(answers, outcomes),
        items=len({item for item, _, _ in places}),
        places=len(places),
        coverage=pairs / (len(places) * len(models)) if places else None,
    )


def _model(
    name: str, answers: Sequence[Answered], outcomes: Sequence[Outcome], places: int
) -> ModelStats:
    scores = [o.score for o in outcomes if o.score is not None]
    costs = [a.cost for a in answers if a.cost is not None]
    latencies = [a.latency_s for a in answers if a.latency_s is not None]
    return ModelStats(
        model=name,
        answers=len(answers),
        outcomes=len(outcomes),
        judged=len(scores),
        right=fmean(score >= RIGHT for score in scores) if scores else None,
        usage=sum((a.usage for a in answers if a.usage is not None), Usage()),
        cost=sum(costs),
        unpriced=len(answers) - len(costs),
        latency_s=fmean(latencies) if latencies else None,
        coverage=len(_places(outcomes)) / places if places else None,
    )


def _places(outcomes: Iterable[Outcome]) -> set[_Place]:
    return {(o.item, o.plan, o.subtask) for o in outcomes if o.score is not None}


def _sources(answers: Iterable[Answered], outcomes: Iterable[Outcome]) -> tuple[SourceStats, ...]:
    given = Counter(a.source for a in answers)
    judged = Counter(o.source for o in outcomes)
    return tuple(SourceStats(name, given[name], judged[name]) for name in sorted({*given, *judged}))
