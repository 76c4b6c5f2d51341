"""The fake provider's prompt cache: the beginnings of prompts that a model was sent before.

As real ones do it, each model by itself: from LEAST_TOKENS on, in steps of STEP_TOKENS. Leaves out
forgetting, and that a real cache may miss.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from r2reasoner.mock.answers import TOKENS_PER_MESSAGE, ChatCall

LEAST_TOKENS: Final = 1024
STEP_TOKENS: Final = 128


class PromptCache:
    """Remembers prompts."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, bytes]] = set()

    def meet(self, call: ChatCall) -> int:
        """Return how many tokens of a call's prompt are in the cache, and keep all of it."""
        places = [(tokens, (call.model, digest)) for tokens, digest in _beginnings(call)]
        cached = max((tokens for tokens, place in places if place in self._seen), default=0)
        self._seen.update(place for _, place in places)
        return cached


def _beginnings(call: ChatCall) -> Iterator[tuple[int, bytes]]:
    """Yield the beginnings of a prompt that can be cached: their tokens, and a digest."""
    digest = hashlib.sha256()
    for number, token in enumerate(_tokens(call), 1):
        digest.update(f"{len(token)} {token}".encode("utf-8", "surrogatepass"))
        if number >= LEAST_TOKENS and number % STEP_TOKENS == 0:
            yield number, digest.copy().digest()


def _tokens(call: ChatCall) -> Iterator[str]:
    for message in call.messages:
        yield from [f"<{message.role}>"] * TOKENS_PER_MESSAGE
        yield from message.content.split()
