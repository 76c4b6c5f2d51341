"""`datashunt`: the whole task is judged easy or hard, then `cot` runs on the small or large model.

Published: Data Shunt (Chen et al., AAAI 2024; DataShunt+, arXiv 2406.15471) keeps a small
classifier's answer where its confidence is over a threshold and else asks a large model, which is
told how sure the small one was of which class (prompt pruning). The paper's baseline takes only
the idea: one call asks the large model whether the task is easy or hard, and the chain of thought
then runs on the small or the large model.

Ours is the paper's. What is not said to be easy is hard, and so is what nobody could judge; the
judge's call is billed as routing. A model with a plain prompt cannot judge in words: there the
original rule holds, easy is what the small model answers with a confidence (geometric mean of
token probabilities) of at least `datashunt@0.9`; that answer is billed and thrown away.
"""

from dataclasses import replace
from typing import Final

from r2reasoner import prompts
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client
from r2reasoner.decomposer import Decomposer, Decomposition
from r2reasoner.errors import BudgetExceeded, CallError, UnknownWords
from r2reasoner.pool.cards import Card
from r2reasoner.router import Router
from r2reasoner.strategies.answering import check_tells, pair, token_confidence
from r2reasoner.strategies.base import CardOf, RuleAllocator, StrategyContext
from r2reasoner.strategies.cot import planned_by
from r2reasoner.types import Message, Plan, Query, Role

VERDICT_TOKENS: Final = 16
THRESHOLD: Final = 0.9


class Shunt:
    """Judges a query, then plans it by the decomposer of the model that is to do it.

    `judge` is asked once, with up to `more_input` tokens beside the query's, and writes up to
    `max_tokens`; `sides` are the decomposers of the easy and the hard side's models, in this order.
    """

    def __init__(self, judge: Card, sides: dict[Card, Decomposer], threshold: float) -> None:
        in_words = judge.prompt == "chat"
        self.judge = judge
        self.sides = sides
        self.max_tokens = min(VERDICT_TOKENS, judge.max_tokens) if in_words else judge.max_tokens
        self.more_input = len(prompts.read("easy_or_hard").encode()) if in_words else 0
        self._threshold = threshold
        self._taken: dict[str, Card] = {}

    async def decompose(
        self, query: Query, client: Client, meter: Meter, deadline: float | None
    ) -> Decomposition:
        """Return the plan of the side that the query goes to; its first note says which, why."""
        easy, why = await self._is_easy(query, client, meter, deadline)
        small, *_, large = [*self.sides, *self.sides]  # one and the same in a pool of one
        card = small if easy else large
        planned = await self.sides[card].decompose(query, client, meter, deadline)
        self._taken[query.id] = card
        note = f"{'easy' if easy else 'hard'}, so {card.name}: {why}"
        return replace(planned, notes=(note, *planned.notes))

    def rule(self, query: Query, plan: Plan) -> CardOf:
        """Return the model of a query that was just planned, for every subtask."""
        card = self._taken.pop(query.id)
        return lambda number: card

    async def _is_easy(
        self, query: Query, client: Client, meter: Meter, deadline: float | None
    ) -> tuple[bool, str]:
        asked = self._request(query)
        try:
            told = await client.complete(self.judge, asked, meter, deadline)
        except (BudgetExceeded, CallError, UnknownWords) as error:
            return False, f"not judged: {error}"
        if not asked.logprobs:
            return read_easy(told.text), f"{self.judge.name} said so"
        sure = token_confidence(told)
        if sure is None:
            return False, f"{self.judge.name} did not tell how sure it is"
        return sure >= self._threshold, (
            f"{self.judge.name} is {sure:.3f} sure of its answer, {self._threshold:g} is asked"
        )

    def _request(self, query: Query) -> ChatRequest:
        words = self.judge.prompt == "chat"
        messages: tuple[Message, ...] = (Message("user", query.text),)
        if words:
            messages = (
                Message("system", prompts.read("easy_or_hard")),
                Message("user", prompts.as_data(query.text)),
            )
        return ChatRequest(
            messages=messages,
            max_tokens=self.max_tokens,
            role=Role.ALLOCATOR,
            note="easy or hard",
            logprobs=not words,
        )


def read_easy(text: str) -> bool:
    """Tell whether a verdict is "easy"; anything else, and both words at once, is hard."""
    said = text.lower()
    return "easy" in said and "hard" not in said


def datashunt(
    context: StrategyContext, small: Card | None = None, threshold: float = THRESHOLD
) -> Router:
    """Return the two chains. Raises ConfigError where the small model tells no confidence."""
    small, large = pair(context.pool, small)
    judge = large if large.prompt == "chat" else small
    if judge.prompt == "plain":
        check_tells("datashunt", (judge,))
    sides: dict[Card, Decomposer] = {card: planned_by(card, context) for card in (small, large)}
    shunt = Shunt(judge, sides, threshold)
    return Router.open(
        replace(context.pool, workers=tuple(sides)),
        context.settings,
        context.ledger,
        client=context.client,
        decomposer=shunt,
        allocator=RuleAllocator("datashunt", tuple(sides), shunt.rule),
        parallel=False,
    )
