"""`kind-table`: r2's plans, each subtask to the best model for its kind by a table.

A rival of our own for the nano pool, nothing published: it costs no token, as a light router, and
reads less of a subtask than any policy: which words and operators stand where and how many digits
numbers have. Each kind's model is the one with the best `log P(right) - mu * relative cost`, by the
shares of right answers and the mean costs that `r2reasoner calibrate` measured; `kind-table@0.5` is
that at trade-off 0.5. What is of no known kind goes to the strongest.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from r2reasoner.allocator import cost_weight
from r2reasoner.outcomes.measured import subtask_outcomes
from r2reasoner.outcomes.sets import OutcomeSet
from r2reasoner.plan import in_context
from r2reasoner.router import Router
from r2reasoner.strategies.base import (
    CardOf,
    RuleAllocator,
    StrategyContext,
    at_dial,
    open_router,
)
from r2reasoner.types import Plan, Query

NAME: Final = "kind-table"


class Tried(NamedTuple):
    """How a model did on one text of a kind: its score from 0 to 1, and its cost in any unit."""

    score: float
    cost: float


class Mean(NamedTuple):
    """How a model does on a kind."""

    p_right: float
    cost: float


Trials: TypeAlias = Mapping[str, Sequence[Sequence[Tried]]]
"""Kind -> for each model, what it was tried on."""


class KindTable:
    """How each of some models (weakest first) does on each kind of subtask."""

    def __init__(self, trials: Trials, models: Sequence[str]) -> None:
        self.models = tuple(models)
        self.by_kind = {
            kind: tuple(map(_mean, of_models))
            for kind, of_models in trials.items()
            if all(of_models)
        }

    def best(self, text: str, weight: float) -> str:
        """Return the model with the best `log P(right) - weight * cost` for a text's kind.

        An infinite weight takes the cheapest; an unknown kind the strongest.
        """
        found = self.by_kind.get(kind_of(text))
        if found is None:
            return self.models[-1]
        numbers = range(len(found))
        if math.isinf(weight):
            return self.models[min(numbers, key=lambda m: found[m].cost)]
        return self.models[
            max(numbers, key=lambda m: math.log(found[m].p_right) - weight * found[m].cost)
        ]


def kind_of(text: str) -> str:
    """Return what a table sees of a subtask: every digit the same, a reference's context too."""
    return re.sub(r"[0-9]", "9", text)


def _mean(trials: Sequence[Tried]) -> Mean:
    # one right and one wrong answer more, so that a kind met once is no certainty
    right = (sum(t.score for t in trials) + 1) / (len(trials) + 2)
    return Mean(right, sum(t.cost for t in trials) / len(trials))


@lru_cache(maxsize=8)
def measured_table(records: OutcomeSet) -> KindTable:
    """Return the table of what was measured, costs relative to the dearest model's mean."""
    dearest = float(np.nan_to_num(records.mean_prices).max()) or 1.0
    # an unknown cost counts as the dearest: it must not be chosen for being "free"
    costs = np.where(np.isnan(records.prices), 1.0, records.prices / dearest)
    trials: dict[str, list[list[Tried]]] = {}
    for text, scores, row in zip(records.texts, records.scores, costs, strict=True):
        of_models = trials.setdefault(kind_of(text), [[] for _ in records.models])
        for tried, score, cost in zip(of_models, scores, row, strict=True):
            if not np.isnan(score):
                tried.append(Tried(float(score), float(cost)))
    return KindTable(trials, records.models)


def kind_table(context: StrategyContext) -> Router:
    """Return the router. Raises ConfigError where nothing was measured."""
    pool = context.pool
    table = measured_table(subtask_outcomes(pool))
    weight = cost_weight(context.settings.trade_off)

    def rule(query: Query, plan: Plan) -> CardOf:
        return lambda number: pool.card(table.best(in_context(plan, number), weight))

    return open_router(context, RuleAllocator(NAME, pool.workers, rule))


def kind_table_at(context: StrategyContext, trade_off: str) -> Router:
    """Return the router at another trade-off. Raises ConfigError for a wrong one."""
    return kind_table(at_dial(context, trade_off))
