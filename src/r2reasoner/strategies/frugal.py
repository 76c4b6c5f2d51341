"""`frugal`: a cascade of models, each asked only where the answer before it is not sure enough.

Published (FrugalGPT, arXiv 2305.05176): at most three models in turn; a small regression model
(DistilBERT, fine-tuned on right and wrong answers) scores query and answer together from 0 to 1,
and the first answer whose score passes its model's threshold is kept. Which models, in which
order and with which thresholds is learned on training items under a budget.

Ours keeps the cascade and trains nothing: the models are the strongest of each third of the
ladder, the score is the geometric mean of the answer's token probabilities, and one threshold
holds for all but the last, whose answer is always kept. `frugal@0.8` sets it. A score that is not
told counts as too low, so that endpoints without log-probabilities go up to the strongest.
"""

from dataclasses import replace
from typing import Final

from r2reasoner.decomposer import Direct
from r2reasoner.router import Router
from r2reasoner.strategies.answering import Cascade, check_tells, rungs, share, token_confidence
from r2reasoner.strategies.base import StrategyContext, always

LENGTH: Final = 3
THRESHOLD: Final = 0.9


def frugal(context: StrategyContext, threshold: float = THRESHOLD) -> Router:
    """Return the cascade. Raises ConfigError where its models tell no log-probabilities."""
    cards = rungs(context.pool, LENGTH)
    check_tells("frugal", cards[:-1])
    return Router.open(
        replace(context.pool, workers=cards[:1]),
        context.settings,
        context.ledger,
        client=Cascade(context.client, cards, token_confidence, threshold),
        decomposer=Direct(),
        allocator=always(cards[0], "frugal"),
    )


def frugal_at(context: StrategyContext, threshold: str) -> Router:
    """Return the cascade with another threshold. Raises ConfigError for a wrong one."""
    return frugal(context, share(threshold, "frugal"))
