"""`strongest`, `cheapest`, `random`, `last-node`: r2's plan, models given by a fixed rule.

Controls of our own that part what the plan brings from what the allocation brings; nothing is
published of the first two and the last. The published random router (RouteLLM) draws between two
models per query; ours draws among all workers per subtask.
"""

from random import Random

from r2reasoner.router import Router
from r2reasoner.strategies.base import (
    CardOf,
    RuleAllocator,
    StrategyContext,
    always,
    open_router,
)
from r2reasoner.types import Plan, Query


def strongest(context: StrategyContext) -> Router:
    """Return r2 with the strongest worker everywhere."""
    return open_router(context, always(context.pool.strongest, "strongest"))


def cheapest(context: StrategyContext) -> Router:
    """Return r2 with the cheapest worker everywhere."""
    return open_router(context, always(context.pool.cheapest, "cheapest"))


def random(context: StrategyContext) -> Router:
    """Return r2 with a worker drawn for each subtask, the same for one seed and query."""
    workers = context.pool.workers

    def rule(query: Query, plan: Plan) -> CardOf:
        draw = Random(f"{context.seed} {query.text}")
        drawn = [draw.choice(workers) for _ in plan.subtasks]
        return lambda number: drawn[number - 1]

    return open_router(context, RuleAllocator("random", workers, rule))


def last_node(context: StrategyContext) -> Router:
    """Return r2 with the strongest worker on what only the answer uses, the cheapest elsewhere."""
    top, low = context.pool.strongest, context.pool.cheapest

    def rule(query: Query, plan: Plan) -> CardOf:
        last = plan.last_nodes()
        return lambda number: top if number in last else low

    return open_router(context, RuleAllocator("last-node", (low, top), rule))
