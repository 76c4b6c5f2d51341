"""Answers to exact repeats, kept in memory for who asks for them; never across keys.

An answer's name covers everything that matters: who asks, the request's fields as they came, the
settings that it ends up with. Only whole answers are kept. Off unless the operator gives it room,
and used only by requests that say `r2.cache`.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from r2reasoner.config import Settings
from r2reasoner.gateway.wire import Asked


class _Kept(NamedTuple):
    until: float
    answer: Mapping[str, Any]


class Cache:
    """The newest answers, at most so many and for so many seconds."""

    def __init__(self, entries: int, ttl_s: float) -> None:
        self._entries = entries
        self._ttl_s = ttl_s
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def name(self, who: str, asked: Asked, settings: Settings) -> bytes | None:
        """Return what an answer is kept under; None where this request is not to be cached."""
        if not self._entries or not asked.wish.cache:
            return None
        parts = [
            who,
            asked.model,
            asked.max_tokens,
            asked.wish.direct,
            asked.wish.pool,
            asked.forward,
            asdict(settings),
        ]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).digest()

    def get(self, name: bytes) -> Mapping[str, Any] | None:
        """Return the answer that is kept, if it is still fresh."""
        kept = self._kept.get(name)
        if kept is None or time.monotonic() > kept.until:
            self._kept.pop(name, None)
            return None
        self._kept.move_to_end(name)
        return kept.answer

    def put(self, name: bytes, answer: Mapping[str, Any]) -> None:
        """Keep an answer; the one that was longest unused makes room."""
        self._kept[name] = _Kept(time.monotonic() + self._ttl_s, answer)
        self._kept.move_to_end(name)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)
