"""`light:ROUTER`: r2's plans, each subtask to the model that a light router finds best.

Nothing is published of it: routers learned from recorded outcomes are published for whole queries,
where they take the place of the allocator alone. Ours reads the outcomes that `r2reasoner
calibrate` measured on subtasks, bills no token, and has r2's dial: `light:blend@0.5`. A pool file
has the same as `allocator = "light:blend"`.
"""

from r2reasoner.allocator import light_allocator
from r2reasoner.router import Router
from r2reasoner.strategies.base import StrategyContext, at_dial


def light(context: StrategyContext, argument: str) -> Router:
    """Return the router of `ROUTER` or `ROUTER@TRADE_OFF`.

    Raises ConfigError for an unknown router or a wrong trade-off, and where outcomes or
    scikit-learn are missing.
    """
    name, at, dial = argument.partition("@")
    context = at_dial(context, dial) if at else context
    return Router.open(
        context.pool,
        context.settings,
        context.ledger,
        client=context.client,
        allocator=light_allocator(context.pool, name, context.settings.trade_off),
    )
