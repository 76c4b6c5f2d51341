"""`automix`: the small model answers and verifies its answer itself; the large one where in doubt.

Published (AutoMix, arXiv 2310.12963): the small model is shown its answer and a few worked
verdicts, and says correct or incorrect eight times at temperature 1; the share of "correct" is
its confidence. Up to one half the query goes to the large model; a POMDP fitted on training items
may set another rule, and may give up on what neither can do.

Ours has the plain threshold (`automix@0.7` sets it), no POMDP, and verdicts on the query alone,
as there is no context that would bear an answer out. A model with a plain prompt cannot judge in
words. There the share is that of answers sampled at temperature 1 that would be this very answer
(self-consistency), and this needs no samples: it is the answer's own probability, the product of
its tokens' probabilities.
"""

import asyncio
import re
from dataclasses import replace
from math import exp
from typing import Final

from r2reasoner import prompts
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.decomposer import Direct
from r2reasoner.errors import BudgetExceeded, CallError, DeadlineExceeded, UnknownWords
from r2reasoner.pool.cards import Card
from r2reasoner.router import Router
from r2reasoner.strategies.answering import (
    SAMPLED,
    Answering,
    Cascade,
    check_tells,
    escalated,
    pair,
)
from r2reasoner.strategies.base import StrategyContext, always
from r2reasoner.types import Message, Role

VERDICTS: Final = 8
VERDICT_TOKENS: Final = 250
THRESHOLD: Final = 0.5

_VERDICT: Final = re.compile(r"\b(in)?correct\b", re.IGNORECASE)


class SelfVerified(Answering):
    """Keeps the small model's answer where more than `threshold` of its verdicts are "correct"."""

    def __init__(self, inner: Client, small: Card, large: Card, threshold: float) -> None:
        super().__init__(inner)
        self.cards = (small, large)
        self.least = 2
        self.most = 2 + VERDICTS
        self.more_input = len(prompts.read("verify").encode()) + small.max_tokens
        self._threshold = threshold

    async def answer(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None
    ) -> Completion:
        """Return the small model's answer, or the large one's where that is in doubt."""
        small, large = self.cards
        kept: Completion | None = None
        try:
            kept = await self.inner.complete(small, request, meter, deadline)
            sure = await self._verified(small, request, kept, meter, deadline)
            if sure > self._threshold:
                return kept
            note = escalated(small, sure, self._threshold)
        except (CallError, UnknownWords) as error:
            note = f"escalated: {error}"
        try:
            asked = replace(request, max_tokens=large.max_tokens, note=note)
            return await self.inner.complete(large, asked, meter, deadline)
        except (BudgetExceeded, CallError, DeadlineExceeded):
            if kept is None:
                raise
            return kept

    async def _verified(
        self,
        card: Card,
        request: ChatRequest,
        given: Completion,
        meter: Meter,
        deadline: float | None,
    ) -> float:
        """Return the share of "correct" among the verdicts that can be read; 0 where none can."""
        asked = ChatRequest(
            messages=(
                Message("system", prompts.read("verify")),
                Message(
                    "user",
                    f"Question:\n{prompts.as_data(request.messages[-1].content)}\n\n"
                    f"Proposed answer:\n{prompts.as_data(given.text)}",
                ),
            ),
            max_tokens=min(VERDICT_TOKENS, card.max_tokens),
            role=Role.CHECK,
            subtask=request.subtask,
            temperature=SAMPLED,
        )
        replies = await asyncio.gather(
            *(
                self.inner.complete(
                    card, replace(asked, note=f"verdict {n} of {VERDICTS}"), meter, deadline
                )
                for n in range(1, VERDICTS + 1)
            ),
            return_exceptions=True,
        )
        verdicts = []
        for reply in replies:
            if isinstance(reply, Completion):
                verdicts.append(read_verdict(reply.text))
            elif not isinstance(reply, BudgetExceeded | CallError | DeadlineExceeded):
                raise reply
        read = [verdict for verdict in verdicts if verdict is not None]
        return sum(read) / len(read) if read else 0.0


def read_verdict(text: str) -> bool | None:
    """Return the last verdict in a text, None where there is none."""
    found = _VERDICT.findall(text)
    return not found[-1] if found else None


def probability(completion: Completion) -> float | None:
    """Return the product of an answer's token probabilities."""
    if completion.logprob is None:
        return None
    return exp(completion.logprob * completion.usage.output_tokens)


def automix(
    context: StrategyContext, small: Card | None = None, threshold: float = THRESHOLD
) -> Router:
    """Return the pair. Raises ConfigError where the small model can neither judge nor tell."""
    small, large = pair(context.pool, small)
    client: Answering
    if small.prompt == "chat" and small != large:
        client = SelfVerified(context.client, small, large, threshold)
    else:
        cards = tuple(dict.fromkeys((small, large)))
        check_tells("automix", cards[:-1])
        client = Cascade(context.client, cards, probability, threshold)
    return Router.open(
        replace(context.pool, workers=(small,)),
        context.settings,
        context.ledger,
        client=client,
        decomposer=Direct(),
        allocator=always(small, "automix"),
    )
