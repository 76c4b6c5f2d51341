"""`dot`: a dependency graph of subtasks, each for a small or a large model by confidence.

Published (Division-of-Thoughts, arXiv 2502.04392): a model plans, finds which steps need which,
and independent steps run at the same time. An adapter on the small model reads a step's text and
says small or large before anything is run; it is trained on the outcomes of a search that starts
from token probabilities: steps whose answer is less than .9 sure go to the large model, then steps
are lowered or raised until the final answer breaks. One more call sums up the steps' answers.

Ours takes the pool's own planner, whose plans are graphs, and no last call where the plan's
template joins the answers. Measured outcomes stand where the adapter stood: a subtask goes to the
small model where that is right with a probability of at least .5, as an adapter decides. A pool
without outcomes of its small model has nothing to train one on; there the search's first rule
decides at run time: the small model answers, and under .9 (geometric mean of its token
probabilities, where the original takes a low quantile) the large one answers instead. `dot@0.8`
sets either threshold. Our outcomes are of answers to training items, never of the test's.
"""

from dataclasses import replace
from typing import Final

from r2reasoner.errors import ConfigError
from r2reasoner.estimate import OutcomeModel
from r2reasoner.plan import in_context
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.router import Router
from r2reasoner.strategies.answering import Cascade, check_tells, pair, token_confidence
from r2reasoner.strategies.base import (
    CardOf,
    RuleAllocator,
    StrategyContext,
    always,
    open_router,
)
from r2reasoner.types import Plan, Query

ADAPTER_THRESHOLD: Final = 0.5
ANSWER_THRESHOLD: Final = 0.9


def dot(
    context: StrategyContext, small: Card | None = None, threshold: float | None = None
) -> Router:
    """Return the pair. Raises ConfigError where nothing says how sure the small model is."""
    small, large = pair(context.pool, small)
    outcomes = _outcomes(context.pool, small)
    if outcomes is not None:
        least = ADAPTER_THRESHOLD if threshold is None else threshold
        return _open(context, (small, large), _by_outcomes(outcomes, small, large, least))
    if small.prompt != large.prompt:
        raise ConfigError(
            f"dot hands a subtask from {small.name} to {large.name}, but one of them takes a plain"
            " prompt and the other a chat; `r2reasoner calibrate` makes it decide beforehand"
        )
    cards = tuple(dict.fromkeys((small, large)))
    check_tells("dot", cards[:-1])
    least = ANSWER_THRESHOLD if threshold is None else threshold
    client = Cascade(context.client, cards, token_confidence, least)
    return _open(replace(context, client=client), cards, always(small, "dot"))


def _by_outcomes(outcomes: OutcomeModel, small: Card, large: Card, least: float) -> RuleAllocator:
    def rule(query: Query, plan: Plan) -> CardOf:
        def card_of(number: int) -> Card:
            return (
                small if outcomes.p_right(in_context(plan, number))[small.name] >= least else large
            )

        return card_of

    return RuleAllocator("dot", (small, large), rule)


def _outcomes(pool: Pool, small: Card) -> OutcomeModel | None:
    """Return what was measured of the pool, if the small model was."""
    if pool.outcomes is None or not pool.outcomes.exists():
        return None
    outcomes = OutcomeModel.load(pool.outcomes)
    return outcomes if small.name in outcomes.models else None


def _open(context: StrategyContext, cards: tuple[Card, ...], allocator: RuleAllocator) -> Router:
    """Return the pool's own planner over some of its workers, which it need not be one of."""
    router = open_router(context, allocator)
    return replace(router, pool=replace(context.pool, workers=tuple(dict.fromkeys(cards))))
