"""A streamed answer put together: what a cache keeps and a trace tells of it.

Texts are joined, tool calls by their index. Log-probabilities and fields that only some providers
send are left out, and so is what is of no known type: a provider's nonsense is passed on, not kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from r2reasoner.gateway.answers import choice_of


class Gathered:
    """The choices of a stream, as far as it came."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}

    def take(self, choices: Sequence[Mapping[str, Any]]) -> None:
        """Take the choices of a chunk."""
        for choice in choices:
            index = choice.get("index")
            number = index if isinstance(index, int) else 0
            self._choices.setdefault(number, _Choice()).take(choice)

    def whole(self) -> list[dict[str, Any]]:
        """Return the choices as an answer that is not streamed has them."""
        return [self._choices[number].whole(number) for number in sorted(self._choices)]


class _Choice:
    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {"content": [], "refusal": []}
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None

    def take(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta") or {}
        for name, pieces in self._texts.items():
            if isinstance(piece := delta.get(name), str):
                pieces.append(piece)
        calls = delta.get("tool_calls")
        for number, call in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(call, dict):
                index = call.get("index")
                self._take_call(index if isinstance(index, int) else number, call)
        self._finish = choice.get("finish_reason") or self._finish

    def _take_call(self, index: int, call: Mapping[str, Any]) -> None:
        said = call.get("function")
        function = said if isinstance(said, dict) else {}
        kept = self._calls.setdefault(
            index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
        )
        kept["id"] = call.get("id") or kept["id"]
        for name in ("name", "arguments"):
            if isinstance(piece := function.get(name), str):
                kept["function"][name] += piece

    def whole(self, index: int) -> dict[str, Any]:
        texts = {name: "".join(pieces) or None for name, pieces in self._texts.items()}
        message: dict[str, Any] = {"role": "assistant", **texts}
        if self._calls:
            message["tool_calls"] = list(self._calls.values())
        return choice_of(message=message, finish_reason=self._finish) | {"index": index}
