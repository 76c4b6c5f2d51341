"""The circuit breaker, in front of a provider that fails and recovers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateways import gateway
from pools import NoJitter, card_at, pool_at
from r2reasoner.budget import Meter
from r2reasoner.client import ChatRequest
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import CallError, CallFault
from r2reasoner.gateway.breaker import Breaker
from r2reasoner.gateway.metrics import Metrics
from r2reasoner.ledger import Ledger
from r2reasoner.mock import Fault, MockProvider
from r2reasoner.pool.cards import Card
from r2reasoner.types import Message, Role

REQUEST = ChatRequest(messages=(Message("user", "a"),), max_tokens=5, role=Role.WORKER)


@asynccontextmanager
async def breaker(failures: int, pause_s: float) -> AsyncIterator[Breaker]:
    opened = Breaker(OpenAIClient(NoJitter()), Metrics(), failures=failures, pause_s=pause_s)
    try:
        yield opened
    finally:
        await opened.close()


async def faults_of(client: Breaker, card: Card, ledger: Ledger, calls: int) -> list[str]:
    seen = []
    for _ in range(calls):
        try:
            await client.complete(card, REQUEST, Meter(ledger, "q"))
        except CallError as error:
            seen.append(error.fault.value)
        else:
            seen.append("ok")
    return seen


async def test_an_endpoint_that_keeps_failing_is_left_alone(ledger: Ledger) -> None:
    async with MockProvider(faults=lambda call: Fault.SERVER_ERROR) as mock, breaker(2, 60) as it:
        card = card_at(mock.base_url, "small")
        seen = await faults_of(it, card, ledger, 4)
        assert it.is_open("mock")
    assert seen == ["server_error"] * 2 + ["overloaded"] * 2
    assert len(mock.books) == 6  # two calls of three attempts
    assert len(ledger.entries()) == 6


async def test_after_the_pause_one_call_decides(ledger: Ledger) -> None:
    down = [True]
    fault = lambda call: Fault.SERVER_ERROR if down[0] else None  # noqa: E731
    async with MockProvider(faults=fault) as mock, breaker(1, 0.0) as it:
        card = card_at(mock.base_url, "small")
        assert await faults_of(it, card, ledger, 2) == ["server_error"] * 2
        down[0] = False
        assert await faults_of(it, card, ledger, 2) == ["ok", "ok"]
        assert not it.is_open("mock")


async def test_rate_limits_and_bad_requests_do_not_count(ledger: Ledger) -> None:
    kinds = iter([Fault.BAD_REQUEST, Fault.NOT_FOUND, Fault.BAD_REQUEST])
    async with MockProvider(faults=lambda call: next(kinds, None)) as mock, breaker(1, 60) as it:
        seen = await faults_of(it, card_at(mock.base_url, "small"), ledger, 4)
    assert seen == ["bad_request", "not_found", "bad_request", "ok"]


async def test_streams_are_watched_too(ledger: Ledger) -> None:
    cut = lambda call: Fault.RESET_MID_CHUNK  # noqa: E731
    async with MockProvider(faults=cut) as mock, breaker(1, 60) as it:
        card = card_at(mock.base_url, "small")
        for expected in (CallFault.CUT, CallFault.OVERLOADED):
            with pytest.raises(CallError) as error:
                async for _ in it.stream(card, REQUEST, Meter(ledger, "q")):
                    pass
            assert error.value.fault is expected


async def test_it_shows_in_the_figures(tmp_path: Path) -> None:
    async with MockProvider(faults=lambda call: Fault.SERVER_ERROR) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            body = {"model": "small", "messages": [{"role": "user", "content": "a"}]}
            ends = [(await served.post(body))[0] for _ in range(6)]
            _, figures = await served.get("/metrics", key="admin-of-the-tests")
    assert ends == [502] * 5 + [503]
    assert 'r2_breaker_open{endpoint="mock"} 1.0' in figures
