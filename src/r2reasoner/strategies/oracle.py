"""`oracle`: the cheapest model whose answer is right, of which nobody could know beforehand.

No strategy that anyone can run: it looks up what is right. A bound for those that allocate models
to the same plans, published in many shapes (RouterBench's oracle is the cheapest right model of
each query). Where the right answer of every subtask is known, as in the nano tasks, ours takes r2's
plan and gives each subtask to the cheapest model that does it right on the answers before it; else
whole queries, each in one call. Where no model is right, the cheapest one's answer stands. It is
no strict bound on plans: a wrong step may still end in a right answer.

Models are asked from the cheapest on until one is right. All those calls are paid and stand in the
ledger, under a query of their own; the bill of an item has the planner's calls and each chosen call
alone, marked as on record.
"""

import asyncio
from dataclasses import replace
from typing import Final

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.decomposer import Direct
from r2reasoner.errors import CallError, ConfigError, R2Error, UnknownWords
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.pool.cards import Card
from r2reasoner.router import Router
from r2reasoner.strategies.answering import Answering
from r2reasoner.strategies.base import AnswerKey, StrategyContext, always

NAME: Final = "oracle"


class CheapestRight(Answering):
    """Asks models, the cheapest first, until an answer is right, and bills that one alone."""

    def __init__(
        self, inner: Client, cards: tuple[Card, ...], key: AnswerKey, ledger: Ledger
    ) -> None:
        super().__init__(inner)
        self.cards = cards
        self.most = len(cards)
        self._key = key
        self._ledger = ledger

    async def answer(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None
    ) -> Completion:
        """Return the first right answer, else the first; raises the last failure if all failed."""
        beside = Meter(self._ledger, f"{NAME}-{new_id()}")
        kept: tuple[Card, Completion] | None = None
        failure: R2Error | None = None
        for rung in self.cards:
            asked = replace(request, max_tokens=rung.max_tokens, note="asked by the oracle")
            try:
                given = await self.inner.complete(rung, asked, beside, deadline)
            except (CallError, UnknownWords) as error:
                failure = error
                continue
            right = await self._is_right(request, given.text)
            if right or kept is None:
                kept = rung, given
            if right:
                break
        if kept is None:
            assert failure is not None
            raise failure
        return self._billed(*kept, request, meter)

    async def _is_right(self, request: ChatRequest, answer: str) -> bool:
        text = request.messages[-1].content
        if self._key.blocking:
            return await asyncio.to_thread(self._key.right, text, answer) is True
        return self._key.right(text, answer) is True

    @staticmethod
    def _billed(card: Card, given: Completion, request: ChatRequest, meter: Meter) -> Completion:
        meter.recorded(
            card,
            role=request.role,
            subtask=request.subtask,
            usage=given.usage,
            cost=given.cost,
            latency_s=given.latency_s,
            finish_reason=given.finish_reason,
            note="the cheapest right answer",
        )
        return given


def oracle(context: StrategyContext) -> Router:
    """Return the router. Raises ConfigError where nothing tells what is right."""
    key = context.key
    if key is None:
        raise ConfigError("oracle looks up right answers, so it only runs in `r2reasoner evaluate`")
    cards = context.pool.by_price
    client = CheapestRight(context.client, cards, key, context.ledger)
    router = Router.open(
        context.pool,
        context.settings,
        context.ledger,
        client=client,
        decomposer=None if key.subtasks else Direct(),
        allocator=always(cards[0], NAME),
    )
    # the client asks all in turn, so that nobody is left to fall back to
    return replace(router, pool=replace(context.pool, workers=cards[:1]))
