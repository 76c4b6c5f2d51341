"""Who has seen how a request begins: what a provider's prompt cache may still have of it.

Providers keep the beginning of a prompt for some minutes and charge less for it when it comes
again. So it is noted which model was sent what: as digests over who asked and the messages up to
there, never the messages. Whether a provider kept it, only the usage of the next call says; from a
model whose usage then shows nothing, nothing more is expected.

The memory is that of one process. Leaves out who is to answer (`staying.py`).
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, NamedTuple

import orjson

from r2reasoner import prompts, turns
from r2reasoner.gateway.wire import Asked
from r2reasoner.pool.cards import Card
from r2reasoner.types import Call, CallOutcome, Pico, Plan, Role, Trace, Usage

LEAST_CACHED: Final = 1024
"""Tokens that a prompt needs to be cached at all, by most providers."""
BYTES_PER_TOKEN: Final = 4
MOST_PLACES: Final = 16_384
TOOLS: Final = ("tools", "functions", "response_format")
WORKING: Final = (Role.WORKER, Role.FINAL)


def has_cheap_cache(card: Card) -> bool:
    """Tell whether a model charges less for input that its provider has in its cache."""
    price = card.price
    return price is not None and price.cached is not None and price.cached < price.input


class Form(StrEnum):
    """How a conversation stands in a prompt: prompts of different forms begin differently."""

    AS_IT_CAME = "as it came"
    LAST_STEP = "last step"


class Seen(NamedTuple):
    """A prompt that a model was sent up to some place: its tokens, and those of the answer.

    `kept`: a cache can be expected to have it.
    """

    tokens: int
    answer_tokens: int
    kept: bool


class Memory:
    """What was sent to whom in the last `ttl_s` seconds, by place in a conversation."""

    def __init__(self, ttl_s: float, most: int = MOST_PLACES) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._places: OrderedDict[bytes, tuple[float, dict[str, Seen]]] = OrderedDict()

    @property
    def is_on(self) -> bool:
        """Whether anything is remembered at all."""
        return self._ttl_s > 0

    def get(self, place: bytes) -> Mapping[str, Seen]:
        """Return which models have seen a conversation up to this place."""
        until, seen = self._places.get(place, (0.0, {}))
        return seen if time.monotonic() < until else {}

    def put(self, place: bytes, model: str, seen: Seen) -> None:
        """Note that a model has; the place that was longest unused makes room."""
        self._places[place] = (time.monotonic() + self._ttl_s, {**self.get(place), model: seen})
        self._places.move_to_end(place)
        if len(self._places) > self._most:
            self._places.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the next call of a conversation is expected to use; `seen` by model."""

    input_tokens: int = 0
    answer_tokens: int = 0
    seen: Mapping[str, Seen] = field(default_factory=dict)

    def cached(self, card: Card) -> int:
        """Return how many input tokens a model is expected to have in its cache."""
        seen = self.seen.get(card.name)
        if seen is None or not seen.kept or seen.tokens < LEAST_CACHED:
            return 0
        return min(seen.tokens, self.input_tokens)

    def cost(self, card: Card) -> Pico | None:
        """Return what a model is expected to cost; None where its price is unknown."""
        if card.price is None:
            return None
        return card.price.cost(Usage(self.input_tokens, self.answer_tokens, self.cached(card)))


class Talk:
    """One request as part of its conversation."""

    def __init__(self, memory: Memory, who: str, asked: Asked) -> None:
        self._memory = memory
        self._who = who
        self._asked = asked
        self._messages: Sequence[Mapping[str, Any]] = asked.forward["messages"]
        self._places: dict[Form, list[bytes]] = {}

    @cached_property
    def key(self) -> str:
        """A hash that stays the same through the conversation: of who asks, and its beginning."""
        first = next(i for i, turn in enumerate(self._messages) if turn["role"] == "user")
        return _chain(f"key {self._who}", map(_text, self._messages[: first + 1]))[-1].hex()[:32]

    def outlook(self, form: Form) -> Outlook:
        """Return what a call in this form is expected to use, by what was noted before."""
        if not self._memory.is_on:
            return Outlook()
        seen: dict[str, Seen] = {}
        longest: tuple[int, Seen] | None = None
        for number, place in reversed(list(enumerate(self._places_of(form), 1))):
            for model, there in self._memory.get(place).items():
                seen.setdefault(model, there)
                longest = longest or (number, there)
        if longest is None:
            return Outlook()
        number, last = longest
        new = sum(map(len, self._texts[number:])) // BYTES_PER_TOKEN
        return Outlook(last.tokens + new, last.answer_tokens, seen)

    def note(self, trace: Trace) -> None:
        """Note which model was sent the conversation for the answer, and in which form."""
        writer = writer_of(trace.plan)
        if writer is None or not self._memory.is_on:
            return
        number, form = writer
        call = _answering(trace, number)
        if call is None:
            return
        before = self.outlook(form).seen.get(call.model)
        is_new = before is None or before.tokens < LEAST_CACHED
        places, tokens = self._places_of(form), call.usage.input_tokens
        if form is Form.LAST_STEP:  # what comes again ends before the query, which is wrapped there
            last = max(i for i, turn in enumerate(self._messages) if turn["role"] == "user")
            opening = turns.size(*prompts.opening("last_subtask", self._asked.earlier))
            places, tokens = places[:last], min(tokens, opening // BYTES_PER_TOKEN)
        if places:
            kept = is_new or call.usage.cached_tokens > 0
            self._memory.put(places[-1], call.model, Seen(tokens, call.usage.output_tokens, kept))

    @cached_property
    def _texts(self) -> list[bytes]:
        return [_text(message) for message in self._messages]

    def _places_of(self, form: Form) -> list[bytes]:
        """Return a digest for the place after each message; tools stand before all of them."""
        if form not in self._places:
            tools = [self._asked.forward.get(name) for name in TOOLS]
            self._places[form] = _chain(f"{form} {self._who} {tools}", self._texts)
        return self._places[form]


def writer_of(plan: Plan) -> tuple[int, Form] | None:
    """Return which subtask writes the answer after the conversation, and in which form.

    None where the answer is put together from several, or written without the conversation.
    """
    if plan.is_direct:
        return 1, Form.AS_IT_CAME
    for number, subtask in enumerate(plan.subtasks, 1):
        if plan.answer.strip() == f"#{number}" and not subtask.is_join:
            return (number, Form.LAST_STEP) if subtask.needs_conversation else None
    return None


def _answering(trace: Trace, number: int) -> Call | None:
    """Return the call that answered a subtask."""
    calls = (
        call
        for call in reversed(trace.calls)
        if call.subtask == number and call.role in WORKING and call.outcome is CallOutcome.OK
    )
    return next(calls, None)


def _text(message: Mapping[str, Any]) -> bytes:
    return orjson.dumps(message, option=orjson.OPT_SORT_KEYS)


def _chain(seed: str, texts: Iterable[bytes]) -> list[bytes]:
    digest = hashlib.sha256(seed.encode("utf-8", "surrogatepass"))
    places = []
    for text in texts:
        digest.update(len(text).to_bytes(8) + text)
        places.append(digest.copy().digest())
    return places
