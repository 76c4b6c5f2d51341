"""A client that pays for no answer twice: what the store has is not asked again.

Requests at temperature 0 are answered from the store, else asked of the inner client once, however
many ask the same at the same time, and kept. Sampled answers are kept too, each under a key of its
own, and never given again.

What is on record stands on the meter as a call that was not dispatched: with the tokens, latency
and finish of then, at the card's price of today, without a ledger entry, outside the cap. So are
empty answers, which were paid for and would come again. Other failures are not recorded.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Final, NamedTuple, TypeAlias

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.errors import CallError, CallFault, ConfigError, DeadlineExceeded, UnknownWords
from r2reasoner.ledger import new_id
from r2reasoner.outcomes.keys import answer_key, revision
from r2reasoner.outcomes.store import Answered, OutcomeStore
from r2reasoner.pool.cards import Card
from r2reasoner.types import Call, CallOutcome, Pico, Usage

_SHARED: Final = (CallError, UnknownWords, ConfigError)
"""How a request fails whoever made it; money and time are each caller's own."""
_Shared: TypeAlias = CallError | UnknownWords | ConfigError


class _Place(NamedTuple):
    loop: asyncio.AbstractEventLoop
    key: str


class RecordedClient:
    """The Client of a store and of the client that answers what the store does not have.

    `source` is written beside each answer: which work paid for it.
    """

    def __init__(self, inner: Client, store: OutcomeStore, source: str = "asked") -> None:
        self._inner = inner
        self._store = store
        self._source = source
        self._flights: dict[_Place, asyncio.Future[_Shared | None]] = {}

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        """Return the whole answer; see Client. Raises ConfigError where it cannot be kept."""
        key = answer_key(card, request)
        if request.temperature > 0:
            return await self._ask(_own_key(key), card, request, meter, deadline)
        place = _Place(asyncio.get_running_loop(), key)
        held = await self._landed(place, request, deadline)
        if held is not None:
            return _replay(held, card, request, meter)
        with self._flight(place):
            return await self._ask(key, card, request, meter, deadline)

    async def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        """Yield the answer piece by piece, one on record in one piece; see Client."""
        key = answer_key(card, request)
        if request.temperature > 0:
            pieces = self._stream(_own_key(key), card, request, meter, deadline)
        else:
            place = _Place(asyncio.get_running_loop(), key)
            held = await self._landed(place, request, deadline)
            if held is not None:
                completion = _replay(held, card, request, meter)
                yield completion.text
                yield completion
                return
            pieces = self._stream_alone(place, card, request, meter, deadline)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """Close the inner client. The store is its opener's to close."""
        await self._inner.close()

    def _held(self, key: str, request: ChatRequest) -> Answered | None:
        """Return the answer on record, if it has what is asked for."""
        held = self._store.get(key)
        if held is None or held.answer is None or held.usage is None:
            return None
        lacks = request.logprobs and held.logprob is None and not held.logprob_asked
        return None if lacks else held

    async def _landed(
        self, place: _Place, request: ChatRequest, deadline: float | None
    ) -> Answered | None:
        """Return the answer when equal requests in flight have landed; None: it is ours to ask.

        Raises what one of them failed with where it would have been the same for us, and
        DeadlineExceeded.
        """
        error = None
        while (held := self._held(place.key, request)) is None:
            if error is not None:
                raise error
            flight = self._flights.get(place)
            if flight is None:
                return None
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            done, _ = await asyncio.wait({flight}, timeout=left)
            if not done:
                raise DeadlineExceeded("the deadline of the query came before the answer")
            error = flight.result()
        return held

    @contextmanager
    def _flight(self, place: _Place) -> Iterator[None]:
        """Let equal requests wait for this one."""
        flight = self._flights[place] = place.loop.create_future()
        failure: _Shared | None = None
        try:
            yield
        except _SHARED as error:
            failure = error
            raise
        finally:
            del self._flights[place]
            flight.set_result(failure)

    async def _ask(
        self, key: str, card: Card, request: ChatRequest, meter: Meter, deadline: float | None
    ) -> Completion:
        with self._keeping_empty(key, card, request, meter):
            completion = await self._inner.complete(card, request, meter, deadline)
        self._put(key, card, request, completion)
        return completion

    async def _stream(
        self, key: str, card: Card, request: ChatRequest, meter: Meter, deadline: float | None
    ) -> AsyncGenerator[str | Completion, None]:
        pieces = self._inner.stream(card, request, meter, deadline)
        try:
            with self._keeping_empty(key, card, request, meter):
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        self._put(key, card, request, piece)
                    yield piece
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()  # who stops early closes the connection too

    async def _stream_alone(
        self, place: _Place, card: Card, request: ChatRequest, meter: Meter, deadline: float | None
    ) -> AsyncGenerator[str | Completion, None]:
        with self._flight(place):
            async with aclosing(self._stream(place.key, card, request, meter, deadline)) as pieces:
                async for piece in pieces:
                    yield piece

    @contextmanager
    def _keeping_empty(
        self, key: str, card: Card, request: ChatRequest, meter: Meter
    ) -> Iterator[None]:
        """Record an answer without text, which clients raise as an error."""
        try:
            yield
        except CallError as error:
            last = meter.calls[-1] if meter.calls else None
            if error.fault is CallFault.EMPTY and last is not None and _is_paid(last, card):
                self._store.put(self._answered(key, card, request, _nothing(last)))
            raise

    def _put(self, key: str, card: Card, request: ChatRequest, completion: Completion) -> None:
        self._store.put(self._answered(key, card, request, completion))

    def _answered(
        self, key: str, card: Card, request: ChatRequest, completion: Completion
    ) -> Answered:
        logprob = completion.logprob
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        return Answered(
            key=key,
            model=card.name,
            revision=revision(card),
            prompt=json.dumps(messages, ensure_ascii=False),
            answer=completion.text,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            cost=completion.cost,
            input_price=f"{card.price.input:f}" if card.price else None,
            output_price=f"{card.price.output:f}" if card.price else None,
            latency_s=completion.latency_s,
            logprob=logprob if logprob is not None and math.isfinite(logprob) else None,
            source=self._source,
            at=time.time(),
            role=request.role,
            logprob_asked=request.logprobs,
        )


def _own_key(key: str) -> str:
    """Return a key that no other answer has, though the same was asked."""
    return f"{key}-{new_id()}"


def _replay(held: Answered, card: Card, request: ChatRequest, meter: Meter) -> Completion:
    """Put an answer on record on the meter and return it. Raises CallError where it was empty."""
    assert held.answer is not None
    usage = held.usage or Usage()
    latency = held.latency_s or 0.0
    cost: Pico | None = card.price.cost(usage) if card.price else None
    meter.recorded(
        card,
        role=request.role,
        subtask=request.subtask,
        usage=usage,
        cost=cost,
        latency_s=latency,
        finish_reason=held.finish_reason,
        note=request.note,
    )
    if not held.answer:
        raise CallError(CallFault.EMPTY, "the model wrote nothing", model=card.name)
    return Completion(
        text=held.answer,
        usage=usage,
        cost=cost,
        model=card.name,
        finish_reason=held.finish_reason,
        latency_s=latency,
        ttft_s=latency,
        attempts=0,
        logprob=held.logprob,
    )


def _is_paid(call: Call, card: Card) -> bool:
    return call.model == card.name and call.outcome is CallOutcome.OK


def _nothing(call: Call) -> Completion:
    """Return the completion of a call whose answer had no text."""
    return Completion(
        text="",
        usage=call.usage,
        cost=call.cost,
        model=call.model,
        finish_reason=call.finish_reason,
        latency_s=call.latency_s,
        ttft_s=call.ttft_s,
        attempts=call.attempt,
    )
