"""`knn`: the whole query in one call to the model that did best on the nearest recorded queries.

Published (RouterBench, arXiv 2403.12031; found hard to beat in arXiv 2505.12601): a query's
embedding is compared with those of training queries; each model's expected score is its mean over
the nearest of them, and the model with the best `willingness to pay * score - cost` is asked.

Ours compares in an SVD of word and character TF-IDF, no embedding model, takes the 60 nearest, and
weighs by r2's dial: the best `log P(right) - mu * relative cost`, `knn@0.5` at trade-off 0.5. The
recorded queries are those that `r2reasoner calibrate --whole` asked all workers.
"""

from typing import Final

from r2reasoner.allocator import CalibratedAllocator
from r2reasoner.decomposer import Direct
from r2reasoner.outcomes.measured import query_outcomes
from r2reasoner.outcomes.routers.estimate import light_estimate
from r2reasoner.router import Router
from r2reasoner.strategies.base import StrategyContext, at_dial

NAME: Final = "knn"


def knn(context: StrategyContext) -> Router:
    """Return the router. Raises ConfigError where outcomes or scikit-learn are missing."""
    estimate = light_estimate(NAME, query_outcomes(context.pool))
    return Router.open(
        context.pool,
        context.settings,
        context.ledger,
        client=context.client,
        decomposer=Direct(),
        allocator=CalibratedAllocator(context.pool, estimate, context.settings.trade_off, NAME),
    )


def knn_at(context: StrategyContext, trade_off: str) -> Router:
    """Return the router at another trade-off. Raises ConfigError as `knn` and for a wrong one."""
    return knn(at_dial(context, trade_off))
