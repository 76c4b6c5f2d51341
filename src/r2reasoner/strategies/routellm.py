"""`routellm`: the whole query to a weak or a strong model, by how likely the strong one is needed.

Published (RouteLLM, arXiv 2406.18665): a router learns from preferences between two models' answers
how likely the strong model's is the better one, and sends a query there where that is at least a
threshold. Its best one factorises a matrix of models and queries: the logistic function of a
product of both embeddings. The threshold is no probability to be chosen by hand: it is calibrated
on a sample of queries, as the quantile that sends a wanted share of them to the strong model.

Ours learns from recorded right and wrong answers: the strong model counts as better where it scored
higher, ties are the weak one's. For one pair of models the product of embeddings is linear in the
query's, so that a logistic regression on the query (word and character TF-IDF) is the same kind of
model. `routellm@0.3` sets the threshold; without one, it is calibrated to send half of the recorded
queries to the strong model, by predictions of a regression that had not seen them. The recorded
queries are those that `r2reasoner calibrate --whole` asked all workers.
"""

from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Final

import numpy as np

from r2reasoner.decomposer import Direct
from r2reasoner.errors import ConfigError
from r2reasoner.outcomes.measured import query_outcomes
from r2reasoner.outcomes.routers import LightRouter
from r2reasoner.outcomes.routers.estimate import MOST_TEXTS, router_maker
from r2reasoner.outcomes.sets import OutcomeSet
from r2reasoner.pool.cards import Card
from r2reasoner.router import Router
from r2reasoner.strategies.answering import pair
from r2reasoner.strategies.base import CardOf, RuleAllocator, StrategyContext
from r2reasoner.types import Plan, Query

STRONG_SHARE: Final = 0.5
FOLDS: Final = 5


class Needed:
    """How likely a query needs the strong model: P(it scores higher than the weak one).

    `records` has one score a query, whether it did.
    """

    def __init__(self, records: OutcomeSet) -> None:
        self._make = router_maker("logistic")
        self._records = records
        self._router = self._fit(records)
        self.probability = lru_cache(maxsize=MOST_TEXTS)(self._probability)

    @cached_property
    def threshold(self) -> float:
        """The least probability of those recorded queries, half of them, that need it most."""
        count = len(self._records)
        if count < FOLDS:
            return STRONG_SHARE
        fold_of = np.random.default_rng(0).permutation(count) % FOLDS
        told = []
        for fold in range(FOLDS):
            router = self._fit(self._records.rows(np.flatnonzero(fold_of != fold)))
            asked = self._records.rows(np.flatnonzero(fold_of == fold))
            told.append(router.predict(asked.texts, asked.groups)[:, 0])
        return float(np.quantile(np.concatenate(told), 1 - STRONG_SHARE))

    def _fit(self, records: OutcomeSet) -> LightRouter:
        router = self._make(0)
        router.fit(records)
        return router

    def _probability(self, query: str) -> float:
        return float(self._router.predict([query], [""])[0, 0])


@lru_cache(maxsize=8)
def needed(records: OutcomeSet, weak: str, strong: str) -> Needed:
    """Return the estimate for a pair, once for all who ask.

    Raises ConfigError where no query was asked of both, DataError where one was asked nothing.
    """
    both = records.with_models([weak, strong])
    both = both.rows(np.flatnonzero(~np.isnan(both.scores).any(axis=1)))
    if not len(both):
        raise ConfigError(f"{records.name}: no query that both {weak} and {strong} were asked")
    better = (both.scores[:, 1:] > both.scores[:, :1]).astype(np.float64)
    return Needed(replace(both, models=(strong,), scores=better, prices=both.prices[:, 1:]))


def routellm(
    context: StrategyContext, small: Card | None = None, threshold: float | None = None
) -> Router:
    """Return the pair's router. Raises ConfigError where outcomes or scikit-learn are missing."""
    weak, strong = pair(context.pool, small)
    estimate = needed(query_outcomes(context.pool), weak.name, strong.name)
    least = estimate.threshold if threshold is None else threshold

    def rule(query: Query, plan: Plan) -> CardOf:
        card = strong if estimate.probability(query.text) >= least else weak
        return lambda number: card

    return Router.open(
        replace(context.pool, workers=tuple(dict.fromkeys((weak, strong)))),
        context.settings,
        context.ledger,
        client=context.client,
        decomposer=Direct(),
        allocator=RuleAllocator("routellm", (weak, strong), rule),
    )
