"""Requests that are passed on as they came: what is sent, what it may cost, what comes back."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pools import NoJitter, card_at
from r2reasoner.budget import Meter
from r2reasoner.client import Completion, PoolClient, Relayed
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.client.relay import IMAGE_TOKENS
from r2reasoner.errors import CallError
from r2reasoner.ledger import Ledger
from r2reasoner.mock import Fault, MockProvider
from r2reasoner.mock.answers import read_call
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import CallOutcome

USER = {"role": "user", "content": "a b c"}
CARD = card_at("http://127.0.0.1:9/v1", "small")


def relayed(**more: Any) -> Relayed:
    fields = more.pop("fields", {"messages": [USER]})
    return Relayed(**{"fields": fields, "max_tokens": 20} | more)


@pytest.fixture
async def client() -> AsyncIterator[OpenAIClient]:
    opened = OpenAIClient(NoJitter())
    yield opened
    await opened.close()


def test_model_limit_and_streaming_are_not_the_callers_to_choose() -> None:
    forged = {"messages": [USER], "model": "other", "temperature": 1, "stream": True, "top_p": 1}
    body = json.loads(relayed(fields=forged).encode(CARD, stream=True))
    assert (body["model"], body["max_tokens"], body["top_p"]) == ("small", 20, 1)
    assert body["stream_options"] == {"include_usage": True}
    fixed = replace(CARD, capabilities=frozenset({"fixed_temperature", "max_completion_tokens"}))
    body = json.loads(relayed(fields=forged).encode(fixed, stream=False))
    assert "temperature" not in body
    assert body["max_completion_tokens"] == 20


def test_a_key_for_the_cache_is_sent_to_who_takes_it() -> None:
    request = relayed(cache_key="abc")
    able = replace(CARD, capabilities=frozenset({"prompt_cache_key"}))
    assert json.loads(request.encode(able, stream=True))["prompt_cache_key"] == "abc"
    assert "prompt_cache_key" not in json.loads(request.encode(CARD, stream=True))
    assert "prompt_cache_key" not in json.loads(relayed().encode(able, stream=True))


@given(text=st.text(), choices=st.integers(1, 9))
def test_the_bound_is_above_what_is_counted(text: str, choices: int) -> None:
    request = relayed(fields={"messages": [{"role": "user", "content": text}]}, choices=choices)
    bound = request.bound(CARD)
    assert bound.output_tokens == 20 * choices
    call = read_call(request.encode(CARD, stream=False), 1, None)
    assert bound.input_tokens >= max(call.input_tokens, len(text.encode("utf-8", "replace")))


def test_images_are_counted_apart_from_their_bytes() -> None:
    def asked(url: str, **more: str) -> int:
        image = {"type": "image_url", "image_url": {"url": url}, **more}
        message = {"role": "user", "content": [image, {"type": "text", "text": "?"}]}
        return relayed(fields={"messages": [message]}).bound(CARD).input_tokens

    small, large = asked("data:image/png;base64,"), asked("data:image/png;base64," + "A" * 99_999)
    assert small == large > IMAGE_TOKENS
    assert asked("", hidden="x" * 5000) >= small + 5000


async def answers(client: OpenAIClient, card: Card, ledger: Ledger, *, stream: bool) -> list[Any]:
    """Return the endpoint's objects, then the Completion."""
    meter = Meter(ledger, "q")
    if not stream:
        return [*await client.pass_on(card, relayed(), meter)]
    async with aclosing(client.relay(card, relayed(), meter)) as parts:
        return [part async for part in parts]


async def test_whole_and_streamed(client: OpenAIClient, ledger: Ledger) -> None:
    async with MockProvider() as mock:
        card = card_at(mock.base_url, "small")
        for stream in (False, True):
            *objects, last = await answers(client, card, ledger, stream=stream)
            assert isinstance(last, Completion)
            assert last.text == "a b c"
            assert (len(objects) > 3) == stream
        await ledger.flush()
        entries = ledger.entries()
    assert [e.usage for e in entries] == [b.usage for b in mock.books]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_call_is_an_answer(client: OpenAIClient, ledger: Ledger, stream: bool) -> None:
    async with MockProvider(faults=[Fault.TOOL_CALL]) as mock:
        card = card_at(mock.base_url, "small")
        *objects, last = await answers(client, card, ledger, stream=stream)
    assert "look_up" in json.dumps(objects)
    assert isinstance(last, Completion)


@pytest.mark.parametrize(
    "fault", [Fault.NO_DONE, Fault.RESET_MID_CHUNK, Fault.GARBAGE_JSON, Fault.HTML]
)
async def test_what_is_no_whole_answer_is_an_error(
    client: OpenAIClient, ledger: Ledger, fault: Fault
) -> None:
    async with MockProvider(faults=[fault]) as mock:
        card = card_at(mock.base_url, "small")
        with pytest.raises(CallError):
            await answers(client, card, ledger, stream=True)
        await ledger.flush()
        (entry,) = ledger.entries()
    assert entry.outcome in (CallOutcome.OK, CallOutcome.UNKNOWN)


async def test_a_model_in_process_has_no_such_road(nano: Pool, ledger: Ledger) -> None:
    client = PoolClient()
    with pytest.raises(CallError, match="in process"):
        await client.pass_on(nano.strongest, relayed(), Meter(ledger, "q"))
    with pytest.raises(CallError, match="in process"):
        await anext(client.relay(nano.strongest, relayed(), Meter(ledger, "q")))
    await client.close()
