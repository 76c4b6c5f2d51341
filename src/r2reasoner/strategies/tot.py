"""`tot`: the paper's tree of thoughts: `cot` with two answers to each subtask, the better kept.

Published: of the general method (Yao et al., arXiv 2305.10601) the paper keeps a tree of breadth
one. One large model plans; of each step it proposes two answers at temperature 1, rates each of
them from 1 to 5 for how sure it is, and goes on from one. The code published for this baseline
(with Division-of-Thoughts) sorts by rating upwards and takes the first, so it goes on from the
answer rated *lower*; the papers' text means the better one.

Ours goes on from the better one, the first where both are rated the same or not at all. A model
with a plain prompt cannot rate in words: the better answer is the one with the higher mean token
log-probability. Models that run in process decode greedily, so their second answer is the next
beam; a greedy server gives the same answer twice.
"""

import asyncio
import re
from dataclasses import replace
from typing import Final

from r2reasoner import prompts
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.errors import BudgetExceeded, CallError, DeadlineExceeded
from r2reasoner.pool.cards import Card
from r2reasoner.router import Router
from r2reasoner.strategies.answering import SAMPLED, Answering, check_tells, draw
from r2reasoner.strategies.base import StrategyContext
from r2reasoner.strategies.cot import cot
from r2reasoner.types import Message, Role

ANSWERS: Final = 2
RATING_TOKENS: Final = 8

_RATING: Final = re.compile(r"(?<![\d.])[1-5](?![\d.]*\d)")


class BetterOfTwo(Answering):
    """Asks one model twice and keeps the answer that it is surer of."""

    def __init__(self, inner: Client, card: Card) -> None:
        super().__init__(inner)
        rates = card.prompt == "chat"
        self.cards = (card,)
        self.most = 2 * ANSWERS if rates else ANSWERS
        self.more_input = len(prompts.read("rate").encode()) + card.max_tokens if rates else 0

    async def answer(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None
    ) -> Completion:
        """Return the better answer; one alone where the other failed or was not paid for."""
        drawn = await asyncio.gather(
            *(self._rated(card, request, n, meter, deadline) for n in range(ANSWERS)),
            return_exceptions=True,
        )
        there = [each for each in drawn if isinstance(each, tuple)]
        failed = [each for each in drawn if isinstance(each, BaseException)]
        lacking = BudgetExceeded | CallError | DeadlineExceeded
        serious = [each for each in failed if not isinstance(each, lacking)]
        if serious or not there:
            raise (serious or failed)[0]
        return max(there, key=lambda each: each[1])[0]

    async def _rated(
        self, card: Card, request: ChatRequest, number: int, meter: Meter, deadline: float | None
    ) -> tuple[Completion, float]:
        rates = card.prompt == "chat"
        asked = replace(
            draw(card, request, number),
            note=f"answer {number + 1} of {ANSWERS}",
            logprobs=not rates,
        )
        given = await self.inner.complete(card, asked, meter, deadline)
        if not rates:
            return given, float("-inf") if given.logprob is None else given.logprob
        return given, await self._rating(card, request, number, given.text, meter, deadline)

    async def _rating(
        self,
        card: Card,
        request: ChatRequest,
        number: int,
        text: str,
        meter: Meter,
        deadline: float | None,
    ) -> float:
        """Return the model's rating of its own answer, 0 where it gives none that can be read."""
        asked = ChatRequest(
            messages=(
                *request.messages,
                Message("assistant", text),
                Message("user", prompts.read("rate").strip()),
            ),
            max_tokens=min(RATING_TOKENS, card.max_tokens),
            role=Role.CHECK,
            subtask=request.subtask,
            note=f"rating of answer {number + 1}",
            temperature=SAMPLED,
        )
        try:
            told = await self.inner.complete(card, asked, meter, deadline)
        except (BudgetExceeded, CallError, DeadlineExceeded):
            return 0.0
        return read_rating(told.text)


def read_rating(text: str) -> float:
    """Return the first whole number from 1 to 5 in a text, 0 where there is none."""
    found = _RATING.search(text)
    return float(found.group()) if found else 0.0


def tot(context: StrategyContext) -> Router:
    """Return `cot` with two answers. Raises ConfigError where the model can rate in no way."""
    strongest = context.pool.strongest
    if strongest.prompt == "plain":
        check_tells("tot", (strongest,))
    return cot(replace(context, client=BetterOfTwo(context.client, strongest)))
