"""What an evaluation may cost before it is run: calls, and dollars at most.

The most is what no run exceeds while nothing is retried and nobody falls back: as many subtasks as
allowed, every prompt counted in bytes, every answer as long as it may be.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from r2reasoner import prompts
from r2reasoner.allocator import ALLOCATION_MAX_TOKENS, PromptedAllocator
from r2reasoner.decomposer import (
    JSON_MAX_TOKENS,
    LINE_MAX_TOKENS,
    RUNGS,
    Decomposer,
    Direct,
    PolicyDecomposer,
)
from r2reasoner.pool.cards import Card
from r2reasoner.router import Router
from r2reasoner.strategies.answering import Answering
from r2reasoner.strategies.base import RuleAllocator
from r2reasoner.strategies.cot import InTurn
from r2reasoner.strategies.datashunt import Shunt
from r2reasoner.types import Pico, Usage

PROMPT_OVERHEAD: int = 64


class Forecast(NamedTuple):
    """Calls of a strategy over all items, least and most, and its cost at most (None: unknown)."""

    least_calls: int
    most_calls: int
    most_cost: Pico | None


class _Calls(NamedTuple):
    """Up to `most` calls to one of some models, of so many tokens beside the query's bytes."""

    least: int
    most: int
    cards: Sequence[Card]
    input_tokens: int
    output_tokens: int | None


def forecast(router: Router, queries: Iterable[str]) -> Forecast:
    """Return what a strategy may cost on some queries."""
    parts = (*_planning(router), _allocating(router), _working(router))
    lengths = Counter(len(query.encode("utf-8", "replace")) for query in queries)
    total = lengths.total()
    cost: Pico | None = 0
    for length, count in lengths.items():
        each = [_cost(part, length) for part in parts]
        known = [c for c in each if c is not None]
        cost = cost + count * sum(known) if cost is not None and len(known) == len(each) else None
    return Forecast(
        total * sum(part.least for part in parts),
        total * sum(part.most for part in parts),
        cost,
    )


def _planning(router: Router) -> list[_Calls]:
    decomposer = router.decomposer
    if not isinstance(decomposer, Shunt):
        return [_planning_by(decomposer, router)]
    judging = _Calls(
        1, 1, (decomposer.judge,), PROMPT_OVERHEAD + decomposer.more_input, decomposer.max_tokens
    )
    # it is one side or the other, and nobody knows yet which
    sides = [_planning_by(side, router) for side in decomposer.sides.values()]
    most = max(sides, key=lambda side: _cost(side, 1) or 0)
    return [judging, most._replace(least=min(side.least for side in sides))]


def _planning_by(decomposer: Decomposer, router: Router) -> _Calls:
    if isinstance(decomposer, InTurn):
        decomposer = decomposer.inner
    if isinstance(decomposer, Direct):
        return _Calls(0, 0, (), 0, None)
    card = getattr(decomposer, "card", None) or router.pool.card(router.pool.decomposer)
    if isinstance(decomposer, PolicyDecomposer):
        # one subtask a call, and all of it once more where the plan must be repaired
        most = 2 * router.settings.max_subtasks
        return _Calls(1, most, (card,), PROMPT_OVERHEAD, LINE_MAX_TOKENS)
    overhead = PROMPT_OVERHEAD + len(prompts.read("decompose").encode()) + JSON_MAX_TOKENS
    return _Calls(1, len(RUNGS) + 1, (card,), overhead, JSON_MAX_TOKENS)


def _allocating(router: Router) -> _Calls:
    if not isinstance(router.allocator, PromptedAllocator):
        return _Calls(0, 0, (), 0, None)
    card = router.pool.card(router.pool.allocator)
    overhead = len(prompts.read("allocate").encode()) + JSON_MAX_TOKENS + ALLOCATION_MAX_TOKENS
    return _Calls(1, 2, (card,), overhead + PROMPT_OVERHEAD, ALLOCATION_MAX_TOKENS)


def _working(router: Router) -> _Calls:
    allocator, client = router.allocator, router.client
    cards = allocator.cards if isinstance(allocator, RuleAllocator) else router.pool.workers
    most = 1 if isinstance(router.decomposer, Direct) else router.settings.max_subtasks
    overhead = PROMPT_OVERHEAD
    if isinstance(client, Answering):
        cards = client.cards
    if most > 1:
        # a chat model also sees its step, and the answers of earlier ones
        answers = most * max(card.max_tokens for card in cards)
        chat = any(card.prompt == "chat" for card in cards)
        overhead += len(prompts.read("subtask").encode()) + answers if chat else 0
    if isinstance(client, Answering):
        return _Calls(client.least, most * client.most, cards, overhead + client.more_input, None)
    return _Calls(1, most, cards, overhead, None)


def _cost(calls: _Calls, query_bytes: int) -> Pico | None:
    """Return the most that calls may cost for one query."""
    if calls.most == 0:
        return 0
    worst: Pico = 0
    for card in calls.cards:
        if card.price is None:
            return None
        output = calls.output_tokens or card.max_tokens
        usage = Usage(query_bytes + calls.input_tokens, min(output, card.max_tokens))
        worst = max(worst, card.price.cost(usage))
    return calls.most * worst
