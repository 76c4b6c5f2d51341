"""What an attempt costs, and what its errors say, whatever the provider does."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from calls import PRICE, TEXT, NoJitter, answer_of, ask, card_at, gather_stream, raw_server
from r2reasoner.budget import Meter
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    CallFault,
    ConfigError,
    LedgerError,
)
from r2reasoner.ledger import Ledger
from r2reasoner.mock import Fault, MockProvider
from r2reasoner.types import CallOutcome, Usage

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture
async def client() -> AsyncIterator[OpenAIClient]:
    client = OpenAIClient(NoJitter())
    yield client
    await client.close()


@pytest.fixture
def meter(ledger: Ledger) -> Meter:
    return Meter(ledger, "query")


class TestMoney:
    async def test_what_does_not_fit_is_not_dispatched(
        self, client: OpenAIClient, ledger: Ledger
    ) -> None:
        meter = Meter(ledger, "query", cap=10)
        async with MockProvider() as provider:
            with pytest.raises(BudgetExceeded):
                await client.complete(card_at(provider.base_url), ask(), meter)
        assert (provider.books, meter.calls) == ([], [])

    async def test_what_cannot_be_recorded_is_not_dispatched(
        self, client: OpenAIClient, ledger: Ledger, meter: Meter
    ) -> None:
        await ledger.close()
        async with MockProvider() as provider:
            card = card_at(provider.base_url, concurrency=1)
            async with asyncio.timeout(60):
                for _ in range(2):  # the slot was given back
                    with pytest.raises(LedgerError):
                        await client.complete(card, ask(), meter)
        assert provider.books == []

    async def test_an_unknown_price_is_an_unknown_cost(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider() as provider:
            card = replace(card_at(provider.base_url), price=None)
            got = await client.complete(card, ask(), meter)
        assert got.cost is None
        assert got.usage == Usage(11, 7)

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("fault", [Fault.MISSING_USAGE, Fault.NEGATIVE_USAGE])
    async def test_usage_that_is_missing_or_not_believed(
        self, client: OpenAIClient, meter: Meter, fault: Fault, stream: bool
    ) -> None:
        async with MockProvider(faults=[fault]) as provider:
            card = card_at(provider.base_url)
            got = await answer_of(client, card, ask(), meter, stream=stream)
        (call,) = meter.calls
        assert got.text == TEXT
        assert got.cost == call.cost == call.bound
        assert call.outcome is CallOutcome.OK
        assert call.note == "usage missing: bound charged"
        doubted = call.error is not None and "usage not believed" in call.error
        assert doubted == (fault is Fault.NEGATIVE_USAGE)

    async def test_more_than_the_bound_is_charged_as_reported(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider(faults=[Fault.TOO_LONG]) as provider:
            got = await client.complete(card_at(provider.base_url), ask(), meter)
        assert got.usage == provider.books[0].usage
        assert got.usage.output_tokens == 100
        assert got.cost == PRICE.cost(got.usage)

    async def test_usage_of_an_unusable_answer_is_exact(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider(faults=[Fault.TOOL_CALL]) as provider:
            with pytest.raises(CallError, match="tool call"):
                await client.complete(card_at(provider.base_url), ask(), meter)
        assert meter.spent == PRICE.cost(provider.books[0].usage)


class TestKeys:
    async def test_the_key_is_sent(
        self, client: OpenAIClient, meter: Meter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("R2_TEST_KEY", KEY)
        async with MockProvider(key=KEY) as provider:
            card = card_at(provider.base_url, key_env="R2_TEST_KEY")
            assert (await client.complete(card, ask(), meter)).text == TEXT
            monkeypatch.setenv("R2_TEST_KEY", "sk-other-key")  # read anew at every call
            with pytest.raises(CallError) as raised:
                await client.complete(card, ask(), meter)
        assert raised.value.fault is CallFault.AUTH

    async def test_a_missing_key_is_named_before_anything_is_dispatched(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        async with MockProvider() as provider:
            card = card_at(provider.base_url, key_env="R2_TEST_KEY_MISSING")
            with pytest.raises(ConfigError, match="R2_TEST_KEY_MISSING"):
                await client.complete(card, ask(), meter)
        assert (provider.books, meter.calls) == ([], [])

    @pytest.mark.parametrize(
        "head",
        [
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: {length}\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nBroken header\r\n\r\n",
            "SMTP {body}\r\n\r\n",
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        "template",
        ["{key}", '{{"error": {{"message": "not this one: {key}"}}}}', "x" * 190 + "{key}"],
    )
    async def test_no_error_shows_it(
        self,
        client: OpenAIClient,
        ledger: Ledger,
        meter: Meter,
        monkeypatch: pytest.MonkeyPatch,
        head: str,
        stream: bool,
        template: str,
    ) -> None:
        monkeypatch.setenv("R2_TEST_KEY", KEY)
        body = template.format(key=KEY)
        raw = head.format(length=len(body), body=body) + body
        async with raw_server(raw.encode()) as base_url:
            card = card_at(base_url, key_env="R2_TEST_KEY")
            with pytest.raises(CallError) as raised:
                await answer_of(client, card, ask(), meter, stream=stream)
        await ledger.flush()
        shown = [str(entry) for entry in ledger.entries()] + [repr(call) for call in meter.calls]
        error: BaseException | None = raised.value
        while error is not None:
            shown += [str(error), repr(error), repr(vars(error))]
            error = error.__cause__ or error.__context__
        for text in shown:
            assert KEY not in text
            assert KEY[:12] not in text


class TestOddServers:
    @pytest.mark.parametrize(
        ("raw", "fault"),
        [
            (b"", CallFault.CUT),
            (b"not http at all\r\n\r\n", CallFault.MALFORMED),
            (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", CallFault.MALFORMED),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", CallFault.CUT),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
                CallFault.MALFORMED,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
                CallFault.CUT,
            ),
            (b"HTTP/1.1 204 No Content\r\n\r\n", CallFault.MALFORMED),
            (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", CallFault.MALFORMED),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    async def test_are_typed_errors_charged_at_the_bound(
        self, client: OpenAIClient, meter: Meter, raw: bytes, fault: CallFault, stream: bool
    ) -> None:
        async with raw_server(raw) as base_url:
            with pytest.raises(CallError) as raised:
                await answer_of(client, card_at(base_url), ask(), meter, stream=stream)
        assert raised.value.fault is fault
        assert raised.value.may_be_billed
        (call,) = meter.calls
        assert (call.outcome, call.cost) == (CallOutcome.UNKNOWN, call.bound)

    async def test_an_endless_body_is_broken_off(self, client: OpenAIClient, meter: Meter) -> None:
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        async with raw_server(head, endless=b"x" * (1 << 20)) as base_url:
            with pytest.raises(CallError, match="more than"):
                await client.complete(card_at(base_url), ask(), meter)
        event = b"data: " + json.dumps({"choices": [], "padding": "x" * 500_000}).encode() + b"\n\n"
        async with raw_server(head, endless=event) as base_url:
            with pytest.raises(CallError, match="more than"):
                await gather_stream(client, card_at(base_url), ask(), meter)

    async def test_an_error_whose_body_never_comes_is_still_that_error(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        raw = b"HTTP/1.1 422 No\r\nContent-Length: 50\r\n\r\nbecause"
        async with raw_server(raw, hold=True) as base_url:
            with pytest.raises(CallError, match="422: because") as raised:
                await client.complete(card_at(base_url, read_timeout_s=1), ask(), meter)
        assert raised.value.fault is CallFault.BAD_REQUEST

    async def test_a_provider_s_words_are_one_short_line(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        body = ("\x1b[31mred\r\n" * 100).encode()
        raw = b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        async with raw_server(raw) as base_url:
            with pytest.raises(CallError) as raised:
                await client.complete(card_at(base_url), ask(), meter)
        assert len(str(raised.value)) < 240
        assert str(raised.value).isprintable()

    async def test_a_stall_after_the_terminal_marker_does_not_matter(
        self, client: OpenAIClient, meter: Meter
    ) -> None:
        chunk = {"choices": [{"delta": {"content": "hello"}, "finish_reason": "stop"}]}
        raw = (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
            b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
        )
        async with raw_server(raw, hold=True) as base_url:
            _, got = await gather_stream(client, card_at(base_url), ask(), meter)
        assert got.text == "hello"
