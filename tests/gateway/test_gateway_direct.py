"""One model answers: what it is sent, who stands by, what is kept of what went wrong."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest

from gateways import Served, able_pool, gateway
from pools import pool_at
from r2reasoner.gateway.direct import BROKEN_OFF
from r2reasoner.mock import ChatCall, Fault, MockProvider
from r2reasoner.pool.cards import Pool
from r2reasoner.types import AnswerStatus, CallOutcome

USER = {"role": "user", "content": "a b c"}
AS_JSON = {"response_format": {"type": "json_object"}}


async def streamed(served: Served, **body: Any) -> tuple[str, list[dict[str, Any]]]:
    """Return a stream's trace id and its events."""
    import aiohttp

    asked = {"messages": [USER], **body, "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{served.base_url}/chat/completions", json=asked) as response,
    ):
        lines = (await response.text()).splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    return response.headers["x-r2-trace-id"], [json.loads(event) for event in data]


def joined(events: list[dict[str, Any]], field: str, index: int = 0) -> str:
    """Return what one choice's deltas say in a field."""
    deltas = [c["delta"] for e in events for c in e.get("choices", ()) if c["index"] == index]
    return "".join(delta.get(field) or "" for delta in deltas)


async def test_what_the_model_is_sent_and_what_stays_here(tmp_path: Path) -> None:
    seen: list[ChatCall] = []

    def answer(call: ChatCall) -> str:
        seen.append(call)
        return "a"

    messages = [
        {"role": "developer", "content": "be brief", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "a b c"}]},
    ]
    async with MockProvider(answer=answer) as mock:
        pool = able_pool(mock.base_url, context=40)
        with gateway(pool, tmp_path / "l.db") as served:
            await served.post(
                {
                    "model": "medium",
                    "messages": messages,
                    "max_completion_tokens": 10_000,
                    "seed": 7,
                    "top_p": 0.5,
                    "user": "me",
                    "metadata": {"a": "b"},
                    "r2": {"trade_off": 1},
                    **AS_JSON,
                }
            )
    (call,) = seen
    assert call.role == "worker"
    assert call.body == {
        "model": "medium",
        "messages": messages,
        "max_tokens": 40,
        "seed": 7,
        "top_p": 0.5,
        **AS_JSON,
    }


async def test_what_the_strongest_would_have_cost_is_for_as_many_tokens(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            _, _, answer = await served.post({"model": "small", "messages": [USER]})
    block, usage = answer["r2"], answer["usage"]
    rates = {"small": Decimal("1e-6"), "large": Decimal("1e-4")}
    assert Decimal(block["cost"]) == usage["total_tokens"] * rates["small"]
    assert Decimal(block["strongest_alone_estimate"]) == usage["total_tokens"] * rates["large"]


async def test_who_stands_by_is_named_in_the_stream(tmp_path: Path) -> None:
    down = lambda call: Fault.UNAVAILABLE if call.model == "medium" else None  # noqa: E731
    async with MockProvider(faults=down) as mock:
        with gateway(able_pool(mock.base_url), tmp_path / "l.db") as served:
            trace_id, events = await streamed(served, model="r2reasoner:1", **AS_JSON)
            trace = await served.trace(trace_id)
    assert joined(events, "content") == "a b c"
    assert "medium gave no answer, asking large" in joined(events, "reasoning_content")
    assert trace.steps[0].fell_back_from == ("medium",)
    assert trace.answer.text == "a b c"


async def test_after_the_first_word_nobody_else_is_asked(tmp_path: Path) -> None:
    async with MockProvider(faults=[Fault.RESET_MID_CHUNK]) as mock:
        with gateway(able_pool(mock.base_url), tmp_path / "l.db") as served:
            trace_id, events = await streamed(served, model="r2reasoner:1", **AS_JSON)
            trace = await served.trace(trace_id)
    assert {book.model for book in mock.books} == {"medium"}
    assert events[-1]["error"]["code"].startswith("upstream_")
    assert trace.answer.status is AnswerStatus.FAILED
    assert "a b c".startswith(trace.answer.text)
    assert trace.answer.note == events[-1]["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_when_nobody_answers_the_last_error_is_told(tmp_path: Path, stream: bool) -> None:
    async with MockProvider(faults=lambda call: Fault.BAD_REQUEST) as mock:
        with gateway(able_pool(mock.base_url), tmp_path / "l.db") as served:
            body = {"model": "r2reasoner:1", "messages": [USER], **AS_JSON}
            if stream:
                trace_id, events = await streamed(served, **body)
                error = events[-1]["error"]
            else:
                status, headers, told = await served.post(body)
                assert status == 400
                trace_id, error = headers["x-r2-trace-id"], told["error"]
            trace = await served.trace(trace_id)
    assert [book.model for book in mock.books] == ["medium", "large"]
    assert error["code"] == "upstream_bad_request"
    assert "large" in error["message"]
    assert trace.steps[0].fell_back_from == ("medium", "large")
    assert (trace.steps[0].model, trace.answer.status) == (None, AnswerStatus.FAILED)


async def test_the_time_is_over(tmp_path: Path) -> None:
    async with MockProvider(latency_s=30) as mock:
        with gateway(able_pool(mock.base_url), tmp_path / "l.db") as served:
            wish = {"r2": {"deadline_s": 0.2}}
            body = {"model": "r2reasoner:1", "messages": [USER], **AS_JSON, **wish}
            status, headers, error = await served.post(body)
            trace = await served.trace(headers["x-r2-trace-id"])
            (entry,) = served.ledger.entries()
    assert (status, error["error"]["code"]) == (504, "deadline_exceeded")
    assert len(mock.books) == 1
    assert trace.answer.status is AnswerStatus.FAILED
    assert (entry.outcome, entry.cost) == (CallOutcome.UNKNOWN, entry.bound)


async def test_the_money_does_not_reach(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            body = {"model": "large", "messages": [USER], "r2": {"max_cost": "0.0001"}}
            status, headers, error = await served.post(body)
            trace = await served.trace(headers["x-r2-trace-id"])
    assert (status, error["error"]["code"]) == (402, "budget_exceeded")
    assert mock.books == []
    assert trace.calls == ()


@pytest.mark.parametrize("stream", [False, True])
async def test_of_several_choices_the_trace_keeps_the_first(tmp_path: Path, stream: bool) -> None:
    async with MockProvider() as mock:
        with gateway(able_pool(mock.base_url), tmp_path / "l.db") as served:
            body = {"model": "medium", "n": 3, "messages": [USER]}
            if stream:
                trace_id, events = await streamed(served, **body)
                texts = [joined(events, "content", index) for index in range(3)]
            else:
                _, headers, answer = await served.post(body)
                trace_id = headers["x-r2-trace-id"]
                texts = [choice["message"]["content"] for choice in answer["choices"]]
            trace = await served.trace(trace_id)
    assert texts == ["a b c"] * 3
    assert trace.answer.text == "a b c"


async def test_a_model_in_process_streams_as_others_do(nano: Pool, tmp_path: Path) -> None:
    strongest = nano.strongest.name
    asked = {"model": strongest, "messages": [{"role": "user", "content": "walk left twice"}]}
    with gateway(nano, tmp_path / "l.db") as served:
        _, _, whole = await served.post(asked)
        _, events = await streamed(served, **asked)
        _, stopped = await streamed(served, **asked, stop="I_WALK")
        _, cut = await streamed(served, **asked, max_tokens=1)
    text = whole["choices"][0]["message"]["content"]
    assert joined(events, "content") == text == "I_TURN_LEFT I_WALK I_TURN_LEFT I_WALK"
    assert joined(stopped, "content") == "I_TURN_LEFT "
    reasons = [
        next(c["finish_reason"] for e in got for c in e["choices"] if c["finish_reason"])
        for got in (events, stopped, cut)
    ]
    assert reasons == ["stop", "stop", "length"]


async def test_many_at_once_keep_their_answers_apart(tmp_path: Path) -> None:
    async with MockProvider(latency_s=0.02) as mock:
        with gateway(able_pool(mock.base_url), tmp_path / "l.db") as served:
            ends = await asyncio.gather(
                *(
                    streamed(
                        served, model="medium", messages=[{"role": "user", "content": f"no. {n}"}]
                    )
                    for n in range(40)
                )
            )
    assert [joined(events, "content") for _, events in ends] == [f"no. {n}" for n in range(40)]
    assert len({trace_id for trace_id, _ in ends}) == len(mock.books) == 40


@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_client_left_has_a_trace_too(tmp_path: Path, stream: bool) -> None:
    async with MockProvider(faults=[Fault.STALL_MID_STREAM], latency_s=0.2) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            async with served.client(timeout=0.1 if not stream else 30) as client:
                asked: Any = {"model": "small", "messages": [USER]}
                if stream:
                    answer = await client.chat.completions.create(**asked, stream=True)
                    await anext(aiter(answer))
                    await answer.close()
                else:
                    with pytest.raises(openai.APITimeoutError):
                        await client.chat.completions.create(**asked)
            async with asyncio.timeout(30):
                while not served.ledger.traces():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            (summary,) = served.ledger.traces()
            trace = await served.trace(summary.id)
            (entry,) = served.ledger.entries()
    assert trace.answer.note == BROKEN_OFF
    assert trace.answer.status in (AnswerStatus.PARTIAL, AnswerStatus.FAILED)
    assert [call.id for call in trace.calls] == [entry.id]
    assert entry.outcome is not CallOutcome.OPEN
