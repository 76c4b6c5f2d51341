"""A body of /v1/responses -> the chat body that asks the same, and what its answer repeats of it.

`wire.py` stays the one checker of what both APIs have. What needs memory of earlier responses, or
tools that run at OpenAI, is refused, and so is every field that is not known. Pure functions;
raises `chat.Refusal` and nothing else.
"""

from collections.abc import Mapping
from typing import Any, Final

from r2reasoner.chat import Refusal, read_flag, read_mapping, read_text, wrong
from r2reasoner.gateway.wire import Asked, asked_of, is_image_part, read_shallow, refuse_unknown

_STATELESS: Final = "nothing is stored here, so the earlier items go into input"
ONLY: Final[Mapping[str, tuple[tuple[Any, ...], str]]] = {
    "background": ((False,), "an answer is made while its client waits"),
    "conversation": ((), _STATELESS),
    "include": (([],), "there is nothing more to include"),
    "previous_response_id": ((), _STATELESS),
    "prompt": ((), "no prompts are stored here"),
    "service_tier": (("auto", "default"), "others change what a token costs"),
    "store": ((False,), "no responses are stored here"),
    "stream_options": (({}, {"include_obfuscation": False}), "streams are not padded"),
    "top_logprobs": ((0,), "log-probabilities come by /v1/chat/completions"),
    "truncation": (("disabled",), "input is never cut"),
}
"""Fields that may say nothing but this (or null), and why."""

SAME: Final = (
    "metadata",
    "model",
    "prompt_cache_key",
    "r2",
    "safety_identifier",
    "stream",
    "temperature",
    "top_p",
    "user",
)
"""Fields that chat completions have under the same name."""

_RENAMED: Final = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}
"""What chat completions call a field -> where it stands here."""

_TRANSLATED: Final = frozenset(
    {
        "input",
        "instructions",
        "max_output_tokens",
        "parallel_tool_calls",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
    }
)
KNOWN: Final = _TRANSLATED | ONLY.keys() | frozenset(SAME)
ROLES: Final = ("assistant", "developer", "system", "user")
ITEMS: Final = "message, function_call, function_call_output, reasoning"
_TOOL: Final = frozenset({"type", "name", "description", "parameters", "strict"})
_SCHEMA: Final = frozenset({"type", "name", "description", "schema", "strict"})


def read_response_request(body: bytes) -> tuple[Asked, dict[str, Any]]:
    """Return what a body asks and the fields that its response repeats. Raises Refusal."""
    data = read_shallow(body)
    refuse_unknown(data, KNOWN)
    _check_only(data)
    chat = {name: data[name] for name in SAME if data.get(name) is not None}
    chat["messages"] = _messages(data.get("instructions"), data.get("input"))
    chat["max_completion_tokens"] = data.get("max_output_tokens")
    chat |= _tools(data) | _text(data.get("text")) | _reasoning(data.get("reasoning"))
    try:
        return asked_of(chat), _repeated(data)
    except Refusal as refusal:
        raise _renamed(refusal) from None


def _check_only(data: Mapping[str, Any]) -> None:
    for name, (allowed, why) in ONLY.items():
        value = data.get(name)
        if value is None or any(value == a and type(value) is type(a) for a in allowed):
            continue
        raise Refusal(400, f"{name}: {why}", code="unsupported_parameter", param=name)


def _renamed(refusal: Refusal) -> Refusal:
    """Return a refusal in the names of this API."""
    was = refusal.param or ""
    name = _RENAMED.get(was, was)
    said = name + str(refusal).removeprefix(was) if was else str(refusal)
    return Refusal(refusal.status, said, code=refusal.code, param=refusal.param and name)


def _repeated(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a response says of its request: the defaults are what holds here."""
    given = {name: value for name, value in data.items() if value is not None}
    tool = {"description": None, "parameters": None, "strict": False}
    return {
        "background": False,
        "instructions": given.get("instructions"),
        "max_output_tokens": given.get("max_output_tokens"),
        "metadata": given.get("metadata", {}),
        "parallel_tool_calls": given.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "prompt_cache_key": given.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **given.get("reasoning", {})},
        "safety_identifier": given.get("safety_identifier"),
        "store": False,
        "temperature": given.get("temperature"),
        "text": {"format": {"type": "text"}, **_without_nulls(given.get("text", {}))},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": [tool | _without_nulls(t) for t in given.get("tools", ())],
        "top_p": given.get("top_p"),
        "truncation": "disabled",
        "user": given.get("user"),
    }


def _messages(instructions: Any, value: Any) -> list[dict[str, Any]]:
    """Return the messages that say what instructions and input say."""
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        if not isinstance(instructions, str):
            raise wrong("instructions", "a text", instructions)
        messages.append({"role": "system", "content": instructions})
    items = [{"role": "user", "content": value}] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise wrong("input", "a text or a list of items", value)
    waiting: dict[str, str] = {}
    for i, item in enumerate(items):
        where = f"input[{i}]"
        match item:
            case {"type": "function_call"}:
                _add_call(messages, _call(item, where))
                waiting[item["call_id"]] = where
            case {"type": "function_call_output"}:
                messages.append(_output(item, where))
                if waiting.pop(item["call_id"], None) is None:
                    where = f"{where}.call_id"
                    raise Refusal(400, f"{where}: no function call waits for it", param=where)
            case {"type": "reasoning"}:
                pass  # how an earlier answer came about is not part of the conversation
            case {"type": "message"} | {"role": _}:
                messages.append(_message(item, where))
            case _:
                raise wrong(where, f"one of {ITEMS}", item)
    if waiting:
        where = next(iter(waiting.values()))
        raise Refusal(400, f"{where}: the output of this function call is missing", param=where)
    return messages


def _message(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    role = item.get("role")
    if item.get("type", "message") != "message" or role not in ROLES:
        raise wrong(where, f"a message with a role: {', '.join(ROLES)}", item)
    return {"role": role, "content": _content(item.get("content"), f"{where}.content")}


def _content(value: Any, where: str) -> str | list[dict[str, Any]]:
    """Return a content as chat completions have it; one of texts alone as a text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise wrong(where, "a text or a list of parts", value)
    parts = [_part(part, f"{where}[{i}]") for i, part in enumerate(value)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Any, where: str) -> dict[str, Any]:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "refusal", "refusal": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "input_image", "image_url": url}:
            detail = part.get("detail")
            if detail is not None:
                read_text(detail, f"{where}.detail")
            image = {"url": url} if detail is None else {"url": url, "detail": detail}
            translated = {"type": "image_url", "image_url": image}
            if is_image_part(translated):
                return translated
            raise wrong(f"{where}.image_url", "https://… or data:image/…", url)
    raise wrong(where, "input_text, input_image with an image_url, output_text or refusal", part)


def _call(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    arguments = item.get("arguments")
    if not isinstance(arguments, str):
        raise wrong(f"{where}.arguments", "a text", arguments)
    name = read_text(item.get("name"), f"{where}.name")
    return {
        "id": read_text(item.get("call_id"), f"{where}.call_id"),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _add_call(messages: list[dict[str, Any]], call: dict[str, Any]) -> None:
    """Put a call into the assistant's turn that it belongs to."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _output(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    content = _content(item.get("output"), f"{where}.output")
    if not isinstance(content, str):
        raise Refusal(400, f"{where}.output: expected text alone", param=f"{where}.output")
    call_id = read_text(item.get("call_id"), f"{where}.call_id")
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def _tools(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields about tools; without tools, what is said of their use says nothing."""
    tools = [] if data.get("tools") is None else data["tools"]
    if not isinstance(tools, list):
        raise wrong("tools", "a list", tools)
    functions = [_function(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    read_flag(data.get("parallel_tool_calls"), "parallel_tool_calls")
    choice = _tool_choice(data.get("tool_choice"), [f["name"] for f in functions])
    if not functions:
        return {}
    return {
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": choice,
        "parallel_tool_calls": data.get("parallel_tool_calls"),
    }


def _function(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise Refusal(400, f"{where}: expected a function; no hosted tools here", param=where)
    given = _without_nulls(tool)
    refuse_unknown(given, _TOOL, f"{where}.")
    read_text(given.get("name"), f"{where}.name")
    read_mapping(given.get("parameters"), f"{where}.parameters")
    read_flag(given.get("strict"), f"{where}.strict")
    return {name: value for name, value in given.items() if name != "type"}


def _tool_choice(value: Any, names: list[str]) -> Any:
    match value:
        case None | "none" | "auto":
            return value
        case "required" if names:
            return value
        case {"type": "function", "name": str(name)} if name in names:
            return {"type": "function", "function": {"name": name}}
    raise wrong("tool_choice", "none, auto, required or a function of tools", value)


def _text(value: Any) -> dict[str, Any]:
    text = read_mapping(value, "text")
    refuse_unknown(text, {"format", "verbosity"}, "text.")
    return {
        "response_format": _format(read_mapping(text.get("format"), "text.format")),
        "verbosity": text.get("verbosity"),
    }


def _format(given: Mapping[str, Any]) -> dict[str, Any] | None:
    match given.get("type"):
        case None if not given:
            return None
        case "text" | "json_object" as kind:
            refuse_unknown(given, {"type"}, "text.format.")
            return {"type": kind}
        case "json_schema":
            schema = _without_nulls(given)
            refuse_unknown(schema, _SCHEMA, "text.format.")
            read_text(schema.get("name"), "text.format.name")
            read_flag(schema.get("strict"), "text.format.strict")
            if not isinstance(schema.get("schema"), dict):
                raise wrong("text.format.schema", "an object", schema.get("schema"))
            named = {name: value for name, value in schema.items() if name != "type"}
            return {"type": "json_schema", "json_schema": named}
        case other:
            raise wrong("text.format.type", "text, json_object or json_schema", other)


def _reasoning(value: Any) -> dict[str, Any]:
    reasoning = _without_nulls(read_mapping(value, "reasoning"))
    refuse_unknown(reasoning, {"effort", "summary"}, "reasoning.")
    if reasoning.get("summary", "auto") != "auto":
        raise wrong("reasoning.summary", "auto", reasoning["summary"])
    return {"reasoning_effort": reasoning.get("effort")}


def _without_nulls(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
