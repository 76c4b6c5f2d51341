"""The nano server on a real socket, by the official client, by ours and by bare bytes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO
from typing import Any

import aiohttp
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

import pools
from r2reasoner.budget import Meter
from r2reasoner.client import ChatRequest, PoolClient
from r2reasoner.client.embedded import EmbeddedClient
from r2reasoner.config import settings
from r2reasoner.errors import CallError, CallFault, ConfigError
from r2reasoner.hosts import is_loopback
from r2reasoner.ledger import Ledger
from r2reasoner.mock import in_thread
from r2reasoner.nano.http_pool import served_pool
from r2reasoner.nano.serve import MAX_BODY_BYTES, NanoServer, serve_until
from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.router import Router
from r2reasoner.types import Message, Role

ASKED = "walk left twice"
WALKED = "I_TURN_LEFT I_WALK I_TURN_LEFT I_WALK"


def turn(text: str = ASKED) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


@pytest.fixture
async def server(nano: Pool) -> AsyncIterator[NanoServer]:
    async with NanoServer(nano) as running:
        yield running


@pytest.fixture
def strongest(nano: Pool) -> str:
    return nano.strongest.name


@asynccontextmanager
async def official(server: NanoServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=server.base_url, api_key="none", max_retries=0
    ) as client:
        yield client


async def post(server: NanoServer, body: Any, path: str = "/chat/completions") -> tuple[int, Any]:
    data = BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.base_url}{path}", data=data) as response,
    ):
        return response.status, await response.json()


async def hang_up_after(server: NanoServer, raw: bytes) -> None:
    host, _, port = server.base_url.removeprefix("http://").removesuffix("/v1").rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    await writer.drain()
    await asyncio.sleep(0.05)  # the server is to have read it
    writer.close()
    await writer.wait_closed()


class TestTheOfficialClient:
    async def test_an_answer_and_its_usage(self, server: NanoServer, strongest: str) -> None:
        async with official(server) as client:
            answer = await client.chat.completions.create(
                model=strongest, messages=turn(), temperature=0.5, max_tokens=40
            )
        assert answer.choices[0].message.content == WALKED
        assert (answer.choices[0].finish_reason, answer.model) == ("stop", strongest)
        assert answer.usage is not None
        # <bos> walk left twice <sep>, and four actions with <eos>
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 5)

    @pytest.mark.parametrize("include_usage", [True, False])
    async def test_a_stream_says_the_same(
        self, server: NanoServer, strongest: str, include_usage: bool
    ) -> None:
        async with official(server) as client:
            stream = await client.chat.completions.create(
                model=strongest,
                messages=turn(),
                stream=True,
                stream_options={"include_usage": include_usage},
            )
            chunks = [chunk async for chunk in stream]
        pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        assert "".join(pieces) == WALKED
        assert len([p for p in pieces if p]) == 4
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        usage = chunks[-1].usage
        assert (usage is not None) == include_usage
        assert usage is None or usage.total_tokens == 10

    def test_the_blocking_client(self, nano: Pool, strongest: str) -> None:
        with (
            in_thread(NanoServer(nano)) as server,
            openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
        ):
            answer = client.chat.completions.create(model=strongest, messages=turn())
            assert answer.choices[0].message.content == WALKED
            stream = client.chat.completions.create(model=strongest, messages=turn(), stream=True)
            said = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
            assert said == WALKED
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("gpt-4o")

    async def test_models_are_listed_with_their_figures(
        self, server: NanoServer, nano: Pool
    ) -> None:
        async with official(server) as client:
            listed = {model.id: model async for model in client.models.list()}
            assert (await client.models.retrieve(nano.strongest.name)).id == nano.strongest.name
        assert set(listed) == {*(card.name for card in nano.workers), *nano.policies}
        extra = listed[nano.strongest.name].model_extra
        price = nano.strongest.price
        assert extra is not None
        assert price is not None
        assert extra["input_price"] == f"{price.input:f}"
        assert (extra["parameters"], extra["role"]) == (nano.strongest.parameters, "worker")

    async def test_an_unknown_model_is_not_found(self, server: NanoServer) -> None:
        async with official(server) as client:
            with pytest.raises(openai.NotFoundError) as refused:
                await client.chat.completions.create(model="gpt-4o", messages=turn())
        assert refused.value.code == "model_not_found"
        assert "64x2" in str(refused.value) or len(server.cards) < 3

    async def test_words_that_no_model_has_are_named(
        self, server: NanoServer, strongest: str
    ) -> None:
        async with official(server) as client:
            with pytest.raises(openai.BadRequestError, match="France") as refused:
                await client.chat.completions.create(
                    model=strongest, messages=turn("capital of France?")
                )
        assert refused.value.code == "unknown_words"
        assert "arithmetic" in str(refused.value)

    async def test_max_tokens_cut_and_stop_words_end(
        self, server: NanoServer, strongest: str
    ) -> None:
        async with official(server) as client:
            cut = await client.chat.completions.create(
                model=strongest, messages=turn(), max_completion_tokens=2
            )
            stopped = await client.chat.completions.create(
                model=strongest, messages=turn(), stop=[" I_WALK", "never"]
            )
        assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (
            *("I_TURN_LEFT I_WALK", "length"),
        )
        assert cut.usage is not None
        assert cut.usage.completion_tokens == 2
        choice = stopped.choices[0]
        assert (choice.message.content, choice.finish_reason) == ("I_TURN_LEFT", "stop")

    async def test_log_probabilities_are_given_when_asked_for(
        self, server: NanoServer, strongest: str
    ) -> None:
        async with official(server) as client:
            ask = client.chat.completions.create
            told = await ask(model=strongest, messages=turn(), logprobs=True)
            not_told = await ask(model=strongest, messages=turn())
        assert not_told.choices[0].logprobs is None
        assert told.choices[0].logprobs is not None
        tokens = told.choices[0].logprobs.content or []
        assert " ".join(t.token for t in tokens) == WALKED
        assert all(-1 < t.logprob <= 0 for t in tokens)

    async def test_a_rank_asks_for_the_next_likeliest(
        self, server: NanoServer, strongest: str
    ) -> None:
        async with official(server) as client:
            answers = [
                await client.chat.completions.create(
                    model=strongest, messages=turn("34 * 7"), extra_body={"r2_rank": rank}
                )
                for rank in (0, 1, 2)
            ]
        assert len({answer.choices[0].message.content for answer in answers}) == 3

    async def test_many_at_once_are_all_answered(self, server: NanoServer, strongest: str) -> None:
        async with official(server) as client:
            calls = [
                client.chat.completions.create(model=strongest, messages=turn(f"{n} + 0"))
                for n in range(1, 60)
            ]
            answers = await asyncio.gather(*calls)
        assert all(answer.choices[0].message.content for answer in answers)
        assert server.books_json()["totals"]["calls"] == 59


class TestBadRequests:
    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", {"model": 1}, {"messages": []}])
    async def test_what_is_no_request(self, server: NanoServer, body: Any) -> None:
        status, answer = await post(server, body)
        assert status == 400
        assert answer["error"]["type"] == "invalid_request_error"

    @pytest.mark.parametrize(
        "more", [{"n": 2}, {"max_tokens": 0}, {"max_tokens": 100_000}, {"r2_rank": 99}]
    )
    async def test_what_a_nano_model_cannot_do(
        self, server: NanoServer, strongest: str, more: dict[str, Any]
    ) -> None:
        status, answer = await post(server, {"model": strongest, "messages": turn(), **more})
        assert status == 400
        assert answer["error"]["message"]

    async def test_a_prompt_beyond_the_context(self, server: NanoServer, strongest: str) -> None:
        asked = {"model": strongest, "messages": turn("walk " * 5000)}
        status, answer = await post(server, asked)
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")

    async def test_a_body_over_the_limit(self, server: NanoServer, strongest: str) -> None:
        status, answer = await post(server, b" " * (MAX_BODY_BYTES + 1))
        assert status == 413
        assert str(MAX_BODY_BYTES) in answer["error"]["message"]
        most = json.dumps({"model": strongest, "messages": turn()}).encode()
        status, _ = await post(server, most + b" " * (MAX_BODY_BYTES - len(most)))
        assert status == 200

    async def test_a_chunked_body_over_the_limit(self, server: NanoServer) -> None:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b" " * (1 << 16)

        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.base_url}/chat/completions", data=endless()) as response,
        ):
            assert response.status == 413

    async def test_a_path_or_method_that_is_not_there(self, server: NanoServer) -> None:
        status, answer = await post(server, {}, "/completions")
        assert status == 404
        assert "/v1/chat/completions" in answer["error"]["message"]
        status, answer = await post(server, {}, "/models")
        assert status == 405
        assert answer["error"]["type"] == "invalid_request_error"

    @pytest.mark.parametrize("cut", [20, None])
    async def test_who_hangs_up_leaves_a_server_that_works(
        self, server: NanoServer, strongest: str, caplog: pytest.LogCaptureFixture, cut: int | None
    ) -> None:
        body = json.dumps({"model": strongest, "messages": turn(), "stream": True}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        await hang_up_after(server, head % len(body) + body[:cut])
        status, _ = await post(server, {"model": strongest, "messages": turn()})
        assert status == 200
        assert not caplog.records


class TestTheRoad:
    """The same pool over HTTP, as a pool of real endpoints is used."""

    def served(self, server: NanoServer, nano: Pool, tmp_path: Any) -> Pool:
        file = tmp_path / "served.toml"
        file.write_text(served_pool(nano, server.base_url))
        return load_pool(file)

    async def test_it_answers_and_costs_as_in_process(
        self, server: NanoServer, nano: Pool, ledger: Ledger, tmp_path: Any
    ) -> None:
        served = self.served(server, nano, tmp_path)
        over_http, in_process = PoolClient(), EmbeddedClient()
        for text in (ASKED, "34 + 57", "run around right"):
            for card in nano.workers:
                request = ChatRequest(
                    messages=(Message("system", "x"), Message("user", text)),
                    max_tokens=card.max_tokens,
                    role=Role.WORKER,
                    logprobs=True,
                )
                here = await in_process.complete(card, request, Meter(ledger, "here"))
                there = await over_http.complete(
                    served.card(card.name), request, Meter(ledger, "there")
                )
                assert (here.text, here.usage, here.cost) == (there.text, there.usage, there.cost)
                assert here.logprob == pytest.approx(there.logprob, abs=1e-4)
        await over_http.close()
        await in_process.close()

    async def test_its_books_are_our_ledger(
        self, server: NanoServer, nano: Pool, ledger: Ledger, tmp_path: Any
    ) -> None:
        served = self.served(server, nano, tmp_path)
        router = Router.open(served, settings(), ledger)
        async with router:
            traces = [await router.trace(q) for q in ("walk left twice and run", "34 + 57 - 9")]
        assert all(trace.answer.text for trace in traces)
        totals = ledger.totals()
        assert server.books_json()["totals"] == {
            "calls": totals.calls,
            "input_tokens": totals.input_tokens,
            "output_tokens": totals.output_tokens,
        }
        assert sum(b["cost_pico"] for b in server.books_json()["models"].values()) == totals.cost

    async def test_unknown_words_are_a_bad_request(
        self, server: NanoServer, nano: Pool, ledger: Ledger, tmp_path: Any
    ) -> None:
        card = self.served(server, nano, tmp_path).strongest
        client = PoolClient()
        request = ChatRequest(
            messages=(Message("user", "capital of France?"),), max_tokens=9, role=Role.WORKER
        )
        with pytest.raises(CallError, match="France") as failed:
            await client.complete(card, request, Meter(ledger, "q"))
        assert failed.value.fault is CallFault.BAD_REQUEST
        await client.close()

    async def test_health_and_books(self, server: NanoServer) -> None:
        base = server.base_url.removesuffix("/v1")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/healthz") as response:
                assert (response.status, (await response.json())["status"]) == (200, "ok")
            async with session.get(f"{base}/books") as response:
                books = await response.json()
        assert set(books["models"]) == set(server.cards)
        assert books["totals"]["calls"] == 0


class TestStarting:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
    def test_others_are_let_in_only_when_told(self, nano: Pool, host: str) -> None:
        with pytest.raises(ConfigError, match="--allow-remote"):
            NanoServer(nano, host=host)
        NanoServer(nano, host=host, allow_remote=True)

    def test_this_machine(self) -> None:
        assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
        assert not is_loopback("localhost.example.org")

    async def test_a_wildcard_is_reached_by_loopback(self, nano: Pool, strongest: str) -> None:
        async with NanoServer(nano, host="0.0.0.0", allow_remote=True) as server:
            assert server.base_url.startswith("http://127.0.0.1:")
            status, _ = await post(server, {"model": strongest, "messages": turn()})
            assert status == 200

    def test_a_pool_that_is_not_in_process_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="not run in process"):
            NanoServer(pools.pool_at("http://127.0.0.1:1/v1"))

    async def test_changed_weights_are_refused(self, nano: Pool) -> None:
        wrong = replace(nano.workers[0], sha256="0" * 64)
        with pytest.raises(ConfigError, match="sha256"):
            async with NanoServer(replace(nano, workers=(wrong, *nano.workers[1:]))):
                pass

    async def test_a_port_that_is_taken(self, server: NanoServer, nano: Pool) -> None:
        port = int(server.base_url.removesuffix("/v1").rpartition(":")[2])
        with pytest.raises(ConfigError, match="cannot listen"):
            await serve_until(asyncio.Event(), NanoServer(nano, port=port), lambda url: None)

    async def test_calls_in_flight_end_before_it_stops(self, nano: Pool, strongest: str) -> None:
        stop, base = asyncio.Event(), asyncio.get_running_loop().create_future()
        server = NanoServer(nano)
        serving = asyncio.create_task(serve_until(stop, server, base.set_result))
        await base
        calls = [
            asyncio.create_task(post(server, {"model": strongest, "messages": turn(f"{n} + 1")}))
            for n in range(30)
        ]
        await calls[0]
        stop.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await serving
        answered = [a for a in answers if not isinstance(a, BaseException)]
        assert {status for status, _ in answered} == {200}
        assert len(answered) >= 1
        assert len(answered) == server.books_json()["totals"]["calls"]
