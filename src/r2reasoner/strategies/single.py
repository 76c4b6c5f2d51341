"""`single:<model>`: the whole query in one call to one model.

The points that every router is measured against (RouterBench's single models). Here the model is
alone in its pool: where it fails or writes nothing, nobody else answers in its name.
"""

from dataclasses import replace

from r2reasoner.decomposer import Direct
from r2reasoner.router import Router
from r2reasoner.strategies.base import StrategyContext, always


def single(context: StrategyContext, model: str) -> Router:
    """Return a router that asks one worker. Raises ConfigError for an unknown one."""
    card = context.pool.card(model)
    return Router.open(
        replace(context.pool, workers=(card,)),
        context.settings,
        context.ledger,
        client=context.client,
        decomposer=Direct(),
        allocator=always(card, f"single:{model}"),
    )
