"""Streams: their form, errors within them, clients that are slow, silent or gone."""

import asyncio
import gc
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from starlette.types import Message

from ledger_samples import trace
from pools import pool_at
from r2reasoner.chat import DONE, Refusal
from r2reasoner.errors import CallError, CallFault
from r2reasoner.gateway.answers import Writer, choice_of
from r2reasoner.gateway.parts import Delta, Done, Part, Progress
from r2reasoner.gateway.stream import KEEP_ALIVE, EventStream, as_events, unless_gone
from r2reasoner.types import Usage

WRITER = Writer("t1", "r2reasoner", pool_at("http://127.0.0.1:9/v1"))
END = Done(
    trace=trace(),
    choices=[],
    finish=[choice_of(delta={}, finish_reason="stop")],
    usage=Usage(3, 2),
    cost=1,
    alone=2,
    notes={},
)
WORD = Delta([choice_of(delta={"content": "a"})])


async def giving(*parts: Part | Exception) -> AsyncGenerator[Part, None]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


async def told(*parts: Part | Exception, include_usage: bool = False) -> list[dict[str, Any]]:
    """Return the events of parts, after which the stream says that it is done."""
    events = as_events(giving(*parts), WRITER, include_usage=include_usage)
    *data, end = b"".join([event async for event in events]).split(b"\n\n")[:-1]
    assert end + b"\n\n" == DONE
    return [json.loads(event.removeprefix(b"data: ")) for event in data]


def deltas(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for event in events for choice in event["choices"]]


class TestEvents:
    async def test_progress_is_reasoning_and_the_role_comes_first(self) -> None:
        events = await told(Progress("one\n"), Progress("two\n"), WORD, END)
        assert deltas(events) == [
            {"role": "assistant", "content": ""},
            {"reasoning_content": "one\n"},
            {"reasoning_content": "two\n"},
            {"content": "a"},
            {},
        ]
        assert [event["r2"]["trace_id"] for event in events if "r2" in event] == [END.trace.id]

    async def test_a_role_that_a_provider_sends_is_not_sent_twice(self) -> None:
        first = Delta([choice_of(delta={"role": "assistant", "content": ""})])
        assert deltas(await told(first, WORD, END)) == [*deltas(await told(WORD, END))]

    async def test_the_bill_comes_with_the_end_so_that_every_chunk_has_a_choice(
        self,
    ) -> None:
        stop = Delta([choice_of(delta={}, finish_reason="stop")])
        events = await told(WORD, stop, replace(END, finish=[]))
        assert all(event["choices"] for event in events)
        assert events[-1]["choices"][0]["finish_reason"] == "stop"
        assert events[-1]["r2"]["trace_id"] == END.trace.id
        down = CallError(CallFault.CUT, "cut", model="m")
        *_, ended, failed = await told(WORD, stop, down)
        assert ended["choices"][0]["finish_reason"] == "stop"
        assert failed["error"]["code"] == "upstream_cut"

    async def test_usage_only_where_it_was_asked_for(self) -> None:
        assert "usage" not in (await told(WORD, END))[-1]
        last = (await told(WORD, END, include_usage=True))[-1]
        assert (last["choices"], last["usage"]["total_tokens"]) == ([], 5)

    async def test_an_error_before_the_first_event_is_raised(self) -> None:
        down = CallError(CallFault.OVERLOADED, "down", model="m")
        with pytest.raises(Refusal) as refused:
            await told(down)
        assert (refused.value.status, refused.value.code) == (503, "upstream_overloaded")

    async def test_an_error_after_it_is_the_last_event(self) -> None:
        events = await told(WORD, Refusal(402, "no more", code="insufficient_quota"))
        assert deltas(events[:-1]) == [{"role": "assistant", "content": ""}, {"content": "a"}]
        assert events[-1]["error"]["code"] == "insufficient_quota"


class Client:
    """A client that reads, or does not, and never leaves by itself."""

    def __init__(self, *, reads: bool = True) -> None:
        self.got: list[Message] = []
        self._reads = reads

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(self, message: Message) -> None:
        self.got.append(message)
        if not self._reads and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.got)


async def serve(client: Client, source: AsyncGenerator[bytes, None], **seconds: float) -> None:
    times = {"keep_alive_s": 60.0, "write_timeout_s": 60.0} | seconds
    stream = EventStream(
        source,
        {"x-r2-trace-id": "t1"},
        keep_alive_s=times["keep_alive_s"],
        write_timeout_s=times["write_timeout_s"],
    )
    await stream({"type": "http"}, client.receive, client.send)


async def slow(closed: list[str], *, fails: bool) -> AsyncGenerator[bytes, None]:
    """Give nothing for a while, then fail or say a word."""
    try:
        await asyncio.sleep(0.05)
        if fails:
            raise Refusal(502, "no model answered", code="no_answer")
        yield b"data: 1\n\n"
    finally:
        closed.append("closed")


class TestAResponse:
    async def test_an_error_before_anything_was_sent_has_its_status(self) -> None:
        client = Client()
        await serve(client, slow([], fails=True))
        assert client.got[0]["status"] == 502
        assert dict(client.got[0]["headers"])[b"x-r2-trace-id"] == b"t1"
        assert json.loads(client.body)["error"]["code"] == "no_answer"

    async def test_after_a_sign_of_life_it_is_an_event(self) -> None:
        """The status was sent with it, so the stream has to tell what went wrong."""
        client = Client()
        await serve(client, slow([], fails=True), keep_alive_s=0.01)
        assert client.got[0]["status"] == 200
        assert client.body.startswith(KEEP_ALIVE)
        assert b'"no_answer"' in client.body
        assert client.body.endswith(DONE)
        assert client.got[-1]["more_body"] is False

    async def test_who_does_not_read_is_let_go_and_the_work_is_ended(self) -> None:
        client, closed = Client(reads=False), list[str]()
        await serve(client, slow(closed, fails=False), write_timeout_s=0.05)
        assert closed == ["closed"]
        assert all(message.get("more_body", True) for message in client.got)

    async def test_its_headers_keep_proxies_from_holding_it_back(self) -> None:
        client = Client()
        await serve(client, slow([], fails=False))
        headers = dict(client.got[0]["headers"])
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert headers[b"cache-control"] == b"no-cache"
        assert headers[b"x-accel-buffering"] == b"no"
        assert client.body == b"data: 1\n\n"


class TestUnlessGone:
    async def test_what_the_work_returns_or_raises(self) -> None:
        async def work(*, fails: bool) -> str:
            await asyncio.sleep(0)
            if fails:
                raise Refusal(400, "no")
            return "done"

        client = Client()
        assert await unless_gone(client.receive, work(fails=False)) == "done"
        with pytest.raises(Refusal):
            await unless_gone(client.receive, work(fails=True))

    async def test_a_client_that_leaves_ends_it_and_nothing_else(self) -> None:
        ended: list[str] = []

        async def leaving() -> Message:
            await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        assert await unless_gone(leaving, work()) is None
        assert ended == ["cancelled"]
        here = asyncio.current_task()
        assert here is not None
        assert here.cancelling() == 0
        await asyncio.sleep(0)

    async def test_who_waits_for_it_can_be_cancelled(self) -> None:
        waiting = asyncio.create_task(unless_gone(Client().receive, asyncio.sleep(60)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_an_error_at_the_moment_that_the_client_leaves_is_nobodys() -> None:
    complaints: list[dict[str, Any]] = []
    sent: list[Message] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))

    async def failing() -> AsyncGenerator[bytes, None]:
        raise Refusal(502, "no model answered")
        yield b""

    async def leaving() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    stream = EventStream(failing(), {}, keep_alive_s=60, write_timeout_s=60)
    await stream({"type": "http"}, leaving, send)
    gc.collect()
    assert (sent, complaints) == ([], [])
