"""One answer by several calls: what cascades, votes and turns of routing are to the engine.

Such a strategy is a client: where the executor asks for a subtask's answer, it asks several models
or one model several times, by the same meter and deadline, and returns the answer that it keeps.
Router, plan, budget, fall-back and trace stay as they are for every other strategy. Each call is
an entry of its own in ledger and trace, and its note says what it was for: which answer of how
many, or why the answer before it was not kept. What only judges an answer has the role `check`,
so it is in the net cost and not in that of the workers.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from math import exp
from typing import Final, TypeAlias

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    ConfigError,
    DeadlineExceeded,
    R2Error,
    UnknownWords,
)
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import Role

ANSWERS: Final = frozenset({Role.WORKER, Role.FINAL})
SAMPLED: Final = 1.0
"""The temperature at which the published methods draw answers and verdicts."""

Confidence: TypeAlias = Callable[[Completion], float | None]
"""How sure an answer is, from 0 to 1; None where its endpoint told no log-probabilities."""


class Answering(ABC):
    """A client that answers subtasks in its own way; all other requests pass to the inner one.

    `cards` are the models that it may ask for one answer, in `least` to `most` calls with up to
    `more_input` tokens of input beside those of the plain question: what a forecast needs.
    """

    cards: tuple[Card, ...]
    least: int = 1
    most: int = 1
    more_input: int = 0

    def __init__(self, inner: Client) -> None:
        self.inner = inner

    @abstractmethod
    async def answer(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None
    ) -> Completion:
        """Return the answer that is kept; its `model` is the one that gave it. See Client."""

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        """Return the whole answer; see Client."""
        ask = self.answer if request.role in ANSWERS else self.inner.complete
        return await ask(card, request, meter, deadline)

    async def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncIterator[str | Completion]:
        """Yield the text in one piece, then the Completion: none is kept before all are in."""
        completion = await self.complete(card, request, meter, deadline)
        yield completion.text
        yield completion

    async def close(self) -> None:
        """Close the inner client."""
        await self.inner.close()


class Cascade(Answering):
    """Asks one model after the other until an answer is sure enough; the last one's is kept.

    A model that fails is passed over. Where money or time does not reach for the next one, or all
    further ones fail, the answer at hand stands.
    """

    def __init__(
        self, inner: Client, cards: Sequence[Card], confidence: Confidence, threshold: float
    ) -> None:
        super().__init__(inner)
        self.cards = tuple(cards)
        self.most = len(self.cards)
        self._confidence = confidence
        self._threshold = threshold

    async def answer(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None
    ) -> Completion:
        """Return the first answer that is sure enough. Raises the last failure where all failed."""
        kept: Completion | None = None
        failure: R2Error | None = None
        note = request.note
        for rung in self.cards:
            last = rung == self.cards[-1]
            asked = replace(request, max_tokens=rung.max_tokens, logprobs=not last, note=note)
            try:
                kept = await self.inner.complete(rung, asked, meter, deadline)
            except (CallError, UnknownWords) as error:
                failure = error
                note = f"escalated: {error}"
                continue
            except (BudgetExceeded, DeadlineExceeded):
                if kept is None:
                    raise
                return kept
            if last:
                break
            sure = self._confidence(kept)
            if sure is not None and sure >= self._threshold:
                break
            note = escalated(rung, sure, self._threshold)
        if kept is None:
            assert failure is not None
            raise failure
        return kept


def token_confidence(completion: Completion) -> float | None:
    """Return the geometric mean of an answer's token probabilities."""
    return None if completion.logprob is None else exp(completion.logprob)


def escalated(card: Card, sure: float | None, threshold: float) -> str:
    """Say why a model's answer was not kept."""
    told = "did not tell how sure it is" if sure is None else f"is {sure:.3f} sure of its answer"
    return f"escalated: {card.name} {told}, at least {threshold:g} is asked"


def draw(card: Card, request: ChatRequest, number: int) -> ChatRequest:
    """Return the request for the answer of a number (from 0) among several to one question.

    Models over HTTP are sampled. Those in process decode greedily, so theirs is the next beam.
    """
    if card.endpoint.kind == "embedded":
        return replace(request, temperature=0.0, rank=number)
    return replace(request, temperature=SAMPLED)


def rungs(pool: Pool, count: int) -> tuple[Card, ...]:
    """Return the strongest worker of each of `count` equal parts of the ladder, weakest first.

    Of nine workers: the 3rd, 6th and 9th as three (the last of each of the paper's groups), the
    4th and 9th as two. Of fewer workers than `count`, all.
    """
    workers = pool.workers
    count = min(count, len(workers))
    return tuple(workers[part * len(workers) // count - 1] for part in range(1, count + 1))


def pair(pool: Pool, small: Card | None = None) -> tuple[Card, Card]:
    """Return a small and the large model: the strongest of the ladder's lower half and of all."""
    return small or rungs(pool, 2)[0], pool.strongest


def check_tells(strategy: str, cards: Sequence[Card]) -> None:
    """Raise ConfigError where the confidence of models is needed that tell none."""
    silent = [card.name for card in cards if "no_logprobs" in card.capabilities]
    if silent:
        raise ConfigError(
            f"{strategy} goes by the log-probabilities of answers, which {', '.join(silent)}"
            f" {'does' if len(silent) == 1 else 'do'} not tell (no_logprobs in the pool file)"
        )


def share(text: str, strategy: str) -> float:
    """Read a threshold. Raises ConfigError for anything but a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ConfigError(f"{strategy}@{text}: expected a number from 0 to 1 after the @")
    return number
