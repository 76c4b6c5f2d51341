"""OpenAI's chat format from the server's side: reading fields, writing errors, usage and events.

What every server of ours has in common (`nano.serve`, the gateway). Pure functions; what a server
can do with a request is its own affair, and so is HTTP.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from r2reasoner.types import Usage

MOST_STOPS: Final = 4
MAX_SHOWN: Final = 80

_KINDS: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


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
        data = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Refusal(400, f"expected a JSON object, got {type(data).__name__}")
    return data


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def read_stops(value: Any) -> tuple[str, ...]:
    """Return the stop words: none, one text, or a list of up to 4. Raises Refusal."""
    stops = [value] if isinstance(value, str) else value or []
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
    """Return which of its two names a request uses for the limit of output tokens."""
    return "max_completion_tokens" if "max_completion_tokens" in data else "max_tokens"


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
    """Return one server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE: Final = b"data: [DONE]\n\n"
