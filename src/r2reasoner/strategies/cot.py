"""`cot`: the paper's chain of thought: one model decomposes and answers the subtasks in turn.

Published: one large model is prompted to break the query into steps, then does each step with the
answers of all earlier ones before it. Ours is the same with the strongest worker, alone in its
pool. Where the pool's decomposer is a trained policy (its workers cannot be prompted for plans),
the plan is that policy's, as good as r2's, and its tokens are billed at the strongest worker's
price, as if that one had written it.
"""

from dataclasses import dataclass, replace

from r2reasoner.budget import Meter
from r2reasoner.client import Client
from r2reasoner.decomposer import (
    Decomposer,
    Decomposition,
    PolicyDecomposer,
    PromptedDecomposer,
)
from r2reasoner.pool.cards import Card
from r2reasoner.router import Router
from r2reasoner.strategies.base import StrategyContext, always
from r2reasoner.types import Plan, Query


@dataclass(frozen=True, slots=True)
class InTurn:
    """Another decomposer's plans as chains: each subtask sees the answers of all before it."""

    inner: Decomposer

    async def decompose(
        self, query: Query, client: Client, meter: Meter, deadline: float | None
    ) -> Decomposition:
        """Return the inner decomposer's plan as a chain; raises what that one raises."""
        planned = await self.inner.decompose(query, client, meter, deadline)
        chain = tuple(
            replace(subtask, needs=tuple(range(1, number)))
            for number, subtask in enumerate(planned.plan.subtasks, 1)
        )
        return replace(planned, plan=Plan(chain, planned.plan.answer))


def cot(context: StrategyContext) -> Router:
    """Return a router whose strongest worker plans and then works alone, in sequence."""
    strongest = context.pool.strongest
    return Router.open(
        replace(context.pool, workers=(strongest,)),
        context.settings,
        context.ledger,
        client=context.client,
        decomposer=planned_by(strongest, context),
        allocator=always(strongest, "cot"),
        parallel=False,
    )


def planned_by(worker: Card, context: StrategyContext) -> InTurn:
    """Return the chains that a worker plans, or the pool's policy at that worker's price."""
    planner = context.pool.card(context.pool.decomposer)
    most = context.settings.max_subtasks
    inner: Decomposer = PromptedDecomposer(worker, most)
    if planner.plan_format == "line":
        inner = PolicyDecomposer(
            replace(planner, price=worker.price), most, trade_off=context.settings.trade_off
        )
    return InTurn(inner)
