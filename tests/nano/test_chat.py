"""OpenAI's chat format from the server's side, without a socket or a model."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2reasoner.chat import Refusal, error_object
from r2reasoner.client.wire import StreamReader, read_answer
from r2reasoner.nano.chat import Ask, Reply, read_ask
from r2reasoner.types import Message, Usage

USER = {"role": "user", "content": "walk left"}
TEXTS = st.lists(st.sampled_from(["I_WALK", "42", "#1", ";", " ", "\n"])).map(" ".join)


def body(**more: Any) -> bytes:
    return json.dumps({"model": "64x2", "messages": [USER]} | more).encode()


def test_a_bare_request_has_defaults() -> None:
    assert read_ask(body()) == Ask(
        model="64x2",
        messages=(Message("user", "walk left"),),
        max_tokens=None,
        stop=(),
        rank=0,
        stream=False,
        include_usage=False,
        logprobs=False,
    )


def test_every_field_is_read() -> None:
    ask = read_ask(
        body(
            max_completion_tokens=7,
            temperature=0.7,
            top_p=0.5,
            n=1,
            stop=["a", "b"],
            r2_rank=2,
            stream=True,
            stream_options={"include_usage": True},
            response_format={"type": "text"},
            logprobs=True,
            user="me",
        )
    )
    assert ask.logprobs
    assert (ask.max_tokens, ask.stop, ask.rank) == (7, ("a", "b"), 2)
    assert (ask.stream, ask.include_usage) == (True, True)
    assert read_ask(body(stop="end")).stop == ("end",)


def test_a_limit_by_both_names_is_refused() -> None:
    with pytest.raises(Refusal, match="expected one of them"):
        read_ask(body(max_tokens=9, max_completion_tokens=7))


def test_null_is_the_default() -> None:
    fields = ("max_tokens", "temperature", "n", "stop", "r2_rank", "stream", "stream_options")
    assert read_ask(body(**dict.fromkeys(fields))) == read_ask(body())


def test_messages_come_in_all_of_openais_forms() -> None:
    parts = [{"type": "text", "text": "walk "}, {"type": "text", "text": "left"}]
    ask = read_ask(
        body(
            messages=[
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": parts},
                {"role": "assistant", "content": "I_WALK", "name": "x"},
                USER,
            ]
        )
    )
    assert [m.role for m in ask.messages] == ["system", "user", "assistant", "user"]
    assert ask.messages[1].content == "walk left"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "walk"}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1]"),
        ({"messages": [["user", "x"]]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
        ),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"r2_rank": -1}, "r2_rank"),
        ({"r2_rank": 99}, "r2_rank"),
        ({"stream": "yes"}, "stream"),
        ({"logprobs": 1}, "logprobs"),
        ({"stream_options": 1}, "stream_options"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": "json"}, "response_format"),
        ({"tools": [{}]}, "tools"),
    ],
)
def test_what_is_wrong_is_refused_by_name(wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_ask(body(**wrong))
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model": "m"}']
)
def test_what_is_no_request_is_refused(raw: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_ask(raw)
    assert refused.value.status == 400


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just(USER),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["model", "messages", "n", "stop", "stream_options", "role", "content"]
                ),
                inner,
                max_size=5,
            )
        ),
    )
)
def test_any_json_is_a_request_or_refused(value: Any) -> None:
    with suppress(Refusal):
        assert read_ask(json.dumps(value).encode()).messages


def reply(text: str) -> Reply:
    return Reply(
        id="chatcmpl-1",
        created=1,
        model="64x2",
        text=text,
        finish_reason="stop",
        usage=Usage(3, 4),
    )


@given(TEXTS.filter(lambda t: bool(t.strip())), st.booleans())
def test_our_own_client_reads_both_forms_alike(text: str, include_usage: bool) -> None:
    whole = read_answer(json.dumps(reply(text).as_object()).encode())
    reader = StreamReader()
    events = b"".join(reply(text).as_events(include_usage=include_usage))
    pieces = reader.feed(events)
    streamed = reader.reply()
    assert "".join(pieces) == streamed.text == whole.text == text
    assert whole.fault is streamed.fault is None
    assert whole.finish_reason == streamed.finish_reason == "stop"
    assert whole.usage == Usage(3, 4)
    assert streamed.usage == (Usage(3, 4) if include_usage else None)


def test_log_probabilities_come_in_both_forms() -> None:
    sure = replace(reply("4 2"), tokens=("4", "2"), logprobs=(-0.5, -1.0))
    assert read_answer(json.dumps(sure.as_object()).encode()).logprob == -0.75
    reader = StreamReader()
    reader.feed(b"".join(sure.as_events(include_usage=False)))
    assert reader.reply().logprob == -0.75


def test_an_empty_answer_is_still_a_whole_stream() -> None:
    events = list(reply("").as_events(include_usage=True))
    assert len(events) == 4
    assert events[-1] == b"data: [DONE]\n\n"


def test_errors_have_openais_shape() -> None:
    assert error_object(404, "no", "model_not_found", "model") == {
        "error": {
            "message": "no",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    assert error_object(500, "no")["error"]["type"] == "server_error"
