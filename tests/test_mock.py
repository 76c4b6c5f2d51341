"""The fake provider, by the official client and by bare sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.errors import ConfigError
from r2reasoner.mock import (
    BookEnd,
    BookEntry,
    ChatCall,
    Cut,
    Ending,
    Fault,
    MockProvider,
    closed_port,
    count_tokens,
    random_faults,
    unreachable,
)
from r2reasoner.mock.answers import read_call, split_tokens
from r2reasoner.mock.faults import Trouble
from r2reasoner.types import Usage

QUESTION: Any = [{"role": "user", "content": "walk left twice"}]


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    async with MockProvider() as provider:
        yield provider


def official(provider: MockProvider, **settings: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=provider.base_url, api_key="sk-mock", max_retries=0, **settings
    )


async def connect(provider: MockProvider) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*address_of(provider.base_url))


def address_of(base_url: str) -> tuple[str, int]:
    host, _, port = base_url.removeprefix("http://").removesuffix("/v1").rpartition(":")
    return host, int(port)


async def exchange(provider: MockProvider, raw: bytes) -> bytes:
    """Send bytes to the provider and return all that comes until it closes."""
    reader, writer = await connect(provider)
    writer.write(raw)
    got = b""
    with suppress(ConnectionResetError):
        async with asyncio.timeout(60):
            while data := await reader.read(65536):
                got += data
    writer.close()
    return got


async def finished(provider: MockProvider) -> BookEntry:
    """Wait until the first request has ended, and return what the books say of it."""
    async with asyncio.timeout(60):
        while not provider.books or provider.books[0].finished_at is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return provider.books[0]


def post(body: bytes, *headers: str) -> bytes:
    head = ["POST /v1/chat/completions HTTP/1.1", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode() + body


def chat(**settings: Any) -> bytes:
    return json.dumps({"model": "m", "messages": QUESTION} | settings).encode()


class TestAnswers:
    async def test_an_echo_and_its_books(self, provider: MockProvider) -> None:
        before = time.time()
        async with official(provider) as client:
            answer = await client.chat.completions.create(model="m", messages=QUESTION)
        assert answer.choices[0].message.content == "walk left twice"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        (entry,) = provider.books
        assert (entry.model, entry.role, entry.stream, entry.status) == ("m", None, False, 200)
        assert (entry.end, entry.fault) == (BookEnd.WHOLE, None)
        assert entry.usage == Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)
        assert entry.usage == Usage(7, 3)
        assert entry.finished_at is not None
        assert before <= entry.started_at <= entry.finished_at <= time.time()

    async def test_a_stream_says_the_same_word_by_word(self, provider: MockProvider) -> None:
        async with official(provider) as client:
            stream = await client.chat.completions.create(
                model="m",
                messages=QUESTION,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
        words = [c.choices[0].delta.content for c in chunks if c.choices]
        assert [word for word in words if word] == ["walk", " left", " twice"]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 3
        assert provider.books[0].usage == Usage(7, 3)

    async def test_several_choices_are_all_billed(self, provider: MockProvider) -> None:
        async with official(provider) as client:
            create = client.chat.completions.create
            answer = await create(model="m", messages=QUESTION, n=2)
            stream = await create(model="m", messages=QUESTION, n=2, stream=True)
            second = [c.choices[0] async for c in stream if c.choices[0].index == 1]
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert "".join(c.delta.content or "" for c in second) == "walk left twice"
        assert second[-1].finish_reason == "stop"
        assert [entry.usage for entry in provider.books] == [Usage(7, 6)] * 2

    async def test_usage_is_streamed_only_when_asked_for(self, provider: MockProvider) -> None:
        async with official(provider) as client:
            stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
            assert all([chunk.usage is None async for chunk in stream])

    async def test_an_answer_of_one_s_own_at_its_limits(self) -> None:
        provider = MockProvider(answer=lambda call: f"{call.model}: one two three four")
        async with provider, official(provider) as client:
            create = client.chat.completions.create
            short = await create(model="m", messages=QUESTION, max_tokens=3)
            stopped = await create(model="m", messages=QUESTION, stop=["three"])
        assert short.choices[0].message.content == "m: one two"
        assert short.choices[0].finish_reason == "length"
        assert stopped.choices[0].message.content == "m: one two "
        assert [entry.output_tokens for entry in provider.books] == [3, 3]

    async def test_models_are_listed_and_others_unknown(self) -> None:
        provider = MockProvider(models=["small", "large"])
        async with provider, official(provider) as client:
            assert [model.id async for model in client.models.list()] == ["small", "large"]
            await client.chat.completions.create(model="small", messages=QUESTION)
            with pytest.raises(openai.NotFoundError, match="no model 'huge'"):
                await client.chat.completions.create(model="huge", messages=QUESTION)

    async def test_a_key_is_asked_for(self) -> None:
        provider = MockProvider(key="another")
        async with provider, official(provider) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="m", messages=QUESTION)
        assert provider.books[0].usage == Usage()

    async def test_latency_by_call(self) -> None:
        numbers = []

        def latency(call: ChatCall) -> float:
            numbers.append(call.number)
            return 0.0

        provider = MockProvider(latency_s=latency)
        async with provider, official(provider) as client:
            for _ in range(2):
                await client.chat.completions.create(model="m", messages=QUESTION)
        assert numbers == [1, 2]

    @given(st.text())
    def test_tokens_give_the_text_again_and_are_counted_alike(self, text: str) -> None:
        tokens = split_tokens(text)
        assert len(tokens) == count_tokens(text)
        assert not tokens or "".join(tokens) == text


class TestFaults:
    @pytest.mark.parametrize("fault", [f for f in Fault if f.status and f.status != 307])
    async def test_a_status_is_an_error_to_the_official_client_and_bills_nothing(
        self, fault: Fault
    ) -> None:
        provider = MockProvider(faults=[fault])
        async with provider, official(provider) as client:
            with pytest.raises(openai.APIStatusError, match="scripted fault") as raised:
                await client.chat.completions.create(model="m", messages=QUESTION)
        assert raised.value.status_code == fault.status
        retry_after = raised.value.response.headers.get("retry-after")
        assert (retry_after is not None) == fault.value.startswith("429_")
        assert provider.books[0].usage == Usage()
        assert provider.books[0].status == fault.status

    async def test_a_queue_is_used_up_in_order(self) -> None:
        provider = MockProvider(faults=[None, Fault.CONFLICT])
        async with provider:
            got = [await exchange(provider, post(chat())) for _ in range(3)]
        assert [raw.split(b" ")[1] for raw in got] == [b"200", b"409", b"200"]

    async def test_a_header_asks_for_one(self, provider: MockProvider) -> None:
        got = await exchange(provider, post(chat(), "X-Mock-Fault: 503"))
        assert got.startswith(b"HTTP/1.1 503 ")
        got = await exchange(provider, post(chat(), "X-Mock-Fault: 599"))
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"reset_mid_chunk" in got

    def test_rates_and_seeds(self) -> None:
        call = read_call(chat(), 1, None)

        def draws(rate: float, seed: int) -> list[Trouble | None]:
            script = random_faults(rate, seed)
            return [script(call) for _ in range(1000)]

        assert draws(0.3, 1) == draws(0.3, 1) != draws(0.3, 2)
        assert 240 < sum(fault is not None for fault in draws(0.3, 1)) < 360
        assert set(draws(1.0, 3)) == set(Fault)
        assert draws(0.0, 3) == [None] * 1000

    @pytest.mark.parametrize(
        ("fault", "stream", "delivered"),
        [
            (Fault.HALF_CLOSE_MID_CHUNK, True, 1),
            (Fault.RESET_MID_CHUNK, True, 1),
            (Fault.HALF_CLOSE_MID_CHUNK, False, 3),
            (Fault.RESET_BEFORE_HEADERS, True, 3),
        ],
    )
    async def test_cuts_bill_what_was_sent(
        self, fault: Fault, stream: bool, delivered: int
    ) -> None:
        async with MockProvider(faults=[fault]) as provider:
            await exchange(provider, post(chat(stream=stream)))
        (entry,) = provider.books
        assert entry.end is BookEnd.CUT
        assert entry.usage == Usage(7, delivered)

    @pytest.mark.parametrize("fault", [Fault.STALL_BEFORE_HEADERS, Fault.STALL_MID_STREAM])
    async def test_a_stall_lasts_until_the_client_leaves(self, fault: Fault) -> None:
        async with MockProvider(faults=[fault]) as provider:
            _, writer = await connect(provider)
            writer.write(post(chat(stream=True)))
            async with asyncio.timeout(60):
                while not provider.books or provider.books[0].end is BookEnd.OPEN:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert provider.books[0].finished_at is None
            writer.close()
            entry = await finished(provider)
        assert entry.end is BookEnd.CUT
        assert entry.usage == (Usage(7, 1) if fault is Fault.STALL_MID_STREAM else Usage())

    async def test_a_client_that_leaves_is_billed_what_was_sent(self) -> None:
        long = chat(messages=[{"role": "user", "content": "word " * 10_000}], stream=True)
        async with MockProvider(token_s=0.01) as provider:
            reader, writer = await connect(provider)
            writer.write(post(long))
            await reader.readuntil(b'"content": "word"')
            writer.close()
            entry = await finished(provider)
        assert entry.end is BookEnd.GONE
        assert 0 < entry.output_tokens < 10_000

    @pytest.mark.parametrize("after", [0, 1, 100])
    async def test_a_cut_stands_where_it_was_asked_for(self, after: int) -> None:
        async with MockProvider(faults=[Cut(after, Ending.CLOSE, chunked=False)]) as provider:
            got = await exchange(provider, post(chat(stream=True)))
        head, _, body = got.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert len(body) == after == provider.books[0].body_bytes

    async def test_a_drip_is_one_byte_at_a_time(self) -> None:
        async with MockProvider(faults=[Fault.DRIP], drip_s=0.2) as provider:
            reader, writer = await connect(provider)
            writer.write(post(chat()))
            await reader.readuntil(b"\r\n\r\n")
            assert [len(await reader.read(65536)) for _ in range(3)] == [1, 1, 1]
            writer.close()
            await finished(provider)

    async def test_a_refused_connection(self) -> None:
        with closed_port() as base_url, pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address_of(base_url))

    async def test_a_connection_that_times_out(self) -> None:
        with unreachable() as base_url, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.open_connection(*address_of(base_url))

    def test_a_fault_by_its_name(self) -> None:
        assert Fault.named("html") is Fault.HTML
        with pytest.raises(ConfigError, match=r"no fault 'oops'; there are: .*html"):
            Fault.named("oops")


class TestHttp:
    async def test_the_books_are_served(self, provider: MockProvider) -> None:
        await exchange(provider, post(chat(), "X-R2-Role: worker"))
        got = await exchange(provider, b"GET /books HTTP/1.1\r\nConnection: close\r\n\r\n")
        books = json.loads(got.partition(b"\r\n\r\n")[2])
        tokens = {"input_tokens": 7, "output_tokens": 3, "cached_tokens": 0}
        assert books["totals"] == {"requests": 1, **tokens}
        assert books["entries"][0]["role"] == "worker"
        assert books["entries"][0]["end"] == "whole"

    @pytest.mark.parametrize(
        ("raw", "status", "why"),
        [
            (b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n", 404, b"/v1/chat/completions"),
            (b"hello\r\n\r\n", 400, b"HTTP/1.1"),
            (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, b"HTTP/1.1"),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411, b"content-length"),
            (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413, b"at most"),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 400, b"too long"),
            (post(b"{oops"), 400, b"Expecting"),
            (post(b"[]"), 400, b"object"),
            (post(b"\xff"), 400, b"decode"),
            (post(chat(model=None)), 400, b"model"),
            (post(chat(messages=[])), 400, b"messages"),
            (post(chat(messages=[{"role": "boss"}])), 400, b"role"),
            (post(chat(messages=[{"role": "user", "content": 5}])), 400, b"content"),
            (post(chat(max_tokens=0)), 400, b"max_tokens"),
            (post(chat(max_tokens="9")), 400, b"max_tokens"),
            (post(chat(n=0)), 400, b"n to be 1 or more"),
        ],
    )
    async def test_what_it_does_not_understand(
        self, provider: MockProvider, raw: bytes, status: int, why: bytes
    ) -> None:
        got = await exchange(provider, raw)
        assert got.startswith(b"HTTP/1.1 %d " % status)
        assert why in json.loads(got.partition(b"\r\n\r\n")[2])["error"]["message"].encode()

    async def test_requests_on_one_connection_are_served_in_order(
        self, provider: MockProvider
    ) -> None:
        raw = b"".join(
            post(chat(messages=[{"role": "user", "content": f"no. {n}"}])) for n in range(3)
        )
        raw = raw.replace(b"Connection: close", b"Connection: keep-alive", 2)
        got = await exchange(provider, raw)
        assert [got.count(b"no. %d" % n) for n in range(3)] == [1, 1, 1]
        assert got.index(b"no. 0") < got.index(b"no. 1") < got.index(b"no. 2")
        assert len(provider.books) == 3

    async def test_a_request_may_come_in_small_parts(self, provider: MockProvider) -> None:
        raw = post(chat())
        reader, writer = await connect(provider)
        for start in count(0, 20):
            part = raw[start : start + 20]
            if not part:
                break
            writer.write(part)
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()

    async def test_content_in_parts_is_read(self, provider: MockProvider) -> None:
        parts = [{"type": "text", "text": "walk "}, {"type": "text", "text": "left"}]
        got = await exchange(provider, post(chat(messages=[{"role": "user", "content": parts}])))
        assert b"walk left" in got

    async def test_closing_drops_connections(self) -> None:
        provider = MockProvider(faults=[Fault.STALL_BEFORE_HEADERS])
        await provider.start()
        reader, writer = await connect(provider)
        writer.write(post(chat()))
        async with asyncio.timeout(60):
            while not provider.books:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await provider.close()
            assert await reader.read() == b""
        assert provider.books[0].finished_at is not None
        await provider.close()
        writer.close()
