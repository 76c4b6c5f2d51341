"""The client against the fake provider on a real socket, with a real ledger."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import openai
import pytest

from calls import PRICE, TEXT, NoJitter, answer_of, ask, card_at, gather_stream, raw_server, until
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import (
    CallError,
    CallFault,
    DeadlineExceeded,
)
from r2reasoner.ledger import Ledger
from r2reasoner.mock import BookEnd, ChatCall, Fault, MockProvider, closed_port, unreachable
from r2reasoner.types import CallOutcome, Message, Role, Usage


@pytest.fixture
async def client() -> AsyncIterator[OpenAIClient]:
    client = OpenAIClient(NoJitter())
    yield client
    await client.close()


@pytest.fixture
def meter(ledger: Ledger) -> Meter:
    return Meter(ledger, "query")


class TestAnswers:
    async def test_a_whole_answer(self, client: OpenAIClient, meter: Meter, ledger: Ledger) -> None:
        async with MockProvider() as provider:
            got = await client.complete(card_at(provider.base_url), ask(), meter)
        assert got.text == TEXT
        assert got.usage == provider.books[0].usage == Usage(11, 7)
        assert got.cost == PRICE.cost(Usage(11, 7)) == meter.spent
        assert (got.model, got.finish_reason, got.attempts) == ("small", "stop", 1)
        await ledger.flush()
        (entry,) = ledger.entries()
        assert (entry.outcome, entry.usage, entry.cost) == (CallOutcome.OK, got.usage, got.cost)
        assert (entry.role, entry.attempt, entry.finish_reason) == (Role.WORKER, 1, "stop")

    async def test_a_stream(self, client: OpenAIClient, meter: Meter) -> None:
        async with MockProvider() as provider:
            pieces, got = await gather_stream(client, card_at(provider.base_url), ask(), meter)
        assert isinstance(got, Completion)
        assert len(pieces) == 7
        assert "".join(pieces) == got.text == TEXT
        assert got.usage == provider.books[0].usage
        assert got.cost == meter.spent
        assert got.ttft_s is not None
        assert 0 < got.ttft_s <= got.latency_s

    async def test_what_is_sent(self, client: OpenAIClient, meter: Meter) -> None:
        request = ChatRequest(
            messages=(Message("system", "be short"), Message("user", TEXT)),
            max_tokens=9,
            role=Role.DECOMPOSER,
            temperature=0.5,
            stop=("right",),
            response_format={"type": "json_object"},
        )
        bodies = []

        def answer(call: ChatCall) -> str:
            bodies.append(call.body)
            return call.last_user

        async with MockProvider(answer=answer) as provider:
            got = await client.complete(card_at(provider.base_url), request, meter)
        assert got.text == "walk left twice and then look "
        assert bodies == [
            {
                "model": "mock-small",
                "messages": [
                    {"role": "system", "content": "be short"},
                    {"role": "user", "content": TEXT},
                ],
                "max_tokens": 9,
                "temperature": 0.5,
                "stop": ["right"],
                "response_format": {"type": "json_object"},
            }
        ]
        assert provider.books[0].role == "decomposer"

    @pytest.mark.parametrize("stream", [False, True])
    async def test_log_probabilities_where_the_endpoint_tells_them(
        self, client: OpenAIClient, meter: Meter, stream: bool
    ) -> None:
        async def logprob_of(provider: MockProvider, request: ChatRequest) -> float | None:
            card = card_at(provider.base_url)
            return (await answer_of(client, card, request, meter, stream=stream)).logprob

        async with MockProvider(logprob=lambda call: -0.25) as telling:
            assert await logprob_of(telling, ask(logprobs=True)) == -0.25
            assert await logprob_of(telling, ask()) is None
        async with MockProvider() as silent:
            assert await logprob_of(silent, ask(logprobs=True)) is None

    async def test_an_answer_at_its_length_says_so(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider() as provider:
            card = card_at(provider.base_url)
            got = await client.complete(card, ask(max_tokens=3), meter)
        assert (got.text, got.finish_reason) == ("walk left twice", "length")

    async def test_connections_are_used_again(self, client: OpenAIClient, meter: Meter) -> None:
        seen = set()
        # With a pause before each piece, the end of the transfer comes after `[DONE]`.
        async with MockProvider(token_s=0.005) as provider:
            card = card_at(provider.base_url)
            for _ in range(3):
                await client.complete(card, ask(), meter)
                await gather_stream(client, card, ask(), meter)
                seen |= provider.connections
        assert len(seen) == 1

    async def test_a_body_of_more_than_a_mebibyte(self, client: OpenAIClient, meter: Meter) -> None:
        text = "word " * 300_000 + "end"
        async with MockProvider(answer=lambda _: "ok", faults=[Fault.UNAVAILABLE]) as provider:
            got = await client.complete(card_at(provider.base_url), ask(text), meter)
        assert (got.text, got.attempts) == ("ok", 2)
        assert got.usage.input_tokens == 300_005

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("limit", [50, 4])
    async def test_the_official_client_gets_the_same(
        self, client: OpenAIClient, meter: Meter, stream: bool, limit: int
    ) -> None:
        text = "Grüße, 世界 \U0001f600\nsecond line  with  spaces"
        async with MockProvider() as provider:
            card = card_at(provider.base_url)
            if stream:
                pieces, ours = await gather_stream(client, card, ask(text, max_tokens=limit), meter)
            else:
                ours = await client.complete(card, ask(text, max_tokens=limit), meter)
            async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="x") as official:
                call: Any = official.chat.completions.create
                settings = {
                    "model": "mock-small",
                    "messages": [{"role": "user", "content": text}],
                    "max_tokens": limit,
                }
                if stream:
                    options = {"include_usage": True}
                    chunks = [
                        chunk
                        async for chunk in await call(
                            **settings, stream=True, stream_options=options
                        )
                    ]
                    theirs = [c.choices[0].delta.content for c in chunks if c.choices]
                    assert [piece for piece in theirs if piece] == pieces
                    finish = next(
                        c.choices[0].finish_reason
                        for c in chunks
                        if c.choices and c.choices[0].finish_reason
                    )
                    usage = chunks[-1].usage
                else:
                    answer = await call(**settings)
                    assert answer.choices[0].message.content == ours.text
                    finish = answer.choices[0].finish_reason
                    usage = answer.usage
        assert finish == ours.finish_reason
        assert (usage.prompt_tokens, usage.completion_tokens) == (
            ours.usage.input_tokens,
            ours.usage.output_tokens,
        )


class TestRetries:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_third_attempt_may_be_the_answer(
        self, client: OpenAIClient, meter: Meter, ledger: Ledger, stream: bool
    ) -> None:
        faults = [Fault.UNAVAILABLE, Fault.CONFLICT]
        async with MockProvider(faults=faults) as provider:
            card = card_at(provider.base_url)
            got = await answer_of(client, card, ask(), meter, stream=stream)
        assert (got.text, got.attempts) == (TEXT, 3)
        assert got.cost == meter.spent
        await ledger.flush()
        assert [(e.attempt, e.outcome, e.cost) for e in ledger.entries()] == [
            (1, CallOutcome.FAILED, 0),
            (2, CallOutcome.FAILED, 0),
            (3, CallOutcome.OK, got.cost),
        ]

    async def test_there_is_no_fourth(self, client: OpenAIClient, meter: Meter) -> None:
        async with MockProvider(faults=lambda _: Fault.OVERLOADED) as provider:
            with pytest.raises(CallError) as raised:
                await client.complete(card_at(provider.base_url), ask(), meter)
        assert len(provider.books) == len(meter.calls) == 3
        assert raised.value.fault is CallFault.OVERLOADED
        assert raised.value.status == 529
        assert "scripted fault 529" in str(raised.value)
        assert meter.spent == meter.reserved == 0

    async def test_back_off_is_drawn_from_the_random_given(self, meter: Meter) -> None:
        drawn = []

        class Recording(NoJitter):
            def uniform(self, a: float, b: float) -> float:
                drawn.append((a, b))
                return a

        client = OpenAIClient(Recording())
        async with MockProvider(faults=[Fault.SERVER_ERROR] * 2) as provider:
            await client.complete(card_at(provider.base_url), ask(), meter)
            await client.close()
        assert drawn == [(0, 0.5), (0, 1.0)]

    @pytest.mark.parametrize("fault", [Fault.RATE_LIMITED_SECONDS, Fault.RATE_LIMITED_DATE])
    async def test_retry_after_is_honoured(
        self, client: OpenAIClient, meter: Meter, fault: Fault
    ) -> None:
        async with MockProvider(faults=[fault]) as provider:
            got = await client.complete(card_at(provider.base_url), ask(), meter)
        first, second = provider.books
        assert first.finished_at is not None
        # A date has whole seconds and is read a moment later: at least most of the second.
        assert second.started_at - first.finished_at > 0.9
        assert got.attempts == 2

    async def test_a_retry_that_cannot_start_in_time_is_not_waited_for(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        deadline = time.monotonic() + 50
        async with MockProvider(faults=lambda _: Fault.RATE_LIMITED_ABSURD) as provider:
            with pytest.raises(CallError) as raised:
                await client.complete(card_at(provider.base_url), ask(), meter, deadline)
        assert raised.value.retry_after_s == 60
        assert len(provider.books) == 1

    @pytest.mark.parametrize("fault", [Fault.RESET_MID_CHUNK, Fault.NO_DONE, Fault.GARBAGE_JSON])
    async def test_never_after_the_first_streamed_byte(
        self, client: OpenAIClient, meter: Meter, fault: Fault
    ) -> None:
        async with MockProvider(faults=[fault]) as provider:
            stream = client.stream(card_at(provider.base_url), ask(), meter)
            assert await anext(stream) == "walk"
            with pytest.raises(CallError) as raised:
                [piece async for piece in stream]
        assert len(provider.books) == len(meter.calls) == 1
        assert raised.value.may_be_billed

    async def test_what_would_fail_again_is_not_tried_again(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider(faults=lambda _: Fault.UNPROCESSABLE) as provider:
            with pytest.raises(CallError):
                await client.complete(card_at(provider.base_url), ask(), meter)
        assert len(provider.books) == 1


class TestConnections:
    async def test_refused(self, client: OpenAIClient, meter: Meter) -> None:
        with closed_port() as base_url, pytest.raises(CallError) as raised:
            await client.complete(card_at(base_url), ask(), meter)
        assert raised.value.fault is CallFault.CONNECT
        assert [call.outcome for call in meter.calls] == [CallOutcome.FAILED] * 3
        assert meter.spent == 0

    async def test_connect_timeout(self, client: OpenAIClient, meter: Meter) -> None:
        with unreachable() as base_url:
            card = card_at(base_url, connect_timeout_s=0.1)
            with pytest.raises(CallError) as raised:
                await client.complete(card, ask(), meter)
        assert raised.value.fault is CallFault.CONNECT
        assert "no connection within 0.1 s" in str(raised.value)
        assert not raised.value.may_be_billed
        assert meter.spent == 0

    async def test_tls_against_a_plain_port(self, client: OpenAIClient, meter: Meter) -> None:
        async with raw_server(b"HTTP/1.1 400 No\r\n\r\n", at_once=True) as base_url:
            card = card_at(base_url.replace("http:", "https:"))
            with pytest.raises(CallError, match="ssl"):
                await client.complete(card, ask(), meter)
        assert meter.spent == 0

    async def test_redirects_are_not_followed(self, client: OpenAIClient, meter: Meter) -> None:
        async with MockProvider(faults=[Fault.REDIRECT]) as provider:
            with pytest.raises(CallError, match="redirects"):
                await client.complete(card_at(provider.base_url), ask(), meter)
        assert len(provider.books) == 1

    @pytest.mark.parametrize("limited", ["endpoint", "card"])
    async def test_no_more_calls_at_once_than_slots(
        self, client: OpenAIClient, meter: Meter, limited: str
    ) -> None:
        at_once = []

        def latency(_: ChatCall) -> float:
            at_once.append(sum(entry.end is BookEnd.OPEN for entry in provider.books))
            return 0.01

        async with MockProvider(latency_s=latency) as provider:
            if limited == "endpoint":
                card = card_at(provider.base_url, concurrency=2)
            else:
                card = card_at(provider.base_url, card={"concurrency": 2})
            other = replace(card, name="other")
            cards = [card] * 8 + ([other] * 4 if limited == "endpoint" else [])
            await asyncio.gather(*(client.complete(c, ask(), meter) for c in cards))
        assert max(at_once) == 2
        assert len(meter.calls) == len(cards)

    async def test_one_client_serves_event_loops_one_after_the_other(self, ledger: Ledger) -> None:
        client = OpenAIClient()

        async def once() -> str:
            async with MockProvider() as provider:
                card = card_at(provider.base_url)
                got = await client.complete(card, ask(), Meter(ledger, "query"))
                await client.close()
            return got.text

        # New loops in other threads, because this test runs in one itself.
        assert [await asyncio.to_thread(asyncio.run, once()) for _ in range(2)] == [TEXT, TEXT]

    async def test_closing_fails_what_is_in_flight(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider(faults=[Fault.STALL_BEFORE_HEADERS]) as provider:
            task = asyncio.create_task(client.complete(card_at(provider.base_url), ask(), meter))
            await until(lambda: provider.books)
            await client.close()
            with pytest.raises(CallError):
                await task
        assert [call.outcome for call in meter.calls] == [CallOutcome.UNKNOWN]


class TestDeadlines:
    async def test_a_deadline_that_has_passed_costs_nothing(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider() as provider:
            card = card_at(provider.base_url)
            with pytest.raises(DeadlineExceeded):
                await client.complete(card, ask(), meter, time.monotonic() - 1)
            with pytest.raises(DeadlineExceeded):
                await gather_stream(client, card, ask(), meter, time.monotonic() - 1)
        assert (provider.books, meter.calls) == ([], [])

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_deadline_ends_a_call_that_is_under_way(
        self, client: OpenAIClient, meter: Meter, stream: bool
    ) -> None:
        async with MockProvider(faults=lambda _: Fault.STALL_MID_STREAM) as provider:
            card = card_at(provider.base_url)
            deadline = time.monotonic() + 1.5
            with pytest.raises(DeadlineExceeded):
                await answer_of(client, card, ask(), meter, deadline, stream=stream)
            await until(lambda: provider.books and provider.books[0].finished_at is not None)
        (call,) = meter.calls
        assert call.outcome is CallOutcome.UNKNOWN
        assert call.cost == call.bound == meter.spent
        assert call.error == "broken off at the deadline"

    async def test_a_deadline_ends_the_wait_for_a_slot(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider(faults=[Fault.STALL_BEFORE_HEADERS]) as provider:
            card = card_at(provider.base_url, concurrency=1)
            first = asyncio.create_task(client.complete(card, ask(), meter))
            await until(lambda: provider.books)
            with pytest.raises(DeadlineExceeded):
                await client.complete(card, ask(), meter, time.monotonic() + 0.1)
            assert len(provider.books) == 1
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert (await client.complete(card, ask(), meter)).text == TEXT


class TestCancelling:
    async def test_a_cancelled_call_may_be_billed(self, client: OpenAIClient, meter: Meter) -> None:
        async with MockProvider(faults=[Fault.STALL_BEFORE_HEADERS]) as provider:
            task = asyncio.create_task(client.complete(card_at(provider.base_url), ask(), meter))
            await until(lambda: provider.books)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: provider.books[0].finished_at is not None)
            assert not provider.connections
        (call,) = meter.calls
        assert (call.outcome, call.cost) == (CallOutcome.UNKNOWN, call.bound)
        assert call.error == "broken off: CancelledError"
        assert meter.reserved == 0

    async def test_closing_a_stream_closes_the_connection_upstream(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider(token_s=0.01) as provider:
            stream = client.stream(card_at(provider.base_url), ask("word " * 5000), meter)
            async with aclosing(stream):
                assert await anext(stream) == "word"
            await until(lambda: provider.books[0].finished_at is not None)
            assert provider.books[0].end is BookEnd.GONE
            assert not provider.connections
        (call,) = meter.calls
        assert call.outcome is CallOutcome.UNKNOWN
        assert call.cost is not None
        assert call.cost >= PRICE.cost(provider.books[0].usage) > 0

    async def test_a_cancelled_wait_for_a_slot_leaves_no_entry(
        self, client: OpenAIClient, meter: Meter, ledger: Ledger
    ) -> None:
        async with MockProvider(latency_s=0.05) as provider:
            card = card_at(provider.base_url, concurrency=1, card={"concurrency": 1})
            running = asyncio.create_task(client.complete(card, ask(), meter))
            await until(lambda: provider.books)
            waiting = asyncio.create_task(client.complete(card, ask(), meter))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await running
            assert (await client.complete(card, ask(), meter)).text == TEXT
        await ledger.flush()
        assert len(ledger.entries()) == len(provider.books) == 2
