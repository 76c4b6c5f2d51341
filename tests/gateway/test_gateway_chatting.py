"""The official client against the gateway on a real socket: as against the real API."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from scripted_provider import call as tool_call
from scripted_provider import scripted

from gateways import Served, able_pool, gateway
from pools import answers, plan_json, pool_at, serving
from r2reasoner.gateway.gateway import Options
from r2reasoner.gateway.wire import MAX_BODY_BYTES
from r2reasoner.mock import BookEnd, ChatCall, Fault, MockProvider
from r2reasoner.pool.cards import Pool
from r2reasoner.types import CallOutcome, to_dollars

QUERY = "what is 12 + 34 * 5"
PLANNER = plan_json("34 * 5", ("12 + #1", [1]))
TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {}}}


def turn(text: str = QUERY) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def planned(**more: Any) -> MockProvider:
    return MockProvider(answer=answers(PLANNER), **more)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class TestTheOfficialClient:
    async def test_routed(self, tmp_path: Path) -> None:
        async with planned() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    raw = await client.chat.completions.with_raw_response.create(
                        model="r2reasoner:0.5", messages=turn()
                    )
                answer = raw.parse()
                trace = await served.trace(raw.headers["x-r2-trace-id"])
        assert answer.choices[0].message.content == "<12 + #1>"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == "r2reasoner:0.5"
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == sum(b.input_tokens for b in mock.books)
        assert answer.usage.completion_tokens == sum(b.output_tokens for b in mock.books)
        block: Any = answer.model_extra["r2"] if answer.model_extra else None
        assert block["trace_id"] == trace.id
        assert block["trade_off"] == trace.trade_off == 0.5
        assert [s["text"] for s in block["plan"]["subtasks"]] == ["34 * 5", "12 + #1"]
        assert [s["model"] for s in block["plan"]["subtasks"]] == ["medium", "medium"]
        assert [c["role"] for c in block["calls"]] == ["decomposer", "worker", "final"]
        cost = trace.cost()
        assert cost is not None
        assert Decimal(raw.headers["x-r2-cost"]) == Decimal(block["cost"]) == to_dollars(cost)
        assert sum(Decimal(c["cost"]) for c in block["calls"]) == Decimal(block["cost"])
        alone = Decimal(block["strongest_alone_estimate"])
        assert Decimal(block["saved_estimate"]) == alone - Decimal(block["cost"])

    async def test_routed_stream(self, tmp_path: Path) -> None:
        async with planned() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    stream = await client.chat.completions.create(
                        model="r2reasoner",
                        messages=turn(),
                        stream=True,
                        stream_options={"include_usage": True},
                    )
                    chunks = [chunk async for chunk in stream]
        deltas = [c.choices[0].delta for c in chunks if c.choices]
        reasoning = "".join((d.model_extra or {}).get("reasoning_content", "") for d in deltas)
        assert deltas[0].role == "assistant"
        assert "1. 34 * 5" in reasoning
        assert "Step 2" in reasoning
        assert "".join(d.content or "" for d in deltas) == "<12 + #1>"
        last, usage = chunks[-2:]
        assert last.choices[0].finish_reason == "stop"
        assert last.model_extra
        assert last.model_extra["r2"]["status"] == "complete"
        assert usage.usage is not None
        assert usage.usage.total_tokens == sum(b.input_tokens + b.output_tokens for b in mock.books)

    async def test_a_pools_model_by_name(self, tmp_path: Path) -> None:
        async with MockProvider() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    answer = await client.chat.completions.create(
                        model="small", messages=turn("a b c"), max_tokens=2, temperature=0.7
                    )
                    stream = await client.chat.completions.create(
                        model="large", messages=turn("a b c"), stream=True
                    )
                    pieces = [c.choices[0].delta.content async for c in stream if c.choices]
        assert answer.choices[0].message.content == "a b"
        assert answer.choices[0].finish_reason == "length"
        assert [p for p in pieces if p] == ["a", " b", " c"]
        assert [b.model for b in mock.books] == ["small", "large"]

    def test_the_synchronous_client(self, tmp_path: Path) -> None:
        with (
            serving(planned()) as base_url,
            gateway(pool_at(base_url), tmp_path / "l.db") as served,
            openai.OpenAI(base_url=served.base_url, api_key="none") as client,
        ):
            names = [model.id for model in client.models.list()]
            whole = client.chat.completions.create(model="r2reasoner", messages=turn())
            with client.chat.completions.create(
                model="r2reasoner", messages=turn(), stream=True
            ) as stream:
                text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
            one = client.models.retrieve("large")
        assert names == ["r2reasoner", "small", "medium", "large"]
        assert whole.choices[0].message.content == text == "<12 + #1>"
        assert one.id == "large"

    async def test_the_nano_pool(self, nano: Pool, tmp_path: Path) -> None:
        with gateway(nano, tmp_path / "l.db") as served:
            async with served.client() as client:
                routed = await client.chat.completions.create(
                    model="r2reasoner", messages=turn("( 12 + 34 ) * 5 - 7")
                )
                named = await client.chat.completions.create(
                    model=nano.strongest.name, messages=turn("walk left twice"), stop=["I_WALK"]
                )
                with pytest.raises(openai.BadRequestError, match="vocabulary") as unknown:
                    await client.chat.completions.create(
                        model="r2reasoner", messages=turn("why is the sky blue")
                    )
        assert routed.choices[0].message.content == "223"
        assert named.choices[0].message.content == "I_TURN_LEFT "
        assert unknown.value.code == "unknown_words"

    async def test_a_tool_call_comes_back_as_it_was_made(self, tmp_path: Path) -> None:
        async with MockProvider(faults=[Fault.TOOL_CALL, Fault.TOOL_CALL]) as mock:
            with gateway(able_pool(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    answer = await client.chat.completions.create(
                        model="r2reasoner:1", messages=turn(), tools=[TOOL]
                    )
                    stream = await client.chat.completions.create(
                        model="medium", messages=turn(), tools=[TOOL], stream=True
                    )
                    deltas = [c.choices[0].delta async for c in stream if c.choices]
        calls: Any = answer.choices[0].message.tool_calls
        assert calls[0].function.name == "look_up"
        assert any(d.tool_calls for d in deltas)
        assert [b.model for b in mock.books] == ["medium", "medium"]
        assert {b.role for b in mock.books} == {"worker"}

    @pytest.mark.parametrize(
        ("model", "status", "kind"),
        [
            ("gpt-9", 404, openai.NotFoundError),
            ("r2reasoner:2", 404, openai.NotFoundError),
            ("http://example.org/v1", 404, openai.NotFoundError),
        ],
    )
    async def test_unknown_models(
        self, tmp_path: Path, model: str, status: int, kind: type[openai.APIStatusError]
    ) -> None:
        async with MockProvider() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    with pytest.raises(kind) as error:
                        await client.chat.completions.create(model=model, messages=turn())
        assert error.value.status_code == status
        assert error.value.code == "model_not_found"
        assert mock.books == []


class TestConversations:
    async def test_workers_and_the_planner_see_what_was_said_before(self, tmp_path: Path) -> None:
        seen: list[ChatCall] = []

        def answer(call: ChatCall) -> str:
            seen.append(call)
            return answers(PLANNER)(call)

        async with MockProvider(answer=answer) as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    await client.chat.completions.create(
                        model="r2reasoner",
                        messages=[
                            {"role": "system", "content": "Speak like a pirate."},
                            {"role": "user", "content": "my number is 34"},
                            {"role": "assistant", "content": "Aye."},
                            {"role": "user", "content": QUERY},
                        ],
                    )
        assert len(seen) == 3
        for call in seen:
            said = [m.content for m in call.messages]
            assert any("Speak like a pirate." in text for text in said)
            assert "my number is 34" in said
            assert "Aye." in said
            assert [m.role for m in call.messages].count("system") == 1
            assert QUERY in call.last_user


class TestErrors:
    async def test_a_provider_that_fails_is_an_error_of_the_official_client(
        self, tmp_path: Path
    ) -> None:
        faults = {"small": Fault.SERVER_ERROR, "medium": Fault.RATE_LIMITED}
        mock = MockProvider(faults=lambda call: faults.get(call.model), retry_after_s=0)
        async with mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    with pytest.raises(openai.InternalServerError) as failed:
                        await client.chat.completions.create(model="small", messages=turn())
                    with pytest.raises(openai.RateLimitError):
                        await client.chat.completions.create(model="medium", messages=turn())
                await served.ledger.flush()
                entries = served.ledger.entries()
        assert failed.value.status_code == 502
        assert failed.value.response.headers["x-r2-trace-id"]
        assert len(entries) == len(mock.books) == 6
        assert {e.outcome for e in entries} == {CallOutcome.FAILED}

    async def test_the_next_capable_model_answers_while_nothing_was_sent(
        self, tmp_path: Path
    ) -> None:
        down = lambda call: Fault.UNAVAILABLE if call.model == "medium" else None  # noqa: E731
        async with MockProvider(faults=down) as mock:
            with gateway(able_pool(mock.base_url), tmp_path / "l.db") as served:
                status, _, answer = await served.post(
                    {
                        "model": "r2reasoner:1",
                        "messages": turn(),
                        "response_format": {"type": "json_object"},
                    }
                )
        assert status == 200
        (step,) = answer["r2"]["plan"]["subtasks"]
        assert (step["model"], step["fell_back_from"]) == ("large", ["medium"])

    async def test_a_stream_that_is_cut_ends_in_an_error(self, tmp_path: Path) -> None:
        async with MockProvider(faults=lambda call: Fault.RESET_MID_CHUNK) as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    stream = await client.chat.completions.create(
                        model="large", messages=turn("a b c d"), stream=True
                    )
                    with pytest.raises(openai.APIError, match="connection broke"):
                        async for _ in stream:
                            pass
                await served.ledger.flush()
                (entry,) = served.ledger.entries()
        assert entry.outcome is CallOutcome.UNKNOWN
        assert entry.cost == entry.bound

    @pytest.mark.parametrize(
        ("body", "status", "param"),
        [
            (b"{", 400, None),
            (b"[]", 400, None),
            (b'{"model": "small", "messages": NaN}', 400, None),
            (b"[" * 400_000, 400, None),
            (b'{"model": "small"}', 400, "messages"),
            (b'{"model": 7, "messages": [{"role": "user", "content": "a"}]}', 400, "model"),
            (b"x" * (MAX_BODY_BYTES + 1), 413, None),
        ],
    )
    async def test_bad_bodies_reach_nobody(
        self, tmp_path: Path, body: bytes, status: int, param: str | None
    ) -> None:
        async with MockProvider() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                for chunked in (False, True):
                    got, _, error = await served.post(body, chunked=chunked)
                    assert got == status
                    assert error["error"]["param"] == param
                    assert error["error"]["type"] == "invalid_request_error"
        assert mock.books == []

    async def test_no_model_is_capable(self, tmp_path: Path) -> None:
        async with MockProvider() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                status, _, error = await served.post(
                    {"model": "r2reasoner", "messages": turn(), "tools": [TOOL]}
                )
        assert status == 400
        assert "tools" in error["error"]["message"]
        assert error["error"]["code"] == "unsupported_parameter"
        assert mock.books == []


class TestAClientThatLeaves:
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("model", ["r2reasoner", "large"])
    async def test_ends_the_call_and_books_it(
        self, tmp_path: Path, model: str, stream: bool
    ) -> None:
        mock = planned(latency_s=lambda call: 0.0 if call.role == "decomposer" else 30.0)
        if model == "large":
            mock = MockProvider(latency_s=0.0 if stream else 30.0, token_s=30)
        async with mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                asking = asyncio.create_task(
                    served.post({"model": model, "messages": turn(), "stream": stream})
                )
                await until(lambda: any(b.role != "decomposer" for b in mock.books))
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                await until(lambda: all(b.end is not BookEnd.OPEN for b in mock.books))
                await until(lambda: not served.gateway.live._running)
                await served.ledger.flush()
                entries = served.ledger.entries()
        assert len(entries) == len(mock.books)
        assert mock.books[-1].end is BookEnd.GONE
        assert entries[-1].outcome is CallOutcome.UNKNOWN
        assert entries[-1].cost == entries[-1].bound


async def test_a_silent_stream_says_that_it_lives(tmp_path: Path) -> None:
    options = Options(keep_alive_s=0.02)
    async with MockProvider(latency_s=0.3) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db", options=options) as served:
            text = await raw_stream(served, {"model": "large", "messages": turn()})
    assert text.startswith(": keep-alive\n\n")
    assert text.endswith("data: [DONE]\n\n")


async def raw_stream(served: Served, body: dict[str, Any]) -> str:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{served.base_url}/chat/completions", json=body | {"stream": True}) as got,
    ):
        return await got.text()


async def test_the_ledger_equals_the_providers_books(tmp_path: Path) -> None:
    """A few hundred mixed requests, a third of the calls faulty in ways that bill nothing."""
    kinds = [Fault.SERVER_ERROR, None, None, Fault.RATE_LIMITED, None, Fault.BAD_REQUEST]

    def fault(call: ChatCall) -> Fault | None:
        return kinds[call.number % len(kinds)]

    mock = MockProvider(answer=answers(PLANNER), faults=fault, retry_after_s=0)
    bodies = [
        {"model": model, "messages": turn(f"{QUERY} {n}"), "stream": stream}
        for n in range(35)
        for model in ("r2reasoner", "r2reasoner:1", "small", "large")
        for stream in (False, True)
    ]
    async with mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            room = asyncio.Semaphore(16)

            async def ask(body: dict[str, Any]) -> None:
                async with room:
                    if body["stream"]:
                        await raw_stream(served, body)
                    else:
                        await served.post(body)

            await asyncio.gather(*map(ask, bodies))
            await served.ledger.flush()
            entries = served.ledger.entries()
            prices = {card.name: card.price for card in served.gateway.pool.workers}
            planner = served.gateway.pool.policies["planner"]
    assert len(entries) == len(mock.books)
    assert Counter((e.model, e.role.value, e.usage) for e in entries) == Counter(
        (b.model, b.role, b.usage) for b in mock.books
    )
    prices[planner.name] = planner.price
    billed = 0
    for book in mock.books:
        price = prices[book.model or ""]
        assert price is not None
        billed += price.cost(book.usage)
    assert sum(e.cost or 0 for e in entries) == billed


async def test_exact_repeats_are_kept_for_who_asks(tmp_path: Path) -> None:
    options = Options(cache_entries=8)
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db", options=options) as served:
            body = {"model": "small", "messages": turn(), "r2": {"cache": True}}
            first = await served.post(body)
            again = await served.post(body)
            streamed = await raw_stream(served, body)
            _, one = served.keys.create("one")
            other = await served.post(body, key=one)
            await served.post({**body, "temperature": 0.5}, key=one)
    assert len(mock.books) == 3
    assert first[2]["choices"] == again[2]["choices"] == other[2]["choices"]
    assert "cached" not in first[2]["r2"]
    assert again[2]["r2"]["cached"] is True
    assert again[1]["x-r2-cost"] == "0"
    assert json.dumps(QUERY) in streamed
    assert '"cached":true' in streamed


async def test_a_partial_answer_is_not_kept(tmp_path: Path) -> None:
    def fault(call: ChatCall) -> Fault | None:
        return Fault.BAD_REQUEST if call.role == "final" else None

    body = {"model": "r2reasoner", "messages": turn(), "r2": {"cache": True}}
    async with planned(faults=fault) as mock:
        options = Options(cache_entries=8)
        with gateway(pool_at(mock.base_url), tmp_path / "l.db", options=options) as served:
            blocks = [(await served.post(body))[2]["r2"] for _ in range(2)]
            streamed = await raw_stream(served, body)
            last = await served.post(body)
    assert [block["status"] for block in blocks] == ["partial", "partial"]
    assert '"status":"partial"' in streamed
    assert "cached" not in blocks[1]
    assert "cached" not in last[2]["r2"]


async def test_tool_calls_that_were_kept_are_numbered_in_a_stream(tmp_path: Path) -> None:
    asked: Any = {
        "model": "medium",
        "messages": turn(),
        "tools": [TOOL],
        "extra_body": {"r2": {"cache": True}},
    }
    called = tool_call("c0", "look_up", "{}")
    async with scripted({"role": "assistant", "content": None, "tool_calls": [called]}) as provider:
        pool, options = able_pool(provider.base_url), Options(cache_entries=8)
        with gateway(pool, tmp_path / "l.db", options=options) as served:
            async with served.client() as client:
                await client.chat.completions.create(**asked)
                async with client.chat.completions.stream(**asked) as stream:
                    again = await stream.get_final_completion()
    assert len(provider.bodies) == 1
    calls = again.choices[0].message.tool_calls or []
    assert [(call.id, call.function.name) for call in calls] == [("c0", "look_up")]


async def test_bypass_is_the_strongest_model_at_once(tmp_path: Path) -> None:
    async with planned() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            _, _, answer = await served.post(
                {"model": "r2reasoner", "messages": turn()}, headers={"x-r2-bypass": "1"}
            )
    assert answer["choices"][0]["message"]["content"] == f"<{QUERY}>"
    assert [b.model for b in mock.books] == ["large"]


async def test_canary_and_shadow(tmp_path: Path) -> None:
    body = {"model": "large", "messages": turn()}
    async with planned() as mock:
        pool = pool_at(mock.base_url)
        with gateway(pool, tmp_path / "a.db", options=Options(canary=1.0)) as served:
            _, _, answer = await served.post(body)
        assert answer["choices"][0]["message"]["content"] == "<12 + #1>"
        assert [b.role for b in mock.books] == ["decomposer", "worker", "final"]
        mock.books.clear()
        with gateway(pool, tmp_path / "b.db", options=Options(shadow=1.0)) as served:
            _, _, answer = await served.post(body)
            await until(lambda: len(served.ledger.traces()) == 2)
        assert answer["choices"][0]["message"]["content"] == f"<{QUERY}>"
        assert [b.role for b in mock.books] == ["worker", "decomposer", "worker", "final"]
