"""Light routers judged on recorded outcomes: by cross-validation, or on rows of another store.

Every router is fitted on the same rows, decides on the same items, and is resampled with the same
draws. Its preference for the strong model of a pair gives APGR and CPT, its choice of the best
expected score gives mean score and mean price, and its choices at many rates of exchange between
score and money give the curve of AIQ. A choice that was never recorded is not covered: it counts
in no mean, and lowers `coverage`.

The pair is the cheapest model and the strongest single one of the training rows (where no prices
are known, the weakest and the strongest). Which model a router may call cheap it learns from
prices in its training rows alone; what it then pays is the price recorded for the item.

Intervals are over the draw of items, with the fitted routers as they are; what another draw of
training rows would change is not in them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes import metrics
from r2reasoner.outcomes.routers.base import LightRouter
from r2reasoner.outcomes.sets import Floats, OutcomeSet

Make: TypeAlias = Callable[[int], LightRouter]
"""A router from a seed."""
Row: TypeAlias = dict[str, Any]
Ints: TypeAlias = npt.NDArray[np.intp]

RANDOM: Final = "random"
BEST_SINGLE: Final = "best single"
ORACLE: Final = "oracle"
REFERENCES: Final = (RANDOM, BEST_SINGLE, ORACLE)
RIVALS: Final = ("knn", "ridge")
"""Each router is compared with these, where they are judged too."""
FIGURES: Final = (
    "apgr",
    "cpt50",
    "cpt80",
    "aiq",
    "mean_score",
    "mean_price",
    "price_at_best_single_score",
    "oracle",
    "coverage",
)
COMPARED: Final = ("apgr", "aiq", "mean_score", "mean_price", "price_at_best_single_score")
RATES: Final = np.array([0.0, *np.logspace(-3, 2, 31), 1e6])
"""Scores that the price of the dearest model is worth; the last takes the cheapest whatever."""
LEVEL: Final = 0.95
_CELLS: Final = 2**21
_NEVER: Final = -1e9
FEWEST: Final = 20
"""A model recorded on fewer training items than that is left out of its set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How routers are judged: folds and repeats without a test set, draws of the bootstrap."""

    folds: int = 5
    repeats: int = 1
    draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2 or self.repeats < 1 or self.draws < 1:
            raise ConfigError("expected at least 2 folds, 1 repeat and 1 draw")


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The two models that APGR and CPT are between, as columns of the set."""

    weak: int
    strong: int


@dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """What a router does on each item: NaN where that was not recorded.

    `preference` is for the strong model of the pair. `scores` and `prices` (operating points x
    items) are of its choices, the first point that of the best expected score; `covered` is the
    share of an item's first choice that was recorded.
    """

    preference: Floats
    scores: Floats
    prices: Floats
    covered: Floats


@dataclass(slots=True)
class Report:
    """What came out: `rows` by set and router, `comparisons`, what each set is, and remarks."""

    rows: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)
    sets: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(
    train: Mapping[str, OutcomeSet],
    test: Mapping[str, OutcomeSet] | None,
    routers: Mapping[str, Make],
    terms: Terms,
    report_progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Return the figures of routers on every set that both stores have.

    Without `test`, by repeated cross-validation on the training sets. Raises DataError where the
    stores share no set, a set lacks a model, or is too small to be judged.
    """
    if reserved := [name for name in routers if name in REFERENCES]:
        raise ConfigError(f"{reserved[0]} is always judged: leave it out of the routers")
    report = Report()
    names = [name for name in train if test is None or name in test]
    if not names:
        raise DataError(
            f"no outcome set that both stores have: train has {', '.join(train) or 'none'}, test"
            f" has {', '.join(test or ()) or 'none'}"
        )
    for name in sorted({*train, *(test or ())} - set(names)):
        report.notes.append(f"{name}: left out, for only one of the stores has it")
    for name in names:
        report_progress(name)
        _judge_set(train[name], None if test is None else test[name], routers, terms, report)
    return report


def _judge_set(
    train: OutcomeSet,
    test: OutcomeSet | None,
    routers: Mapping[str, Make],
    terms: Terms,
    report: Report,
) -> None:
    train = _with_enough(train, report)
    if len(train.models) < 2:
        report.notes.append(f"{train.name}: left out, for it has fewer than two models")
        return
    held, dropped = (train, 0) if test is None else _apart(test, train)
    pair = pair_of(train)
    splits = _splits(train, None if test is None else held, terms)
    behaviours: dict[str, list[Behaviour]] = {}
    for name, make in {RANDOM: None, BEST_SINGLE: _BestSingle, ORACLE: None, **routers}.items():
        behaviours[name] = [_behaviour(name, make, split, held, pair, terms) for split in splits]
    drawn = {name: _Drawn() for name in behaviours}
    for weights in _weights(len(held), terms):
        target = metrics.means(behaviours[BEST_SINGLE][0].scores[0], weights)
        for name, each in behaviours.items():
            drawn[name].add(_figures(each, held, pair, weights, target))
    for name, found in drawn.items():
        report.rows.append(_row(train.name, name, len(held), found))
    for name in routers:
        for rival in RIVALS:
            if rival in routers and rival != name:
                report.comparisons.append(
                    _comparison(train.name, name, rival, drawn[name], drawn[rival])
                )
    report.sets.append(_described(train, held, pair, dropped, None if test is None else test))


def _with_enough(train: OutcomeSet, report: Report) -> OutcomeSet:
    """Return a set without models that there is too little to learn of; they are named."""
    counts = (~np.isnan(train.scores)).sum(axis=0)
    for model, count in zip(train.models, counts, strict=True):
        if count < FEWEST:
            report.notes.append(
                f"{train.name}: {model} left out: {count} outcomes to learn from, not {FEWEST}"
            )
    kept = [m for m, count in zip(train.models, counts, strict=True) if count >= FEWEST]
    return train.with_models(kept)


def pair_of(train: OutcomeSet) -> Pair | None:
    """Return the cheapest and the strongest single model; None where they are one model."""
    scores = _column_means(train.scores)
    weak = 0 if _is_priced(train) else int(np.argmin(scores))
    strong = int(np.argmax(scores))
    return None if weak == strong else Pair(weak, strong)


def normalised(text: str) -> str:
    """Return a text as it counts for being the same: without case and spacing."""
    return " ".join(text.casefold().split())


def folds_of(outcomes: OutcomeSet, folds: int, seed: int) -> Ints:
    """Return each item's fold. Items of one text share a fold. Raises DataError for too few."""
    _, texts = np.unique([normalised(text) for text in outcomes.texts], return_inverse=True)
    count = int(texts.max()) + 1
    if count < folds * 2:
        raise DataError(
            f"{outcomes.name}: {count} different items are too few for {folds} folds; give fewer"
            " folds, or more outcomes"
        )
    dealt = np.random.default_rng(seed).permutation(np.arange(count) % folds)
    found: Ints = dealt[texts]
    return found


def _apart(test: OutcomeSet, train: OutcomeSet) -> tuple[OutcomeSet, int]:
    """Return the test items whose text does not stand in training, and how many did."""
    seen = {normalised(text) for text in train.texts}
    kept = [i for i, text in enumerate(test.texts) if normalised(text) not in seen]
    if not kept:
        raise DataError(f"{test.name}: every test item stands in the training store too")
    return test.with_models(train.models).rows(kept), len(test) - len(kept)


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """Training sets with the numbers of the items that a router fitted on each decides on."""

    parts: tuple[tuple[OutcomeSet, Ints], ...]
    seed: int


def _splits(train: OutcomeSet, test: OutcomeSet | None, terms: Terms) -> list[_Split]:
    if test is not None:
        return [_Split(((train, np.arange(len(test))),), terms.seed)]
    found = []
    for repeat in range(terms.repeats):
        seed = terms.seed + repeat
        fold = folds_of(train, terms.folds, seed)
        parts = [
            (train.rows(np.flatnonzero(fold != i)), np.flatnonzero(fold == i))
            for i in range(terms.folds)
        ]
        found.append(_Split(tuple(parts), seed))
    return found


class _BestSingle:
    """Gives every item the models' mean scores in training."""

    def __init__(self, seed: int) -> None:
        self._means = np.zeros(0)

    def fit(self, train: OutcomeSet) -> None:
        self._means = _column_means(train.scores)

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        return np.tile(self._means, (len(texts), 1))


def _behaviour(
    name: str, make: Make | None, split: _Split, held: OutcomeSet, pair: Pair | None, terms: Terms
) -> Behaviour:
    if name == RANDOM:
        return _at_random(held, pair)
    predicted = np.empty(held.scores.shape)
    expected = np.empty(held.scores.shape)
    parts = np.empty(len(held))
    for i, (train, items) in enumerate(split.parts):
        parts[items], expected[items] = i, _column_means(train.prices)
        if make is not None:
            router = make(split.seed)
            router.fit(train)
            shown = held.rows(items)
            predicted[items] = _predicted(name, router, shown)
    if name == ORACLE:
        predicted, expected = np.nan_to_num(held.scores, nan=_NEVER), held.prices
    if np.isnan(expected).any() and not (name == ORACLE and _is_priced(held)):
        expected = np.tile(np.arange(held.scores.shape[1]) * metrics.TIE, (len(held), 1))
    return _by_prediction(predicted, np.nan_to_num(expected), parts, held, pair)


def _predicted(name: str, router: LightRouter, shown: OutcomeSet) -> Floats:
    """Return a router's predictions. Raises DataError where they are not one for each model."""
    found = np.asarray(router.predict(shown.texts, shown.groups), dtype=float)
    if found.shape != shown.scores.shape or not np.isfinite(found).all():
        raise DataError(
            f"{shown.name}: router {name}: expected a finite score for each of {len(shown)} texts"
            f" and {len(shown.models)} models, got an array of {found.shape}"
        )
    return found


def _by_prediction(
    predicted: Floats, expected: Floats, parts: Floats, held: OutcomeSet, pair: Pair | None
) -> Behaviour:
    """Return what choosing by predicted score and expected price does, at each rate of exchange."""
    preference = np.zeros(len(held))
    if pair is not None:
        wanted = predicted[:, pair.strong] - predicted[:, pair.weak]
        preference = metrics.within(np.nan_to_num(wanted), parts)
    worth = expected / max(float(expected.max()), metrics.TIE)
    items = np.arange(len(held))
    chosen: dict[bytes, Ints] = {}
    for rate in RATES:
        # Of models expected to score the same, the cheaper.
        value = predicted - max(rate, metrics.TIE) * worth
        choice = np.argmax(value, axis=1)
        chosen.setdefault(choice.tobytes(), choice)
    scores = np.array([held.scores[items, choice] for choice in chosen.values()])
    prices = np.array([held.prices[items, choice] for choice in chosen.values()])
    return Behaviour(preference, scores, prices, (~np.isnan(scores[0])).astype(float))


def _at_random(held: OutcomeSet, pair: Pair | None) -> Behaviour:
    """Return the expectation of drawing: any model, and along the curve one of the pair."""
    known = ~np.isnan(held.scores)
    counts = np.maximum(known.sum(axis=1), 1)
    any_score = np.where(known.any(axis=1), np.nansum(held.scores, axis=1) / counts, np.nan)
    any_price = np.where(
        known.any(axis=1), np.where(known, held.prices, 0).sum(axis=1) / counts, np.nan
    )
    ends = [] if pair is None else [pair.weak, pair.strong]
    return Behaviour(
        np.zeros(len(held)),
        np.array([any_score, *(held.scores[:, m] for m in ends)]),
        np.array([any_price, *(held.prices[:, m] for m in ends)]),
        known.mean(axis=1),
    )


class _Drawn:
    """Figures of a router: on the whole, then on every resample."""

    def __init__(self) -> None:
        self._pieces: list[dict[str, Floats]] = []

    def add(self, figures: dict[str, Floats]) -> None:
        self._pieces.append(figures)

    def of(self, figure: str) -> Floats:
        return np.concatenate([piece[figure] for piece in self._pieces])


def _weights(items: int, terms: Terms) -> Iterator[Floats]:
    """Yield how often each item stands in each draw; first the items as they are."""
    yield np.ones((1, items))
    rng = np.random.default_rng(terms.seed)
    chunk = max(1, _CELLS // items)
    for start in range(0, terms.draws, chunk):
        counts = np.empty((min(chunk, terms.draws - start), items))
        for row in counts:
            row[:] = np.bincount(rng.integers(0, items, items), minlength=items)
        yield counts


def _figures(
    behaviours: Sequence[Behaviour],
    held: OutcomeSet,
    pair: Pair | None,
    weights: Floats,
    target: Floats,
) -> dict[str, Floats]:
    """Return each figure for each draw, as the mean over repeats."""
    found = [_once(each, held, pair, weights, target) for each in behaviours]
    figures = {name: np.mean([each[name] for each in found], axis=0) for name in FIGURES[:-2]}
    figures["oracle"] = metrics.means(metrics.best(held.scores), weights)
    figures["coverage"] = np.mean([metrics.means(b.covered, weights) for b in behaviours], axis=0)
    return figures


def _once(
    behaviour: Behaviour,
    held: OutcomeSet,
    pair: Pair | None,
    weights: Floats,
    target: Floats,
) -> dict[str, Floats]:
    nothing = np.full(len(weights), np.nan)
    figures = dict.fromkeys(FIGURES[:-2], nothing)
    if pair is not None:
        weak, strong = held.scores[:, pair.weak], held.scores[:, pair.strong]
        if not (np.isnan(weak) | np.isnan(strong)).all():
            curve = metrics.gap_curve(weak, strong, behaviour.preference, weights)
            figures["apgr"] = curve.apgr()
            figures["cpt50"], figures["cpt80"] = curve.cpt(0.5), curve.cpt(0.8)
    figures["mean_score"] = metrics.means(behaviour.scores[0], weights)
    if _is_priced(held):
        figures["mean_price"] = metrics.means(behaviour.prices[0], weights)
        figures["aiq"], figures["price_at_best_single_score"] = _along(
            behaviour, held, weights, target
        )
    return figures


def _along(
    behaviour: Behaviour, held: OutcomeSet, weights: Floats, target: Floats
) -> tuple[Floats, Floats]:
    """Return AIQ, and the price of the best single model's score, for each draw."""
    prices = metrics.means(behaviour.prices.T, weights)
    scores = metrics.means(behaviour.scores.T, weights)
    singles = metrics.means(held.prices, weights)
    low, high = singles.min(axis=1), singles.max(axis=1)
    areas, at_target = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    for i in range(len(weights)):
        known = ~np.isnan(scores[i])
        if known.any():
            found = metrics.hull(prices[i, known], scores[i, known])
            areas[i] = metrics.aiq(found, low[i], high[i])
            at_target[i] = metrics.price_at_score(found, target[i])
    return areas, at_target


def _row(name: str, router: str, items: int, drawn: _Drawn) -> Row:
    row: Row = {"set": name, "router": router, "n": items}
    for figure in FIGURES:
        value, *draws = drawn.of(figure)
        row[figure], row[f"{figure}_ci95"] = _number(value), _interval(np.array(draws))
    return row


def _comparison(name: str, router: str, against: str, ours: _Drawn, theirs: _Drawn) -> Row:
    row: Row = {"set": name, "router": router, "against": against}
    for figure in COMPARED:
        value, *draws = ours.of(figure) - theirs.of(figure)
        row[f"{figure}_difference"] = _number(value)
        row[f"{figure}_difference_ci95"] = _interval(np.array(draws))
    return row


def _described(
    train: OutcomeSet, held: OutcomeSet, pair: Pair | None, dropped: int, test: OutcomeSet | None
) -> Row:
    scores, prices = _column_means(held.scores), _column_means(held.prices)
    extra = [] if test is None else [m for m in test.models if m not in train.models]
    return {
        "set": train.name,
        "train_items": len(train),
        "test_items": len(held),
        "dropped_test_items": dropped,
        "recorded": held.coverage,
        "weak": None if pair is None else train.models[pair.weak],
        "strong": None if pair is None else train.models[pair.strong],
        "models": [
            {"model": model, "mean_score": _number(s), "mean_price": _number(p)}
            for model, s, p in zip(held.models, scores, prices, strict=True)
        ],
        "models_left_out": extra,
    }


def _is_priced(outcomes: OutcomeSet) -> bool:
    """Return whether every recorded outcome has a price."""
    return not bool(np.isnan(outcomes.prices[~np.isnan(outcomes.scores)]).any())


def _column_means(values: Floats) -> Floats:
    known = ~np.isnan(values)
    sums, counts = np.where(known, values, 0).sum(axis=0), known.sum(axis=0)
    found: Floats = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _interval(draws: Floats) -> list[float] | None:
    known = draws[np.isfinite(draws)]
    if len(known) < LEVEL * len(draws):
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return [float(low), float(high)]
