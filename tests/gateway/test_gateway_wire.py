"""What a body is read as, and what is refused, without a socket."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.chat import Refusal
from r2reasoner.gateway.wire import MOST_DEPTH, MOST_MESSAGES, Asked, Wish, read_asked
from r2reasoner.types import Message

USER = {"role": "user", "content": "hello"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def body(**more: Any) -> bytes:
    return json.dumps({"model": "r2reasoner", "messages": [USER]} | more).encode()


def test_a_bare_request_has_defaults() -> None:
    asked = read_asked(body())
    assert asked == Asked(
        model="r2reasoner",
        text="hello",
        earlier=(),
        forward={"messages": [USER]},
        needs=frozenset(),
        wish=Wish(),
        max_tokens=None,
        temperature=None,
        stop=(),
        choices=1,
        stream=False,
        include_usage=False,
    )


def test_the_last_user_turn_is_the_query_and_the_rest_is_said_before() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one"}]},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "well,"},
    ]
    asked = read_asked(body(messages=messages))
    assert asked.text == "two"
    assert asked.earlier == (
        Message("system", "be brief"),
        Message("user", "one"),
        Message("assistant", "1"),
        Message("assistant", "well,"),
    )


def test_what_is_passed_on_and_what_is_not() -> None:
    asked = read_asked(
        body(
            top_p=0.5,
            seed=7,
            user="me",
            metadata={"a": "b"},
            max_completion_tokens=9,
            stop="end",
            temperature=1,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert asked.forward.keys() == {"messages", "top_p", "seed", "stop", "temperature"}
    assert asked.ignored == ("seed", "top_p")
    assert (asked.max_tokens, asked.stop, asked.temperature) == (9, ("end",), 1.0)
    assert (asked.stream, asked.include_usage) == (True, True)


def test_a_limit_that_is_null_leaves_the_other_to_hold() -> None:
    asked = read_asked(body(max_completion_tokens=None, max_tokens=5))
    assert asked.max_tokens == 5
    assert asked.forward.keys() == {"messages"}


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {"tools"}),
        ({"tools": [], "n": 1, "response_format": {"type": "text"}, "logprobs": False}, set()),
        ({"response_format": {"type": "json_object"}}, {"json"}),
        ({"n": 2, "logprobs": True, "logit_bias": {"1": 5}}, {"n", "logprobs", "logit_bias"}),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, {"images"}),
        ({"messages": [USER, {"role": "tool", "content": "4", "tool_call_id": "a"}]}, {"tools"}),
    ],
)
def test_what_a_model_must_be_able_to_do(more: dict[str, Any], needs: set[str]) -> None:
    assert read_asked(body(**more)).needs == needs


def test_the_r2_field() -> None:
    wish = {"trade_off": 0.7, "max_cost": "0.05", "deadline_s": 9, "direct": True, "cache": True}
    assert read_asked(body(r2=wish)).wish == Wish(
        trade_off=0.7, max_cost=Decimal("0.05"), deadline_s=9.0, direct=True, cache=True
    )
    assert read_asked(body(r2={"max_cost": 0.1})).wish.max_cost == Decimal("0.1")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [USER] * (MOST_MESSAGES + 1)}, "messages"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        ({"messages": ["a"]}, "messages[0]"),
        ({"messages": [{"role": "boss", "content": "a"}]}, "messages[0]"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}],
                    }
                ]
            },
            "messages[0].content",
        ),
        ({"messages": [USER | {"tool_calls": 5}]}, "messages[0].tool_calls"),
        ({"messages": [USER | {"tool_calls": [5]}]}, "messages[0].tool_calls"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 9, "max_completion_tokens": 9}, "max_tokens"),
        ({"max_completion_tokens": 0, "max_tokens": None}, "max_completion_tokens"),
        ({"stop": False}, "stop"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"function_call": ["f"]}, "function_call"),
        ({"prompt_cache_key": 5}, "prompt_cache_key"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"tools": "f"}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"top_p": 7}, "top_p"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"base_url": "http://example.org"}, "base_url"),
        ({"r2": []}, "r2"),
        ({"r2": {"dial": 1}}, "r2"),
        ({"r2": {"trade_off": 2}}, "r2.trade_off"),
        ({"r2": {"max_cost": 0}}, "r2.max_cost"),
        ({"r2": {"max_cost": "nan"}}, "r2.max_cost"),
        ({"r2": {"max_cost": "1e400"}}, "r2.max_cost"),
        ({"r2": {"deadline_s": 0}}, "r2.deadline_s"),
        ({"r2": {"direct": 1}}, "r2.direct"),
    ],
)
def test_what_is_wrong_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as error:
        read_asked(body(**more))
    assert error.value.status == 400
    assert error.value.param == param


def test_deep_nesting_is_refused() -> None:
    deep: Any = "end"
    for _ in range(MOST_DEPTH):
        deep = [deep]
    with pytest.raises(Refusal, match="nested"):
        read_asked(body(logit_bias={"a": deep}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "model",
        "messages",
        "n",
        "stop",
        "stream",
        "r2",
        "tools",
        "response_format",
        "max_tokens",
        "temperature",
        "logprobs",
    ]
)


@given(changes=st.dictionaries(FIELDS, JSON, max_size=4))
def test_whatever_comes_it_is_read_or_refused(changes: dict[str, Any]) -> None:
    said: Asked | Refusal
    try:
        said = read_asked(body(**changes))
    except Refusal as refusal:
        said = refusal
    assert isinstance(said, Asked) or (said.status == 400 and str(said))


@given(raw=st.binary(max_size=200))
def test_whatever_bytes_come(raw: bytes) -> None:
    with pytest.raises(Refusal):
        read_asked(raw)
