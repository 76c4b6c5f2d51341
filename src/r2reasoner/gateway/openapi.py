"""The API as an OpenAPI 3.1 document, made of the constants by which requests are checked.

What it says of requests is what `wire.py` takes: a body that fits is read, one that does not is
refused. Of answers it names the fields that are always there; a trace's are those of its codec.
Leaves out the dashboard, which is for people.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from r2reasoner import __version__
from r2reasoner.chat import LIMITS, MOST_STOPS
from r2reasoner.gateway import responses_wire, wire
from r2reasoner.gateway.metrics import CONTENT_TYPE
from r2reasoner.gateway.routing import ROUTER
from r2reasoner.types import AnswerStatus, CallOutcome, Role

PATH: Final = "/openapi.json"
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"

Schema = dict[str, Any]

_FAULTS: Final = {
    400: "The request is wrong; `param` names the field.",
    401: "No key, or an unknown, revoked or expired one.",
    402: "The key's or the request's money is used up; `left_dollars` says what is left.",
    403: "The key may not; or there is none, and a page of another site asks.",
    404: "There is no such model or trace.",
    413: f"The body has more than {wire.MAX_BODY_BYTES:,} bytes.",
    415: "The body is not said to be JSON.",
    429: "Too many requests, here or at a model's endpoint; `retry-after` says when.",
    502: "Models failed (`upstream_…`, `no_answer`).",
    503: "An endpoint is left alone, calls cannot be recorded, or the gateway is shutting down.",
    504: "Time is over (`deadline_exceeded`, `upstream_…`).",
}
_MONEY: Final = r"^([1-9][0-9]{0,5}|(0|[1-9][0-9]{0,5})\.[0-9]{0,11}[1-9])$"


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return json.dumps(describe()).encode()


def describe() -> dict[str, Any]:
    """Return the document as an object that is the caller's to change."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Route-and-Reason gateway",
            "version": __version__,
            "description": (
                f"OpenAI's chat API over a pool of models. The model `{ROUTER}` plans, routes and"
                f" answers; `{ROUTER}:0.7` sets the dial between quality (0) and cost (1); a"
                " model of the pool answers by itself."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}, {}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Made by `r2reasoner key create`. None is asked for while there"
                    " is none and the gateway serves this machine alone.",
                }
            },
        },
    }


def _paths() -> dict[str, Any]:
    trace_id = _parameter("trace_id", "As in the header x-r2-trace-id of an answer.")
    return {
        "/v1/chat/completions": {
            "post": _asking("chatCompletion", "Answer a conversation.", "Chat")
        },
        "/v1/responses": {
            "post": _asking(
                "response", "Answer a conversation by OpenAI's Responses API.", "Response"
            )
        },
        "/v1/models": {
            "get": _reading("models", "List what may be asked.", {JSON: _ref("Models")}, 401, 403)
        },
        "/v1/models/{name}": {
            "parameters": [_parameter("name", "A model's id.")],
            "get": _reading("model", "Return one of them.", {JSON: _ref("Model")}, 401, 403, 404),
        },
        "/v1/traces/{trace_id}": {
            "parameters": [trace_id],
            "get": _reading(
                "trace",
                "Return how an answer was made: to the key that asked, and to the admin.",
                {JSON: _ref("Trace")},
                *(401, 403, 404, 503),
            ),
        },
        "/v1/traces/{trace_id}/events": {
            "parameters": [trace_id],
            "get": _reading(
                "traceEvents",
                "Follow a request while it runs; of one that has ended, its trace.",
                {EVENTS: {}},
                *(401, 403, 404, 503),
            ),
        },
        "/healthz": {
            "get": {
                "operationId": "health",
                "summary": "Say that the gateway is up.",
                "security": [],
                "responses": {
                    "200": _response("It is.", {JSON: _ref("Health")}),
                    "503": _response("It is shutting down.", {JSON: _ref("Health")}),
                },
            }
        },
        "/metrics": {
            "get": _reading(
                "metrics",
                "Return the figures for Prometheus, to the admin.",
                {CONTENT_TYPE: {"type": "string"}},
                *(401, 403),
            )
        },
        PATH: {
            "get": {
                "operationId": "openapi",
                "summary": "Return this document.",
                "security": [],
                "responses": {"200": _response("The document.", {JSON: {"type": "object"}})},
            }
        },
    }


def _asking(name: str, summary: str, kind: str) -> dict[str, Any]:
    """Return an operation that calls models."""
    told = {"x-r2-trace-id": "The trace's id.", "x-r2-cost": "Dollars, of an answer not streamed."}
    answer = _response(
        "The answer; with `stream`, its events.",
        {JSON: _ref(f"{kind}Answer"), EVENTS: {}},
    )
    answer["headers"] = {
        header: {"description": what, "schema": {"type": "string"}} for header, what in told.items()
    }
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [
            {
                "name": "x-r2-bypass",
                "in": "header",
                "description": "1: the strongest model answers at once.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref(f"{kind}Request")}}},
        "responses": {"200": answer, **_errors(_FAULTS)},
    }


def _reading(
    name: str, summary: str, content: Mapping[str, Schema], *faults: int
) -> dict[str, Any]:
    """Return an operation that only reads. Any may refuse a key in its address (400)."""
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _response("It.", content), **_errors((400, *faults))},
    }


def _errors(statuses: Iterable[int]) -> dict[str, Any]:
    return {str(s): _response(_FAULTS[s], {JSON: _ref("Error")}) for s in statuses}


def _response(description: str, content: Mapping[str, Schema]) -> dict[str, Any]:
    return {
        "description": description,
        "content": {kind: {"schema": schema} for kind, schema in content.items()},
    }


def _parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1},
    }


def _schemas() -> dict[str, Schema]:
    return {
        "ChatRequest": _chat_request(),
        "Message": _message(),
        "Part": _part("text", "image_url"),
        "Wish": _wish(),
        "ChatAnswer": _object(
            {
                "id": {"type": "string"},
                "object": {"const": "chat.completion"},
                "created": {"type": "integer"},
                "model": {"type": "string"},
                "choices": {"type": "array", "items": {"type": "object"}, "minItems": 1},
                "usage": _ref("Usage"),
                "r2": _ref("How"),
            }
        ),
        "Usage": _object(
            {
                name: {"type": "integer", "minimum": 0}
                for name in ("prompt_tokens", "completion_tokens", "total_tokens")
            }
        ),
        "How": _how(),
        "ResponseRequest": _response_request(),
        "ResponseAnswer": _object(
            {
                "id": {"type": "string"},
                "object": {"const": "response"},
                "created_at": {"type": "number"},
                "model": {"type": "string"},
                "status": {"enum": ["completed", "failed", "incomplete"]},
                "output": {"type": "array", "items": {"type": "object"}},
                "r2": _ref("How"),
            }
        ),
        "Model": _object(
            {
                "id": {"type": "string"},
                "object": {"const": "model"},
                "created": {"type": "integer"},
                "owned_by": {"type": "string"},
            }
        ),
        "Models": _object(
            {"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}}
        ),
        "Trace": _object(
            {
                "id": {"type": "string"},
                "query": {"type": "object"},
                "plan": {"type": "object"},
                "answer": {"type": "object"},
                "calls": {"type": "array", "items": {"type": "object"}},
            }
        ),
        "Health": _object({"status": {"enum": ["ok", "draining"]}}),
        "Error": _object(
            {
                "error": _object(
                    {
                        "message": {"type": "string", "minLength": 1},
                        "type": {"type": "string"},
                        "param": _maybe("string"),
                        "code": _maybe("string"),
                    }
                )
            },
            additionalProperties=False,
        ),
    }


def _chat_request() -> Schema:
    flags, texts = _maybe("boolean"), _maybe("string", minLength=1)
    choice = {"type": ["string", "object", "null"]}
    tools = _maybe("array", maxItems=wire.MOST_TOOLS)
    options = _maybe("object", properties={"include_usage": flags})
    tool = _object({"type": {"enum": list(wire.TOOL_TYPES)}})
    fields = {
        "model": {"type": "string", "minLength": 1, "examples": [ROUTER, f"{ROUTER}:0.7"]},
        "messages": {
            "type": "array",
            "minItems": 1,
            "maxItems": wire.MOST_MESSAGES,
            "items": _ref("Message"),
            "contains": _object({"role": {"const": "user"}}),
        },
        "stream": flags,
        "stream_options": options,
        "r2": _ref("Wish"),
        "temperature": _between(0, wire.MAX_TEMPERATURE),
        "n": _whole(1, wire.MOST_CHOICES),
        "stop": {
            "type": ["string", "array", "null"],
            "minLength": 1,
            "maxItems": MOST_STOPS,
            "items": {"type": "string", "minLength": 1},
        },
        "functions": {**tools, "items": {"type": "object"}},
        "tools": {**tools, "items": tool},
        **{name: _whole(1, wire.MOST_TOKENS) for name in LIMITS},
        **{name: _between(low, high) for name, (low, high) in wire.NUMBERS.items()},
        **{name: _whole(least, most) for name, (least, most) in wire.WHOLES.items()},
        **dict.fromkeys(wire.FLAGS, flags),
        **dict.fromkeys(wire.TEXTS, texts),
        **dict.fromkeys(wire.OBJECTS, _maybe("object")),
        **dict.fromkeys(wire.CHOICES, choice),
    }
    return {
        "type": "object",
        "required": ["model", "messages"],
        "properties": dict(sorted(fields.items())),
        "additionalProperties": False,
        "not": {"required": list(LIMITS), "properties": {n: {"type": "integer"} for n in LIMITS}},
    }


def _message() -> Schema:
    calls = {"type": "array", "minItems": 1}
    said = {"type": ["string", "array"], "minItems": 1, "items": _ref("Part")}
    nothing = {"type": "null"}
    return {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"enum": list(wire.ROLES)},
            "content": {},
            "tool_calls": _maybe("array", items={"type": "object"}),
            "tool_call_id": {},
            "name": {},
        },
        "anyOf": [
            {"required": ["content"], "properties": {"content": said}},
            {"required": ["tool_calls"], "properties": {"tool_calls": calls, "content": nothing}},
        ],
    }


def _part(text: str, image: str) -> Schema:
    url = {"type": "string", "pattern": "^(data:image/|https://)"}
    return {
        "anyOf": [
            _object({"type": {"const": text}, "text": {"type": "string"}}),
            _object({"type": {"const": image}, "image_url": _object({"url": url})}),
        ]
    }


def _wish() -> Schema:
    dollars = {"exclusiveMinimum": 0, "maximum": wire.MAX_DOLLARS}
    return {
        "description": "How this request is to be answered.",
        "type": ["object", "null"],
        "properties": {
            "trade_off": _between(0, 1),
            "max_cost": {
                "description": "Dollars; as text they are exact.",
                "type": ["string", "number", "null"],
                "pattern": _MONEY,
                **dollars,
            },
            "deadline_s": _maybe("number", exclusiveMinimum=0, maximum=wire.MAX_SECONDS),
            "direct": _maybe("boolean"),
            "cache": _maybe("boolean"),
            "pool": _maybe("string", minLength=1),
        },
        "additionalProperties": False,
    }


def _how() -> Schema:
    """Return the schema of the `r2` block of an answer."""
    money = _maybe("string")
    call = _object(
        {
            "role": {"enum": [role.value for role in Role]},
            "model": {"type": "string"},
            "outcome": {"enum": [outcome.value for outcome in CallOutcome]},
            "cost": money,
        }
    )
    return _object(
        {
            "trace_id": {"type": "string"},
            "status": {"enum": [status.value for status in AnswerStatus]},
            "pool": {"type": "string"},
            "trade_off": {"type": "number"},
            "plan": {"type": "object"},
            "calls": {"type": "array", "items": call},
            "cost": money,
            "strongest": {"type": "string"},
            "saved_estimate": money,
        }
    )


def _response_request() -> Schema:
    """Return the schema of OpenAI's other request; what `input` and `tools` hold is theirs."""
    chat = _chat_request()["properties"]
    only = responses_wire.ONLY.items()
    fields = {
        **{name: chat[name] for name in responses_wire.SAME},
        **{name: {"enum": [*allowed, None], "description": why} for name, (allowed, why) in only},
        "input": {"type": ["string", "array"], "minItems": 1, "items": {"type": "object"}},
        "instructions": _maybe("string"),
        "max_output_tokens": _whole(1, wire.MOST_TOKENS),
        "parallel_tool_calls": _maybe("boolean"),
        "reasoning": _maybe("object"),
        "text": _maybe("object"),
        "tool_choice": {"type": ["string", "object", "null"]},
        "tools": _maybe("array", maxItems=wire.MOST_TOOLS, items={"type": "object"}),
    }
    return {
        "type": "object",
        "required": ["model", "input"],
        "properties": dict(sorted(fields.items())),
        "additionalProperties": False,
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Mapping[str, Schema], **more: Any) -> Schema:
    """Return the schema of an object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": dict(properties), **more}


def _maybe(kind: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], **more}


def _whole(least: int, most: int) -> Schema:
    return _maybe("integer", minimum=least, maximum=most)


def _between(low: float, high: float) -> Schema:
    return _maybe("number", minimum=low, maximum=high)
