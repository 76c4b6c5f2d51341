"""OpenAI's chat format from the server's side: reading fields, writing errors, usage and events.

What every server of ours has in common (`nano.serve`, the gateway). Pure functions; what a server
can do with a request is its own affair, and so is HTTP.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson

from r2reasoner.types import Usage

MOST_STOPS: Final = 4
MAX_SHOWN: Final = 80
LIMITS: Final = ("max_tokens", "max_completion_tokens")

_KINDS: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


_LINE_ENDS: Final = {c.encode(): f"\\u{ord(c):04x}".encode() for c in "\x85\u2028\u2029"}
"""What many clients take for the end of a line, although JSON and events do not."""


class Refusal(Exception):
    """A request that is answered with an error in OpenAI's shape.

    `details` are further fields of the error, `headers` those of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.details = details or {}
        self.headers = headers or {}

    def as_object(self) -> dict[str, Any]:
        """Return the body of the response."""
        body = error_object(self.status, str(self), self.code, self.param)
        body["error"] |= self.details
        return body


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is. Raises Refusal (400)."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Refusal(400, f"expected a JSON object, got {type(data).__name__}")
    return data


def read_stops(value: Any) -> tuple[str, ...]:
    """Return the stop words: none, one text, or a list of up to 4. Raises Refusal."""
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(s, str) and s for s in stops)
    ):
        raise wrong("stop", f"a text or a list of up to {MOST_STOPS}", value)
    return tuple(stops)


def cut_at(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """Return a text up to the first stop word, and whether there was one."""
    at = min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
    return text[:at], at is not None


def read_text(value: Any, name: str) -> str:
    """Return a text that is not empty. Raises Refusal."""
    if not isinstance(value, str) or not value:
        raise wrong(name, "a text", value)
    return value


def read_flag(value: Any, name: str) -> bool:
    """Return a boolean, null as false. Raises Refusal."""
    if value is not None and not isinstance(value, bool):
        raise wrong(name, "true or false", value)
    return bool(value)


def read_whole(value: Any, name: str, low: int, high: int) -> int | None:
    """Return a whole number within bounds, or None for null. Raises Refusal."""
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise wrong(name, f"a whole number from {low} to {high}", value)
    return value


def read_number(value: Any, name: str, low: float, high: float, why: str = "") -> float | None:
    """Return a number within bounds, or None for null. Raises Refusal."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise wrong(name, f"a number from {low:g} to {high:g}{why}", value)
    return float(value)


def read_mapping(value: Any, name: str) -> Mapping[str, Any]:
    """Return an object, null as an empty one. Raises Refusal."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(name, "an object", value)
    return value


def is_text_part(part: Any) -> bool:
    """Tell whether a part of a message's content is text."""
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def wrong(name: str, expected: str, got: Any) -> Refusal:
    """Return the refusal of a field's value."""
    shown = json.dumps(got)[:MAX_SHOWN]
    return Refusal(400, f"{name}: expected {expected}, got {shown}", param=name)


def limit_name(data: Mapping[str, Any]) -> str:
    """Return which of its two names a request uses for the limit of output tokens.

    Raises Refusal where it uses both, because then nobody can say which one holds.
    """
    used = [name for name in LIMITS if data.get(name) is not None]
    if len(used) > 1:
        raise Refusal(400, f"{' and '.join(LIMITS)}: expected one of them", param=LIMITS[0])
    return used[0] if used else LIMITS[0]


def envelope(kind: str, identifier: str, created: int, model: str) -> dict[str, Any]:
    """Return the fields that every answer and every chunk begins with."""
    return {"id": identifier, "object": kind, "created": created, "model": model}


def usage_object(usage: Usage) -> dict[str, int]:
    """Return a usage as OpenAI reports it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def error_object(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """Return an error body as OpenAI writes it."""
    default = "server_error" if status >= 500 else "invalid_request_error"
    kind = _KINDS.get(status, default)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(value: Mapping[str, Any]) -> bytes:
    """Return one server-sent event, which is one line to all who read it."""
    data = to_json(value)
    if not data.isascii():
        for end, escaped in _LINE_ENDS.items():
            data = data.replace(end, escaped)
    return b"data: " + data + b"\n\n"


def to_json(value: Any) -> bytes:
    """Return JSON as bytes, also of texts that UTF-8 cannot hold: those are escaped."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


DONE: Final = b"data: [DONE]\n\n"
