"""What a body of /v1/responses is read as, and what is refused, without a socket."""

import json
from typing import Any

import pytest

from r2reasoner.chat import Refusal
from r2reasoner.gateway.responses_wire import read_response_request
from r2reasoner.gateway.wire import MOST_DEPTH, MOST_MESSAGES, Asked, read_asked

USER = {"role": "user", "content": "hello"}
CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "a", "output": "4"}
IMAGE = "data:image/png;base64,AA=="
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def read(**more: Any) -> tuple[Asked, dict[str, Any]]:
    body = {"model": "r2reasoner", "input": "hello"} | more
    return read_response_request(json.dumps(body).encode())


def chat(**more: Any) -> Asked:
    return read_asked(json.dumps({"model": "r2reasoner", "messages": [USER]} | more).encode())


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ({}, {}),
        ({"input": [USER]}, {}),
        ({"input": [{"type": "message", **USER}]}, {}),
        (
            {"instructions": "be brief", "max_output_tokens": 9},
            {"messages": [{"role": "system", "content": "be brief"}, USER], "max_tokens": 9},
        ),
        (
            {"temperature": 0.5, "top_p": 0.5, "stream": True, "r2": {"trade_off": 1}},
            {"temperature": 0.5, "top_p": 0.5, "stream": True, "r2": {"trade_off": 1}},
        ),
        (
            {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
            {"response_format": {"type": "json_object"}, "verbosity": "low"},
        ),
        (
            {
                "text": {
                    "format": {"type": "json_schema", "name": "x", "schema": {}, "strict": None}
                }
            },
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {}},
                }
            },
        ),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"type": "object"}},
                    }
                ],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
        ),
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
        (
            {
                "input": [
                    USER,
                    {
                        "type": "message",
                        "id": "msg_1",
                        "status": "completed",
                        "role": "assistant",
                        "content": [
                            {"type": "output_text", "text": "a", "annotations": []},
                            {"type": "refusal", "refusal": "b"},
                        ],
                    },
                    CALL,
                    {"type": "reasoning", "id": "rs_1", "summary": []},
                    CALL | {"call_id": "b"},
                    OUTPUT | {"call_id": "b", "output": [{"type": "input_text", "text": "5"}]},
                    OUTPUT,
                ]
            },
            {
                "messages": [
                    USER,
                    {
                        "role": "assistant",
                        "content": "ab",
                        "tool_calls": [
                            {
                                "id": name,
                                "type": "function",
                                "function": {"name": "f", "arguments": "{}"},
                            }
                            for name in ("a", "b")
                        ],
                    },
                    {"role": "tool", "tool_call_id": "b", "content": "5"},
                    {"role": "tool", "tool_call_id": "a", "content": "4"},
                ]
            },
        ),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]},
                ]
            },
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": IMAGE}}],
                    },
                ]
            },
        ),
    ],
)
def test_it_asks_what_a_chat_completion_would(asked: dict[str, Any], same: dict[str, Any]) -> None:
    assert read(**asked)[0] == chat(**same)


def test_what_a_response_repeats() -> None:
    _, bare = read()
    assert bare["store"] is bare["background"] is False
    assert bare["text"] == {"format": {"type": "text"}}
    assert (bare["tools"], bare["tool_choice"], bare["parallel_tool_calls"]) == ([], "auto", True)
    assert bare["metadata"] == {}
    _, full = read(tools=[TOOL], instructions="be brief", text={"verbosity": "low"}, top_p=0.5)
    assert full["tools"] == [TOOL | {"description": None, "strict": False}]
    assert (full["instructions"], full["top_p"]) == ("be brief", 0.5)
    assert full["text"] == {"format": {"type": "text"}, "verbosity": "low"}


@pytest.mark.parametrize(
    "nothing",
    [
        {"background": False, "store": False, "truncation": "disabled", "include": []},
        {"previous_response_id": None, "conversation": None, "prompt": None, "store": None},
        {"service_tier": "auto", "top_logprobs": 0, "stream_options": {}},
        {"service_tier": "default", "stream_options": {"include_obfuscation": False}},
        {"user": "me", "metadata": {"a": "b"}, "safety_identifier": "x", "prompt_cache_key": "y"},
    ],
)
def test_what_says_nothing_is_taken(nothing: dict[str, Any]) -> None:
    assert read(**nothing)[0] == chat()


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [USER] * (MOST_MESSAGES + 1)}, "input"),
        ({"input": [{"role": "system", "content": "a"}]}, "input"),
        ({"input": ["a"]}, "input[0]"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0]"),
        ({"input": [{"role": ["user"], "content": "a"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0]",
        ),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "file:///etc"}],
                    }
                ]
            },
            "input[0].content[0].image_url",
        ),
        ({"input": [USER, {"type": "item_reference", "id": "msg_1"}]}, "input[1]"),
        ({"input": [USER, {"type": "web_search_call", "id": "ws_1"}]}, "input[1]"),
        ({"input": [USER, CALL]}, "input[1]"),
        ({"input": [USER, OUTPUT]}, "input[1].call_id"),
        ({"input": [USER, CALL | {"arguments": {}}, OUTPUT]}, "input[1].arguments"),
        ({"input": [USER, CALL | {"call_id": None}]}, "input[1].call_id"),
        (
            {
                "input": [
                    USER,
                    CALL,
                    OUTPUT | {"output": [{"type": "input_image", "image_url": IMAGE}]},
                ]
            },
            "input[2].output",
        ),
        ({"instructions": ["a"]}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 3}, "top_p"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"tools": "f"}, "tools"),
        ({"tools": False}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "mcp", "server_url": "http://example.org"}]}, "tools[0]"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [TOOL | {"parameters": []}]}, "tools[0].parameters"),
        ({"tools": [TOOL] * 129}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"text": "a"}, "text"),
        ({"text": {"size": 1}}, "text.size"),
        ({"text": {"verbosity": 7}}, "text.verbosity"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"name": "x"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "text", "name": "x"}}}, "text.format.name"),
        ({"reasoning": {"effort": 7}}, "reasoning.effort"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"budget": 7}}, "reasoning.budget"),
        ({"metadata": "a"}, "metadata"),
        ({"store": True}, "store"),
        ({"store": 0}, "store"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"messages": [USER]}, "messages"),
        ({"base_url": "http://example.org"}, "base_url"),
        ({"r2": {"dial": 1}}, "r2"),
        ({"r2": {"deadline_s": 0}}, "r2.deadline_s"),
    ],
)
def test_what_is_wrong_is_named_as_it_is_called_here(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as error:
        read(**more)
    assert error.value.status == 400
    assert error.value.param == param
    assert param in str(error.value)


@pytest.mark.parametrize("field", ["input", "instructions", "metadata", "text", "conversation"])
def test_deep_nesting_is_refused_wherever_it_stands(field: str) -> None:
    deep: Any = "end"
    for _ in range(MOST_DEPTH):
        deep = [deep]
    with pytest.raises(Refusal, match="nested"):
        read(**{field: deep})
