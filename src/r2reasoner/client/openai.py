"""Models behind an OpenAI-compatible endpoint, over aiohttp; the only code that tries again.

Every attempt is one ledger entry, opened before a byte is sent and settled in all cases. What
could have been billed and was not reported is charged at its bound. An answer counts only when it
is whole: a stream needs both a finish reason and `[DONE]`. The key is attached here and nowhere
else, and redirects are not followed, so it goes to the endpoint's own host alone.

Leaves out: proxies from the environment, and falling back to another model (the executor's).
"""

import asyncio
import time
from asyncio import AbstractEventLoop, Semaphore
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any, Final

import aiohttp

from r2reasoner.budget import Meter
from r2reasoner.client.attempt import Attempt, Job
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.client.relay import Relayed
from r2reasoner.client.retry import MAX_ATTEMPTS, pause_s
from r2reasoner.client.route import Route, chat_url
from r2reasoner.client.wire import StreamReader, bound, encode, read_answer
from r2reasoner.errors import CallError, DeadlineExceeded
from r2reasoner.pool.cards import Card, Endpoint

KEEP_ALIVE_S: Final = 4.0
"""Below the 5 s after which uvicorn closes: a request must not meet a connection being closed."""


class OpenAIClient:
    """A `Client` for every endpoint of kind `openai`, with one session per event loop.

    `rng` draws the jitter of retries. Close it before its event loop ends.
    """

    def __init__(self, rng: Random | None = None) -> None:
        self._rng = rng or Random()
        self._loops: dict[AbstractEventLoop, _Loop] = {}

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        """Return the whole answer; its latency (seconds) is that of the last attempt."""
        job = _job(card, request, meter, deadline, stream=False)
        async with _Until(deadline):
            with await self._answered(job) as attempt:
                return attempt.finish(read_answer(await attempt.read_all()))

    async def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        """Yield pieces of text as they come, then one Completion.

        Who stops early must close the generator (`contextlib.aclosing`): that closes the
        connection and settles the call at once.
        """
        async with _Until(deadline):
            attempt = await self._answered(_job(card, request, meter, deadline, stream=True))
        with attempt:
            reader = StreamReader()
            while (pieces := await _feed(attempt, reader, deadline)) is not None:
                for piece in pieces:
                    yield piece
            yield await _finish(attempt, reader)

    async def pass_on(
        self, card: Card, relayed: Relayed, meter: Meter, deadline: float | None = None
    ) -> tuple[dict[str, Any], Completion]:
        """Return the answer as the endpoint wrote it, and what it came to.

        Tool calls and refusals are answers too. Recorded and retried as `complete` is.
        """
        job = _relaying(card, relayed, meter, deadline, stream=False)
        async with _Until(deadline):
            with await self._answered(job) as attempt:
                reply = read_answer(await attempt.read_all(), relayed=True)
                completion = attempt.finish(reply)
        assert reply.body is not None
        return reply.body, completion

    async def relay(
        self, card: Card, relayed: Relayed, meter: Meter, deadline: float | None = None
    ) -> AsyncGenerator[dict[str, Any] | Completion, None]:
        """Yield the events of a streamed answer as the endpoint wrote them, then a Completion.

        As `pass_on`, and to be closed early as `stream` is.
        """
        job = _relaying(card, relayed, meter, deadline, stream=True)
        async with _Until(deadline):
            attempt = await self._answered(job)
        with attempt:
            reader = StreamReader(relayed=True)
            while await _feed(attempt, reader, deadline) is not None:
                chunks, reader.chunks = reader.chunks, []
                for event in chunks:
                    yield event
            yield await _finish(attempt, reader)

    async def close(self) -> None:
        """Close the running loop's connections; its calls in flight fail."""
        loop = self._loops.pop(asyncio.get_running_loop(), None)
        if loop is not None:
            await loop.session.close()

    async def _answered(self, job: Job) -> Attempt:
        """Return the first attempt that was answered with a 2xx head, trying again if that helps.

        Nothing is tried again once a head has come, so never after the first streamed byte.
        """
        loop = self._loop()
        route = loop.route(job.card.endpoint)
        for number in range(1, MAX_ATTEMPTS + 1):
            attempt = await Attempt.begin(route, job, number)
            try:
                await attempt.send(loop.session)
            except BaseException as error:
                attempt.fail(error)
                if not isinstance(error, CallError) or not error.retryable:
                    raise
                pause = pause_s(number, error.retry_after_s, self._rng)
                if number == MAX_ATTEMPTS or not job.has_time_for(pause):
                    raise
            else:
                return attempt
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _loop(self) -> "_Loop":
        running = asyncio.get_running_loop()
        loop = self._loops.get(running)
        if loop is None:
            self._loops = {k: v for k, v in self._loops.items() if not k.is_closed()}
            loop = self._loops[running] = _Loop(_new_session())
        return loop


def _job(
    card: Card, request: ChatRequest, meter: Meter, deadline: float | None, *, stream: bool
) -> Job:
    body = encode(card, request, stream=stream)
    return Job(card, request, meter, deadline, body, bound(card, request), stream)


def _relaying(
    card: Card, relayed: Relayed, meter: Meter, deadline: float | None, *, stream: bool
) -> Job:
    body = relayed.encode(card, stream=stream)
    return Job(card, relayed.request, meter, deadline, body, relayed.bound(card), stream)


async def _feed(attempt: Attempt, reader: StreamReader, deadline: float | None) -> list[str] | None:
    """Return the pieces of text in what comes next; None at the end."""
    if reader.done:
        return None
    async with _Until(deadline):
        chunk = await attempt.read()
    if not chunk:
        return None
    pieces = reader.feed(chunk)
    attempt.usage = reader.usage
    if pieces:
        attempt.saw_text()
    return pieces


async def _finish(attempt: Attempt, reader: StreamReader) -> Completion:
    """Settle a stream. Raises CallError when it is no answer."""
    reply = reader.reply()
    if reply.fault is None:
        await attempt.drain()
    return attempt.finish(reply)


@dataclass(frozen=True, slots=True)
class _Loop:
    """What belongs to one event loop."""

    session: aiohttp.ClientSession
    routes: dict[Endpoint, Route] = field(default_factory=dict)

    def route(self, endpoint: Endpoint) -> Route:
        route = self.routes.get(endpoint)
        if route is None:
            timeout = aiohttp.ClientTimeout(
                total=None, connect=endpoint.connect_timeout_s, sock_read=endpoint.read_timeout_s
            )
            slots = Semaphore(endpoint.concurrency)
            route = self.routes[endpoint] = Route(endpoint, chat_url(endpoint), timeout, slots)
        return route


class _Until:
    """Allows no wait past a deadline. Raises DeadlineExceeded."""

    __slots__ = ("_deadline", "_timeout")

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline

    async def __aenter__(self) -> None:
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            raise DeadlineExceeded("the deadline of the query has passed")
        self._timeout = asyncio.timeout(left)
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, tb)
        except TimeoutError:
            raise DeadlineExceeded("the deadline of the query came before the answer") from None


def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
