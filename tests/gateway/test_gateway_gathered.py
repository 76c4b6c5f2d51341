"""A stream put together is the answer that would have come whole."""

from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessageParam

from gateways import gateway
from pools import pool_at
from r2reasoner.gateway.gateway import Options
from r2reasoner.gateway.gathered import Gathered
from r2reasoner.mock import MockProvider

TURN: list[ChatCompletionMessageParam] = [{"role": "user", "content": "a b c"}]
KEPT = {"r2": {"cache": True}}


def delta(index: int = 0, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "finish_reason": finish}


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=4)), max_size=12))
def test_texts_are_joined_by_choice(pieces: list[tuple[int, str]]) -> None:
    gathered = Gathered()
    for index, text in pieces:
        gathered.take([delta(index, content=text)])
    gathered.take([delta(index, "stop") for index in {index for index, _ in pieces}])
    said = {index: "".join(t for i, t in pieces if i == index) for index, _ in pieces}
    assert {c["index"]: c["message"]["content"] or "" for c in gathered.whole()} == said
    assert all(choice["finish_reason"] == "stop" for choice in gathered.whole())


def test_tool_calls_are_joined_by_index() -> None:
    gathered = Gathered()
    first = {"index": 0, "id": "c0", "function": {"name": "look_up", "arguments": '{"a"'}}
    other = {"index": 1, "id": "c1", "function": {"name": "add", "arguments": "{}"}}
    gathered.take([delta(tool_calls=[first])])
    gathered.take([delta(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}, other])])
    gathered.take([delta(finish="tool_calls")])
    (choice,) = gathered.whole()
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert [c["function"] for c in choice["message"]["tool_calls"]] == [
        {"name": "look_up", "arguments": '{"a": 1}'},
        {"name": "add", "arguments": "{}"},
    ]


@pytest.mark.parametrize(
    "calls",
    [
        5,
        [5],
        [{"index": []}],
        [{"index": None, "id": "c0", "function": 5}],
        [{"function": {"name": "add", "arguments": {"a": 1}}}],
    ],
)
def test_calls_that_are_none_are_not_gathered_and_break_nothing(calls: Any) -> None:
    gathered = Gathered()
    gathered.take([delta(tool_calls=calls, content="a")])
    (choice,) = gathered.whole()
    assert choice["message"]["content"] == "a"
    for call in choice["message"].get("tool_calls", ()):
        assert call["function"]["arguments"] == ""


async def test_a_direct_stream_is_kept_and_given_again(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        options = Options(cache_entries=4)
        with gateway(pool_at(mock.base_url), tmp_path / "l.db", options=options) as served:
            async with served.client() as client:
                texts = [await streamed(client) for _ in range(2)]
                whole = await client.chat.completions.create(
                    model="small", messages=TURN, extra_body=KEPT
                )
    assert texts == ["a b c", "a b c"]
    assert whole.choices[0].message.content == "a b c"
    assert len(mock.books) == 1


async def streamed(client: openai.AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(
        model="small", messages=TURN, stream=True, extra_body=KEPT
    )
    chunks = [chunk async for chunk in stream]
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
