"""The official client's Responses API against the gateway on a real socket."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from decimal import Decimal
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from scripted_provider import call, scripted

from gateways import ADMIN, Served, able_pool, gateway
from pools import answers, plan_json, pool_at, serving
from r2reasoner.gateway.answers import Writer
from r2reasoner.gateway.errors import shutting_down
from r2reasoner.gateway.gateway import Options
from r2reasoner.gateway.parts import Delta, Part
from r2reasoner.gateway.responses import Responses
from r2reasoner.mock import BookEnd, ChatCall, Fault, MockProvider
from r2reasoner.types import CallOutcome, to_dollars

QUERY = "what is 12 + 34 * 5"
PLANNER = plan_json("34 * 5", ("12 + #1", [1]))
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
IMAGE = "data:image/png;base64,AA=="
TOOL: Any = {
    "type": "function",
    "name": "look_up",
    "description": "Looks up a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


def planned(**more: Any) -> MockProvider:
    return MockProvider(answer=answers(PLANNER), **more)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def post(served: Served, body: Any, **more: Any) -> tuple[int, Any, Any]:
    return await served.post(body, path="/v1/responses", **more)


async def raw_events(served: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a stream's events."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{served.base_url}/responses", json=body | {"stream": True}) as got,
    ):
        return read_events(await got.text())


def read_events(text: str) -> list[dict[str, Any]]:
    """Read events, each named by its type, numbered in order."""
    events = []
    for block in text.split("\n\n"):
        if not block or block.startswith(":"):
            continue
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


class TestTheOfficialClient:
    async def test_routed(self, tmp_path: Path) -> None:
        async with planned() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    raw = await client.responses.with_raw_response.create(
                        model="r2reasoner:0.5",
                        input=QUERY,
                        instructions="Be brief.",
                        metadata={"a": "b"},
                        user="me",
                        store=False,
                        truncation="disabled",
                        include=[],
                        extra_body={"r2": {"max_cost": "0.5"}},
                    )
                answer = raw.parse()
                trace = await served.trace(raw.headers["x-r2-trace-id"])
        assert answer.output_text == "<12 + #1>"
        assert answer.status == "completed"
        assert (answer.model, answer.object) == ("r2reasoner:0.5", "response")
        assert answer.id == f"resp_{trace.id}"
        assert [item.type for item in answer.output] == ["message"]
        assert answer.error is None
        assert answer.incomplete_details is None
        assert (answer.instructions, answer.metadata) == ("Be brief.", {"a": "b"})
        assert answer.usage is not None
        assert answer.usage.input_tokens == sum(b.input_tokens for b in mock.books)
        assert answer.usage.output_tokens == sum(b.output_tokens for b in mock.books)
        more: Any = answer.model_extra
        assert more["store"] is False
        cost = trace.cost()
        assert cost is not None
        assert Decimal(raw.headers["x-r2-cost"]) == Decimal(more["r2"]["cost"]) == to_dollars(cost)
        assert [s["text"] for s in more["r2"]["plan"]["subtasks"]] == ["34 * 5", "12 + #1"]

    async def test_a_routed_stream_tells_plan_and_steps_as_reasoning(self, tmp_path: Path) -> None:
        async with planned() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    stream = await client.responses.create(
                        model="r2reasoner", input=QUERY, stream=True
                    )
                    events: list[Any] = [event async for event in stream]
                    async with client.responses.stream(model="r2reasoner", input=QUERY) as helper:
                        final = await helper.get_final_response()
        told = [event.model_dump() for event in events]
        summaries = [t for t in types(told) if t == "reasoning_summary_text.delta"]
        assert summaries
        rest = [t for t in types(told) if t != "reasoning_summary_text.delta"]
        assert rest == [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        response = events[-1].response
        reasoning, message = response.output
        assert "1. 34 * 5" in reasoning.summary[0].text
        assert "Step 2" in reasoning.summary[0].text
        assert message.content[0].text == response.output_text == final.output_text == "<12 + #1>"
        assert response.usage.total_tokens * 2 == sum(
            b.input_tokens + b.output_tokens for b in mock.books
        )
        assert response.model_extra["r2"]["status"] == "complete"

    async def test_an_answer_cut_by_its_limit_is_incomplete(self, tmp_path: Path) -> None:
        async with MockProvider() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    answer = await client.responses.create(
                        model="small", input="a b c", max_output_tokens=2, temperature=0.7
                    )
                    stream = await client.responses.create(
                        model="large", input="a b c", max_output_tokens=2, stream=True
                    )
                    events: list[Any] = [event async for event in stream]
        assert answer.output_text == "a b"
        assert answer.status == "incomplete"
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == "max_output_tokens"
        assert (answer.max_output_tokens, answer.temperature) == (2, 0.7)
        assert events[-1].type == "response.incomplete"
        assert events[-1].response.output[0].status == "incomplete"
        assert [e.delta for e in events if e.type == "response.output_text.delta"] == ["a", " b"]

    def test_the_synchronous_client(self, tmp_path: Path) -> None:
        with (
            serving(planned()) as base_url,
            gateway(pool_at(base_url), tmp_path / "l.db") as served,
            openai.OpenAI(base_url=served.base_url, api_key="none") as client,
        ):
            whole = client.responses.create(model="r2reasoner", input=QUERY)
            with client.responses.create(model="r2reasoner", input=QUERY, stream=True) as stream:
                deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
            with client.responses.stream(model="large", input="a b c") as helper:
                snapshots = [e.snapshot for e in helper if e.type == "response.output_text.delta"]
                final = helper.get_final_response()
        assert whole.output_text == "".join(deltas) == "<12 + #1>"
        assert snapshots == ["<a", "<a b", "<a b c>"]
        assert final.output_text == "<a b c>"

    async def test_a_structured_answer_is_parsed(self, tmp_path: Path) -> None:
        class City(BaseModel):
            name: str
            people: int

        said = {"role": "assistant", "content": '{"name": "Bern", "people": 134794}'}
        async with scripted(said) as provider:
            with gateway(able_pool(provider.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    answer = await client.responses.parse(
                        model="r2reasoner", input="a city", text_format=City
                    )
        assert answer.output_parsed == City(name="Bern", people=134794)
        form = provider.bodies[0]["response_format"]
        assert form["type"] == "json_schema"
        assert form["json_schema"]["strict"] is True
        assert form["json_schema"]["schema"]["required"] == ["name", "people"]

    async def test_a_conversation_goes_on_by_sending_its_output_back(self, tmp_path: Path) -> None:
        async with scripted([{"content": "Noted."}], {"content": "34"}) as provider:
            with gateway(able_pool(provider.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    said: Any = [{"role": "user", "content": "my number is 34"}]
                    async with client.responses.stream(model="large", input=said) as stream:
                        first = await stream.get_final_response()
                    said += [*first.output, {"role": "user", "content": "which number?"}]
                    second = await client.responses.create(
                        model="large", input=said, instructions="Be brief."
                    )
        assert second.output_text == "34"
        assert provider.bodies[1]["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "my number is 34"},
            {"role": "assistant", "content": "Noted."},
            {"role": "user", "content": "which number?"},
        ]

    async def test_a_routed_streams_output_goes_back_with_its_reasoning(
        self, tmp_path: Path
    ) -> None:
        seen: list[ChatCall] = []

        def answer(asked: ChatCall) -> str:
            seen.append(asked)
            return answers(PLANNER)(asked)

        async with MockProvider(answer=answer) as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    said: Any = [{"role": "user", "content": QUERY}]
                    async with client.responses.stream(model="r2reasoner", input=said) as stream:
                        first = await stream.get_final_response()
                    said += [*first.output, {"role": "user", "content": "and again?"}]
                    await client.responses.create(model="r2reasoner", input=said)
        assert [item.type for item in first.output] == ["reasoning", "message"]
        again = [m.content for m in seen[-1].messages]
        assert "<12 + #1>" in again
        assert not any("Step 2" in text for text in again)

    async def test_an_image_goes_to_a_model_that_sees(self, tmp_path: Path) -> None:
        async with scripted({"role": "assistant", "content": "a dot"}) as provider:
            with gateway(able_pool(provider.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    answer = await client.responses.create(
                        model="r2reasoner:1",
                        input=[
                            {
                                "role": "user",
                                "content": [
                                    {"type": "input_text", "text": "what is it?"},
                                    {"type": "input_image", "image_url": IMAGE, "detail": "low"},
                                ],
                            }
                        ],
                    )
        assert answer.output_text == "a dot"
        assert provider.bodies[0]["model"] == "medium"
        assert provider.bodies[0]["messages"][0]["content"] == [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
        ]


class TestTools:
    async def test_a_round_trip(self, tmp_path: Path) -> None:
        calls = [call("a", "look_up", '{"city": "Bern"}'), call("b", "look_up", "{}")]
        first_said = {"role": "assistant", "content": "Looking.", "tool_calls": calls}
        async with scripted(first_said, {"role": "assistant", "content": "cold"}) as provider:
            with gateway(able_pool(provider.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    said: Any = [{"role": "user", "content": "weather?"}]
                    first = await client.responses.create(
                        model="medium",
                        input=said,
                        tools=[TOOL],
                        tool_choice={"type": "function", "name": "look_up"},
                        parallel_tool_calls=True,
                    )
                    said += first.output
                    for item in first.output:
                        if item.type == "function_call":
                            output = {"type": "function_call_output", "call_id": item.call_id}
                            said.append({**output, "output": "-3"})
                    second = await client.responses.create(model="medium", input=said, tools=[TOOL])
        assert [item.type for item in first.output] == ["message", "function_call", "function_call"]
        assert first.output_text == "Looking."
        assert first.status == "completed"
        assert second.output_text == "cold"
        function = {name: value for name, value in TOOL.items() if name != "type"}
        assert provider.bodies[0]["tools"] == [{"type": "function", "function": function}]
        assert provider.bodies[0]["tool_choice"]["function"] == {"name": "look_up"}
        assert provider.bodies[0]["parallel_tool_calls"] is True
        assert provider.bodies[1]["messages"] == [
            {"role": "user", "content": "weather?"},
            first_said,
            {"role": "tool", "tool_call_id": "a", "content": "-3"},
            {"role": "tool", "tool_call_id": "b", "content": "-3"},
        ]

    async def test_streamed_calls_come_whole_even_where_a_provider_mixes_them(
        self, tmp_path: Path
    ) -> None:
        deltas = [
            {"role": "assistant", "content": ""},
            {"content": "Look"},
            {"content": "ing."},
            {"tool_calls": [call("a", "look_up", "", index=0)]},
            {"tool_calls": [call("b", "look_up", '{"city"', index=1)]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
            {"tool_calls": [{"index": 1, "function": {"arguments": ': "Bern"}'}}]},
        ]
        async with scripted(deltas) as provider:
            with gateway(able_pool(provider.base_url), tmp_path / "l.db") as served:
                async with (
                    served.client() as client,
                    client.responses.stream(
                        model="medium", input="weather?", tools=[TOOL]
                    ) as stream,
                ):
                    events: list[Any] = [event async for event in stream]
                    final = await stream.get_final_response()
        calls = [item for item in final.output if item.type == "function_call"]
        assert [(c.call_id, c.arguments) for c in calls] == [("a", "{}"), ("b", '{"city": "Bern"}')]
        assert all(c.status == "completed" for c in calls)
        done = [e for e in events if e.type == "response.function_call_arguments.done"]
        assert [e.arguments for e in done] == [c.arguments for c in calls]
        order = [e.type.removeprefix("response.") for e in events]
        assert order.index("output_text.done") < order.index("function_call_arguments.delta")

    @pytest.mark.parametrize(
        "odd",
        [
            "look_up",
            ["look_up"],
            [{"id": "a"}],
            [{"id": "a", "function": {"name": "", "arguments": "{}"}}],
            [{"id": "a", "function": {"name": "look_up", "arguments": {}}}],
            [{"id": "a", "index": "x", "function": {"name": "look_up", "arguments": ""}}],
        ],
    )
    async def test_a_call_that_is_none_is_the_providers_fault(
        self, tmp_path: Path, odd: Any
    ) -> None:
        message = {"role": "assistant", "content": None, "tool_calls": odd}
        async with scripted(message, message) as provider:
            with gateway(able_pool(provider.base_url), tmp_path / "l.db") as served:
                body = {"model": "medium", "input": "weather?", "tools": [TOOL]}
                status, headers, error = await post(served, body)
                events = await raw_events(served, body)
                await served.ledger.flush()
                entries = served.ledger.entries()
        assert status == 502
        assert headers["x-r2-trace-id"] == entries[0].query_id
        assert entries[0].outcome is CallOutcome.OK
        assert error["error"]["code"] == "upstream_malformed"
        assert types(events) == ["created", "in_progress", "error", "failed"]
        assert len(entries) == len(provider.bodies) == 2

    async def test_a_refusal_is_told_as_one(self, tmp_path: Path) -> None:
        message = {"role": "assistant", "content": None, "refusal": "No."}
        async with scripted(message, [{"refusal": "N"}, {"refusal": "o."}]) as provider:
            with gateway(able_pool(provider.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    whole = await client.responses.create(model="medium", input="evil")
                    async with client.responses.stream(model="medium", input="evil") as stream:
                        final = await stream.get_final_response()
        for output in (whole.output, final.output):
            (item,) = output
            assert item.type == "message"
            assert [part.to_dict() for part in item.content] == [
                {"type": "refusal", "refusal": "No."}
            ]


class TestErrors:
    async def test_what_cannot_be_done_reaches_nobody(self, tmp_path: Path) -> None:
        async with MockProvider() as mock:
            with gateway(able_pool(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    with pytest.raises(openai.BadRequestError, match="earlier items") as error:
                        await client.responses.create(
                            model="small", input="a", previous_response_id="resp_1"
                        )
                    with pytest.raises(openai.BadRequestError, match="hosted"):
                        await client.responses.create(
                            model="small", input="a", tools=[{"type": "web_search"}], stream=True
                        )
                    with pytest.raises(openai.NotFoundError):
                        await client.responses.retrieve("resp_1")
        assert error.value.param == "previous_response_id"
        assert error.value.code == "unsupported_parameter"
        assert mock.books == []

    async def test_keys_and_budgets_hold(self, tmp_path: Path) -> None:
        async with MockProvider() as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                _, narrow = served.keys.create("narrow", models=["small"], per_minute=2)
                _, poor = served.keys.create("poor", per_day=Decimal("0.000001"))
                async with served.client("r2-wrong") as client:
                    with pytest.raises(openai.AuthenticationError):
                        await client.responses.create(model="small", input="a")
                async with served.client(narrow) as client:
                    with pytest.raises(openai.PermissionDeniedError):
                        await client.responses.create(model="large", input="a")
                    ask = [client.responses.create(model="small", input="a") for _ in range(4)]
                    ends = await asyncio.gather(*ask, return_exceptions=True)
                async with served.client(ADMIN) as client:
                    with pytest.raises(openai.NotFoundError) as unknown:
                        await client.responses.create(model="gpt-9", input="a")
                asked = len(mock.books)
                for stream in (False, True):
                    body = {"model": "large", "input": "a", "stream": stream}
                    status, _, error = await post(served, body, key=poor)
                    assert (status, error["error"]["code"]) == (402, "insufficient_quota")
        assert any(isinstance(end, openai.RateLimitError) for end in ends)
        assert unknown.value.code == "model_not_found"
        assert len(mock.books) == asked

    async def test_a_provider_that_fails(self, tmp_path: Path) -> None:
        mock = MockProvider(faults=lambda call: Fault.SERVER_ERROR)
        async with mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    with pytest.raises(openai.InternalServerError) as failed:
                        await client.responses.create(model="small", input="a")
                    with pytest.raises(openai.InternalServerError):
                        await client.responses.create(model="small", input="a", stream=True)
        assert failed.value.status_code == 502
        assert failed.value.response.headers["x-r2-trace-id"]

    async def test_a_stream_that_is_cut_fails_loudly(self, tmp_path: Path) -> None:
        async with MockProvider(faults=lambda call: Fault.RESET_MID_CHUNK) as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with served.client() as client:
                    stream = await client.responses.create(
                        model="large", input="a b c d", stream=True
                    )
                    with pytest.raises(openai.APIError, match="connection broke"):
                        async for _ in stream:
                            pass
                error, failed = (await raw_events(served, {"model": "large", "input": "a b c d"}))[
                    -2:
                ]
                await served.ledger.flush()
                entries = served.ledger.entries()
        assert (
            error["message"] == error["error"]["message"] == failed["response"]["error"]["message"]
        )
        assert error["code"] == "upstream_cut"
        assert failed["response"]["status"] == "failed"
        (item,) = failed["response"]["output"]
        assert item["status"] == "incomplete"
        assert "a b c d".startswith(item["content"][0]["text"])
        assert {entry.outcome for entry in entries} == {CallOutcome.UNKNOWN}

    async def test_a_failure_after_silence_is_a_response_that_failed(self, tmp_path: Path) -> None:
        options = Options(keep_alive_s=0.02)
        mock = MockProvider(latency_s=0.3, faults=lambda call: Fault.BAD_REQUEST)
        async with mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db", options=options) as served:
                async with aiohttp.ClientSession() as session:
                    body = {"model": "large", "input": "a", "stream": True}
                    async with session.post(f"{served.base_url}/responses", json=body) as got:
                        text = await got.text()
                events = await raw_events(served, {"model": "large", "input": "a"})
        assert text.startswith(": keep-alive\n\n")
        assert types(events) == ["created", "in_progress", "error", "failed"]
        assert events[-1]["response"]["error"]["code"] == "invalid_prompt"


async def test_a_stream_that_the_gateway_breaks_off_ends_in_order() -> None:
    async def parts() -> AsyncGenerator[Part, None]:
        yield Delta([{"index": 0, "delta": {"content": "a"}}])
        yield Delta([{"index": 0, "delta": {"content": "b"}}])

    asked = Responses.read(json.dumps({"model": "small", "input": "a"}).encode())
    writer = Writer("trace", "small", pool_at("http://127.0.0.1:1/v1"))
    async with aclosing(asked.events(parts(), writer)) as events:
        sent = [await anext(events) for _ in range(2)]
        sent.append(asked.failed(shutting_down(), writer))
    told = read_events(b"".join(sent).decode())
    assert types(told) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "error",
        "failed",
    ]
    assert told[-2]["code"] == "draining"
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "a"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_call_and_books_it(
    tmp_path: Path, stream: bool
) -> None:
    mock = MockProvider(latency_s=0.0 if stream else 30.0, token_s=30)
    async with mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            body = {"model": "large", "input": "a b c", "stream": stream}
            asking = asyncio.create_task(post(served, body))
            await until(lambda: bool(mock.books))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await until(lambda: mock.books[0].end is not BookEnd.OPEN)
            await until(lambda: not served.gateway.live._running)
            await served.ledger.flush()
            (entry,) = served.ledger.entries()
    assert mock.books[0].end is BookEnd.GONE
    assert (entry.outcome, entry.cost) == (CallOutcome.UNKNOWN, entry.bound)


async def test_exact_repeats_are_kept_whichever_api_asks(tmp_path: Path) -> None:
    options = Options(cache_entries=8)
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db", options=options) as served:
            body = {"model": "small", "input": QUERY, "r2": {"cache": True}}
            _, _, first = await post(served, body)
            _, headers, again = await post(served, body)
            events = await raw_events(served, body)
            turn = {"role": "user", "content": QUERY}
            _, _, chat = await served.post(
                {"model": "small", "messages": [turn], "r2": {"cache": True}}
            )
    assert len(mock.books) == 1
    assert first["output"] == again["output"] == events[-1]["response"]["output"]
    assert again["r2"]["cached"] is chat["r2"]["cached"] is True
    assert headers["x-r2-cost"] == "0"
    assert [e["delta"] for e in events if e["type"] == "response.output_text.delta"] == [QUERY]


async def test_every_event_is_one_of_the_official_types(tmp_path: Path) -> None:
    calls = [call("a", "look_up", "{}", index=0)]
    deltas = [{"content": "So: "}, {"refusal": "no"}, {"tool_calls": calls}, {"content": "end"}]
    async with scripted(deltas) as provider, planned() as mock:
        with gateway(able_pool(provider.base_url), tmp_path / "a.db") as served:
            body = {
                "model": "medium",
                "input": [{"type": "message", "role": "user", "content": "a"}],
                "tools": [TOOL],
                "tool_choice": {"type": "function", "name": "look_up"},
                "text": {"format": {"type": "json_object"}, "verbosity": "low"},
                "reasoning": {"effort": "low", "summary": "auto"},
                "metadata": {"a": "b"},
            }
            events = await raw_events(served, body)
        with gateway(pool_at(mock.base_url), tmp_path / "b.db") as served:
            events += await raw_events(served, {"model": "r2reasoner", "input": QUERY})
            events += await raw_events(
                served, {"model": "small", "input": "a b", "max_output_tokens": 1}
            )
    for event in events:
        EVENT.validate_python(event)
    assert provider.bodies[0]["reasoning_effort"] == "low"
    assert provider.bodies[0]["verbosity"] == "low"
    assert [i["type"] for i in events[0]["response"]["output"]] == []
    ends = [
        e["response"] for e in events if e["type"] in ("response.completed", "response.incomplete")
    ]
    assert [item["type"] for item in ends[0]["output"]] == ["message", "function_call", "message"]
    assert [end["status"] for end in ends] == ["completed", "completed", "incomplete"]
    for end in ends:
        told = [e["item"] for e in events if e["type"] == "response.output_item.done"]
        assert all(item in told for item in end["output"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
RICH: dict[str, Any] = {
    "model": "medium",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "a", "name": "look_up", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "4"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "4", "annotations": []}],
        },
        {"role": "user", "content": "and now?"},
    ],
    "max_output_tokens": 9,
    "temperature": 1,
    "top_p": 0.5,
    "stream": False,
    "tools": [TOOL],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "metadata": {"a": "b"},
    "user": "me",
    "store": False,
    "truncation": "disabled",
    "include": [],
    "previous_response_id": None,
    "service_tier": "auto",
    "background": False,
    "stream_options": {"include_obfuscation": False},
    "r2": {"trade_off": 0.5},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a body that something else may stand in."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, one in inner:
        found.append((*path, key))
        if isinstance(one, dict | list):
            found += places(one, (*path, key))
    return found


def changed(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(body))
    inner: Any = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


BODIES = st.one_of(
    st.builds(changed, st.just(RICH), st.sampled_from(places(RICH)), JSON),
    st.builds(lambda fields: {**RICH, **fields}, st.dictionaries(st.text(max_size=9), JSON)),
    st.dictionaries(st.sampled_from(sorted(RICH)), JSON, max_size=4),
    JSON,
)


def test_whatever_comes_there_is_an_answer_or_an_error_in_openais_shape(tmp_path: Path) -> None:
    provider = MockProvider(answer=lambda call: "fine")
    with (
        serving(provider) as base_url,
        gateway(able_pool(base_url), tmp_path / "l.db") as served,
    ):
        asking = HTTPConnection(served.root.removeprefix("http://"), timeout=60)

        @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(body=BODIES)
        def ask(body: Any) -> None:
            headers = {"content-type": "application/json"}
            asking.request("POST", "/v1/responses", json.dumps(body).encode(), headers)
            response = asking.getresponse()
            text = response.read().decode()
            assert response.status < 500, text
            if response.status != 200:
                error = json.loads(text)["error"]
                assert error.keys() >= {"message", "type", "param", "code"}
                assert error["message"]
            elif isinstance(body, dict) and body.get("stream") is True:
                assert "event: response.completed" in text
            else:
                assert json.loads(text)["object"] == "response"

        try:
            ask()
        finally:
            asking.close()
