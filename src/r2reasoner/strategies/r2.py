"""`r2`: the paper's method, the pool's decomposer and allocator as the pool file names them.

Published: both are fine-tuned policies; every query is decomposed, and cost counts the subtasks'
calls. Ours may answer directly, bills the policies' tokens too, and has one dial: `r2@0.5` is r2 at
trade-off 0.5, so that a result can hold a curve instead of a point.
"""

from r2reasoner.router import Router
from r2reasoner.strategies.base import StrategyContext, at_dial


def r2(context: StrategyContext) -> Router:
    """Return the pool's own router."""
    return Router.open(context.pool, context.settings, context.ledger, client=context.client)


def r2_at(context: StrategyContext, trade_off: str) -> Router:
    """Return the pool's own router at another trade-off. Raises ConfigError for a wrong one."""
    return r2(at_dial(context, trade_off))
