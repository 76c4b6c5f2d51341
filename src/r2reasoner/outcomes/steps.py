"""Which steps of a plan can go to the small model, learnt from recorded allocations.

A plan's outcomes are allocations of a small and a strong model to its steps, each right or wrong
at the end. From them each step's label: small was enough where it stood in an allocation that was
right, and not enough where all those that gave it to small were wrong though another was right.
A logistic regression on the step's words, the question's words and the step's place learns it.

An allocation is judged only where it was recorded. `free`: the router's own allocation at each
threshold, counted where it was tried (coverage says how often). `recorded`: of what was tried on a
plan the allocation that the router likes best at each price of a strong step; only plans with
several to choose from tell routers apart there. Beside it, all-strong, all-small, and a lottery
among the recorded ones with the same share of strong steps.

Read with care: only questions that the strong model had solved are recorded; each allocation ran
once, at temperature 1; and which allocations were tried depends on how earlier ones did (steps are
lowered one by one until a failure), so that knowing what was tried tells something of the answer.
The lottery knows as much. The recorded order of steps, which tells how sure the small model was,
never gets here.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes.judge import normalised
from r2reasoner.outcomes.layouts.dot_steps import JOIN, NAME, SMALL, STRONG
from r2reasoner.outcomes.records import Outcome
from r2reasoner.outcomes.sets import Floats
from r2reasoner.outcomes.store import OutcomeStore

Allocation: TypeAlias = tuple[bool, ...]
"""For each step of a plan whether the strong model has it."""
Row: TypeAlias = dict[str, Any]

THRESHOLDS: Final = np.linspace(0.05, 0.95, 19)
RATES: Final = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0])
"""What a plan's share of strong steps costs in log-probability of success."""
LOTTERIES: Final = 50
DRAWS: Final = 2000
_LINE: Final = re.compile(r"^\d+\. ?", re.MULTILINE)


@dataclass(frozen=True, slots=True, eq=False)
class RecordedPlan:
    """A plan's steps, and the mean score of each allocation that was tried on it."""

    item: str
    question: str
    group: str
    steps: tuple[str, ...]
    tried: Mapping[Allocation, float]


def recorded_plans(store: OutcomeStore, source: str = NAME) -> tuple[RecordedPlan, ...]:
    """Return the plans of a store with their allocations of the small and the strong model.

    Raises DataError where it has none, or an outcome's answer or a step's text is missing.
    """
    by_plan: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in store.outcomes():
        if outcome.source == source and outcome.plan and outcome.subtask is None:
            by_plan[outcome.plan].append(outcome)
    if not by_plan:
        raise DataError(
            f"{store.folder}: no step allocations of {source}; take some in with `r2reasoner"
            " outcomes import`"
        )
    return tuple(_plan(found, store) for _, found in sorted(by_plan.items()))


def _plan(outcomes: Sequence[Outcome], store: OutcomeStore) -> RecordedPlan:
    first = outcomes[0]
    answer = store.get(first.key)
    if answer is None:
        raise DataError(f"{store.folder}: no answer {first.key} in the store")
    said = {message["role"]: message["content"] for message in json.loads(answer.prompt)}
    steps = tuple(_LINE.split(said.get("assistant", ""))[1:])
    runs: dict[Allocation, list[float]] = defaultdict(list)
    for outcome in outcomes:
        models = outcome.model.split(JOIN)
        if len(models) != len(steps) or not {*models} <= {SMALL, STRONG}:
            raise DataError(
                f"{store.folder}: plan {first.plan}: expected {SMALL} or {STRONG} for each of"
                f" {len(steps)} steps, got {outcome.model}"
            )
        if outcome.score is not None:
            runs[tuple(model == STRONG for model in models)].append(outcome.score)
    tried = {allocation: float(np.mean(scores)) for allocation, scores in runs.items()}
    group = first.group or ""
    return RecordedPlan(first.item, said.get("user", ""), group, steps, tried)


def labels(plan: RecordedPlan) -> dict[int, bool]:
    """Return, for each step (from 0) that the tries tell of, whether small was enough."""
    found = {}
    right = [allocation for allocation, score in plan.tried.items() if score >= 0.5]
    for step in range(len(plan.steps)):
        if any(not allocation[step] for allocation in right):
            found[step] = True
        elif right and any(not allocation[step] for allocation in plan.tried):
            found[step] = False
    return found


class StepRouter:
    """Tells for each step of a plan how probably the small model is enough. Needs scikit-learn."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def fit(self, plans: Sequence[RecordedPlan]) -> None:
        """Learn. Raises DataError where no step, or every step, can go to the small model."""
        examples = [(plan, step, enough) for plan in plans for step, enough in labels(plan).items()]
        wanted = [enough for _, _, enough in examples]
        if len(set(wanted)) < 2:
            raise DataError("the recorded allocations tell of no step that needs the strong model")
        self._features, self._model = _pipeline(self._seed)
        rows = [_described(plan, step) for plan, step, _ in examples]
        self._model.fit(self._features.fit_transform(rows), wanted)

    def predict(self, plans: Sequence[RecordedPlan]) -> list[Floats]:
        """Return for each plan the probability, step by step, that small is enough."""
        rows = [_described(plan, step) for plan in plans for step in range(len(plan.steps))]
        enough = self._model.predict_proba(self._features.transform(rows))[:, 1]
        ends = np.cumsum([len(plan.steps) for plan in plans])[:-1]
        return [np.asarray(each) for each in np.split(enough, ends)]


def _described(plan: RecordedPlan, step: int) -> Row:
    count = len(plan.steps)
    return {
        "step": plan.steps[step],
        "question": f"{plan.group} {plan.question}",
        "place": {
            "benchmark": plan.group or "none",
            "last": step == count - 1,
            "at": step / count,
            "steps": min(count, 12) / 12,
        },
    }


def _pipeline(seed: int) -> tuple[Any, Any]:
    try:
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import FeatureUnion, make_pipeline
        from sklearn.preprocessing import FunctionTransformer
    except ImportError:
        raise ConfigError(
            "learning from recorded outcomes needs scikit-learn: pip install"
            " 'r2reasoner[evaluation]'"
        ) from None

    def part(name: str, then: Any) -> Any:
        return make_pipeline(FunctionTransformer(_Field(name)), then)

    features = FeatureUnion(
        [
            ("step", part("step", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True))),
            ("question", part("question", TfidfVectorizer(sublinear_tf=True))),
            ("place", part("place", DictVectorizer())),
        ]
    )
    return features, LogisticRegression(C=1.0, max_iter=1000, random_state=seed)


class _Field:
    """Takes one field of each row."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, rows: Iterable[Row]) -> list[Any]:
        return [row[self._name] for row in rows]


def judge_steps(
    train: Sequence[RecordedPlan],
    test: Sequence[RecordedPlan] | None,
    *,
    folds: int = 5,
    seed: int = 0,
) -> Row:
    """Return how learnt allocations do: `rows` of arms, `comparisons` with the lottery, counts.

    Without `test`, by cross-validation in which no question stands on both sides; with it, test
    plans whose question stands in training are dropped and counted. Raises DataError as
    `StepRouter.fit`, and where too little is left.
    """
    held, parts, dropped = _parts(train, test, folds, seed)
    enough: list[Floats] = [np.zeros(0)] * len(held)
    for learning, deciding in parts:
        router = StepRouter(seed)
        router.fit(learning)
        for i, found in zip(deciding, router.predict([held[i] for i in deciding]), strict=True):
            enough[i] = found
    tally = _Tally(held, seed)
    rows = [
        tally.row("all small", None, [(False,) * len(plan.steps) for plan in held]),
        tally.row("all strong", None, [(True,) * len(plan.steps) for plan in held]),
    ]
    for threshold in THRESHOLDS:
        wanted = [tuple(bool(p < threshold) for p in found) for found in enough]
        rows.append(tally.row("learned, free", round(float(threshold), 2), wanted))
    several = [i for i, plan in enumerate(held) if len(plan.tried) > 1]
    comparisons: list[Row] = []
    if several:
        choices = _Choices([held[i] for i in several], [enough[i] for i in several])
        among = _Tally([held[i] for i in several], seed)
        for rate in RATES:
            learned = among.recorded("learned, recorded", float(rate), *choices.by_router(rate))
            lottery = among.recorded(
                "lottery, recorded", float(rate), *choices.lottery(learned["strong_share"], seed)
            )
            comparisons.append(among.difference(float(rate)))
            rows += [learned, lottery]
        rows.append(among.recorded("oracle, recorded", None, *choices.oracle()))
    return {
        "rows": rows,
        "comparisons": comparisons,
        "plans": len(held),
        "plans_with_a_choice": len(several),
        "questions": len({plan.item for plan in held}),
        "dropped_test_plans": dropped,
    }


def _parts(
    train: Sequence[RecordedPlan], test: Sequence[RecordedPlan] | None, folds: int, seed: int
) -> tuple[list[RecordedPlan], list[tuple[list[RecordedPlan], list[int]]], int]:
    """Return the plans to decide on, what to learn from for which of them, and how many dropped."""
    if test is not None:
        seen = {normalised(plan.question) for plan in train}
        kept = [plan for plan in test if normalised(plan.question) not in seen]
        if not kept:
            raise DataError("every test plan's question stands in the training store too")
        return kept, [(list(train), list(range(len(kept))))], len(test) - len(kept)
    held = list(train)
    questions = sorted({normalised(plan.question) for plan in held})
    if len(questions) < folds * 2:
        raise DataError(f"{len(questions)} questions are too few for {folds} folds; give fewer")
    dealt = np.random.default_rng(seed).permutation(np.arange(len(questions)) % folds)
    fold = dict(zip(questions, dealt.tolist(), strict=True))
    at = [fold[normalised(plan.question)] for plan in held]
    return (
        held,
        [
            (
                [plan for plan, f in zip(held, at, strict=True) if f != i],
                [n for n, f in enumerate(at) if f == i],
            )
            for i in range(folds)
        ],
        0,
    )


class _Choices:
    """The tried allocations of plans with several, as a table: plans x allocations, padded."""

    def __init__(self, plans: Sequence[RecordedPlan], enough: Sequence[Floats]) -> None:
        width = max(len(plan.tried) for plan in plans)
        self._scores = np.full((len(plans), width), np.nan)
        self._strong = np.zeros((len(plans), width))
        self._likely = np.full((len(plans), width), -np.inf)
        self._steps = np.array([len(plan.steps) for plan in plans], float)
        for i, (plan, found) in enumerate(zip(plans, enough, strict=True)):
            for j, (allocation, score) in enumerate(sorted(plan.tried.items())):
                small = ~np.array(allocation)
                self._scores[i, j], self._strong[i, j] = score, sum(allocation)
                self._likely[i, j] = np.log(np.maximum(found[small], 1e-9)).sum()

    def by_router(self, rate: float) -> tuple[Floats, Floats]:
        """Return the scores and strong steps of what the router likes best at a rate."""
        return self._take(self._likely - rate * self._shares)

    def oracle(self) -> tuple[Floats, Floats]:
        """Return those of the right allocation with the fewest strong steps."""
        return self._take(np.nan_to_num(self._scores, nan=-np.inf) - 1e-6 * self._shares)

    def lottery(self, share: float, seed: int) -> tuple[Floats, Floats]:
        """Return the mean scores and strong steps of drawn allocations, at a share of strong ones.

        What strong steps cost in the draw is set so that their share comes out as given.
        """
        luck = np.random.default_rng(seed).random((LOTTERIES, *self._scores.shape))
        luck[:, np.isnan(self._scores)] = -np.inf
        low, high = -1e3, 1e3
        for _ in range(50):
            middle = (low + high) / 2
            drawn = self._take(luck - middle * self._shares)
            if drawn[1].sum() > share * self._steps.sum():
                low = middle
            else:
                high = middle
        return drawn

    @property
    def _shares(self) -> Floats:
        found: Floats = self._strong / self._steps[:, None]
        return found

    def _take(self, liked: Floats) -> tuple[Floats, Floats]:
        """Return scores and strong steps of the most liked allocation, the mean over draws."""
        best = np.argmax(liked, axis=-1).reshape(-1, len(self._scores))
        plans = np.arange(len(self._scores))
        return self._scores[plans, best].mean(axis=0), self._strong[plans, best].mean(axis=0)


class _Tally:
    """Figures of arms over plans, resampled by question: plans of one question go together."""

    def __init__(self, plans: Sequence[RecordedPlan], seed: int) -> None:
        self._plans = plans
        items, self._question = np.unique([plan.item for plan in plans], return_inverse=True)
        rng = np.random.default_rng(seed)
        count = len(items)
        self._weights = np.array(
            [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(DRAWS)],
            dtype=float,
        )
        self._count = count
        self._scores: list[Floats] = []

    def row(self, arm: str, at: float | None, wanted: Sequence[Allocation]) -> Row:
        """Return the figures of wanted allocations, judged where they were tried."""
        pairs = list(zip(self._plans, wanted, strict=True))
        scores = np.array([plan.tried.get(allocation, np.nan) for plan, allocation in pairs])
        return self.recorded(arm, at, scores, np.array([float(sum(a)) for a in wanted]))

    def recorded(self, arm: str, at: float | None, scores: Floats, strong: Floats) -> Row:
        """Return the figures of an arm from each plan's score and number of strong steps."""
        self._scores.append(scores)
        covered = ~np.isnan(scores)
        steps = np.array([len(plan.steps) for plan in self._plans], float)
        known = bool(covered.any())
        return {
            "arm": arm,
            "at": at,
            "plans": len(scores),
            "success": float(scores[covered].mean()) if known else None,
            "success_ci95": self._interval(np.where(covered, scores, 0), covered),
            "strong_share": float(strong.sum() / steps.sum()),
            "strong_share_covered": (
                float(strong[covered].sum() / steps[covered].sum()) if known else None
            ),
            "coverage": float(covered.mean()),
        }

    def difference(self, at: float) -> Row:
        """Return how much better the arm before the last was than the last, on the same plans."""
        off = self._scores[-2] - self._scores[-1]
        return {
            "arm": "learned, recorded",
            "against": "lottery, recorded",
            "at": at,
            "success_difference": float(off.mean()),
            "success_difference_ci95": self._interval(off, np.ones(len(off), bool)),
        }

    def _interval(self, values: Floats, covered: Any) -> list[float] | None:
        sums = self._weights @ np.bincount(self._question, values, self._count)
        counts = self._weights @ np.bincount(self._question, covered, self._count)
        usable = counts > 0
        if usable.mean() < 0.95:
            return None
        low, high = np.quantile(sums[usable] / counts[usable], [0.025, 0.975])
        return [float(low), float(high)]
