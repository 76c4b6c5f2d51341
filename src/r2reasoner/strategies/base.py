"""What a strategy is made of: the parts it shares with all others, and an allocator by rule.

A strategy is a Router over the same pool, client and ledger as every other, so that figures
differ by how it decides and by nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from r2reasoner.allocator import per_subtask
from r2reasoner.budget import Meter
from r2reasoner.client import Client
from r2reasoner.config import Settings
from r2reasoner.config import settings as checked
from r2reasoner.ledger import Ledger
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.router import Router
from r2reasoner.types import Allocation, Choice, Plan, Query


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """What is right, for strategies that nobody could run.

    `right`: text as asked, answer -> whether that is right, None where it cannot be said; it never
    raises. `subtasks`: it can also say it of subtasks, not of whole queries alone. `blocking`: it
    may take more than a few milliseconds.
    """

    right: Callable[[str, str], bool | None]
    subtasks: bool = False
    blocking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyContext:
    """What all strategies of a comparison share. `seed` is for those that draw."""

    pool: Pool
    settings: Settings
    ledger: Ledger
    client: Client
    seed: int = 0
    key: AnswerKey | None = None


def at_dial(context: StrategyContext, trade_off: str) -> StrategyContext:
    """Return the context at another trade-off. Raises ConfigError for a wrong one."""
    dial = checked(trade_off=trade_off).trade_off
    return replace(context, settings=replace(context.settings, trade_off=dial))


Strategy: TypeAlias = Callable[[StrategyContext], Router]
"""Makes a strategy's router. It must use the context's client and ledger, and close neither."""

CardOf: TypeAlias = Callable[[int], Card]
"""A subtask's number -> its model."""

Rule: TypeAlias = Callable[[Query, Plan], CardOf]


class RuleAllocator:
    """Gives models by a fixed rule and calls none. `cards`: all that it may give."""

    def __init__(self, name: str, cards: tuple[Card, ...], rule: Rule) -> None:
        self.name = name
        self.cards = cards
        self._rule = rule

    async def allocate(
        self, query: Query, plan: Plan, client: Client, meter: Meter, deadline: float | None
    ) -> Allocation:
        """Return the rule's choices."""
        card_of = self._rule(query, plan)
        return per_subtask(
            plan, lambda n, text: Choice(card_of(n).name, self.name), self.name, calibrated=False
        )


def always(card: Card, name: str) -> RuleAllocator:
    """Return an allocator that gives every subtask the same model."""
    return RuleAllocator(name, (card,), lambda query, plan: lambda number: card)


def open_router(context: StrategyContext, allocator: RuleAllocator) -> Router:
    """Return the pool's own decomposer with another allocator."""
    return Router.open(
        context.pool,
        context.settings,
        context.ledger,
        client=context.client,
        allocator=allocator,
    )
