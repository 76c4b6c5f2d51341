"""Who answers a turn of a conversation: what a plan or a dial says, unless the turn says otherwise.

- A trivial turn is answered directly, by the cheapest chat model.
- Who is sent the conversation must have a context that takes it, where the pool has such a model.
- A model keeps writing the answers where it is not weaker than the one that would be chosen now,
  and what its provider has in its cache makes it no dearer. So staying costs nothing, neither
  quality nor money, as far as the pool's order and the expected cost say.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from r2reasoner import turns
from r2reasoner.allocator import Allocator
from r2reasoner.bill import show_money
from r2reasoner.budget import Meter
from r2reasoner.client.base import Client
from r2reasoner.gateway.conversation import Form, Outlook, Talk, writer_of
from r2reasoner.gateway.gateway import Gateway
from r2reasoner.gateway.routing import Direct, Routed, Way
from r2reasoner.gateway.trivial import is_trivial
from r2reasoner.gateway.wire import Asked
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import Allocation, Choice, Message, Plan, Query

TRIVIAL: Final = "a trivial turn: no plan"


def steer(gateway: Gateway, who: str, asked: Asked, way: Way) -> Way:
    """Return the way that a turn goes in its conversation.

    A pool without chat models has no conversations: its models read the query alone. Where a model
    is asked for by name there is nothing to steer.
    """
    pool = gateway.pool
    if not _chat_models(pool) or (isinstance(way, Direct) and len(way.candidates) == 1):
        return way
    talk = Talk(gateway.conversations, who, asked)
    if isinstance(way, Routed):
        if not gateway.options.trivial or not is_trivial(asked.text, asked.earlier):
            return replace(way, talk=talk)
        query = Query(asked.text, "", asked.earlier)
        way = Direct(way.settings, _at_once(query, pool, way.settings.trade_off), TRIVIAL)
    chosen, *others = way.candidates
    ladder = [card for card in pool.workers if card in way.candidates]
    outlook = talk.outlook(Form.AS_IT_CAME)
    stays = keeper(chosen, ladder, outlook)
    if stays != chosen:
        others = [chosen, *(card for card in others if card != stays)]
        reason = f"{way.reason}; {_why(stays, chosen, outlook)}"
        way = replace(way, candidates=(stays, *others), reason=reason)
    return replace(way, talk=talk)


class Staying:
    """An allocator's choices, with those models put in that the conversation asks for."""

    def __init__(self, inner: Allocator, pool: Pool, talk: Talk) -> None:
        self._inner = inner
        self._pool = pool
        self._talk = talk

    async def allocate(
        self, query: Query, plan: Plan, client: Client, meter: Meter, deadline: float | None
    ) -> Allocation:
        """Return one choice per subtask; joins get None."""
        given = await self._inner.allocate(query, plan, client, meter, deadline)
        choices = [
            None if choice is None else self._choice(query, plan, number, choice)
            for number, choice in enumerate(given.choices, 1)
        ]
        return replace(given, choices=tuple(choices))

    def _choice(self, query: Query, plan: Plan, number: int, choice: Choice) -> Choice:
        if plan.is_direct or plan.subtasks[number - 1].needs_conversation:
            choice = self._with_room(choice, query)
        writer = writer_of(plan)
        if writer is None or writer[0] != number:
            return choice
        return self._staying(choice, writer[1])

    def _with_room(self, choice: Choice, query: Query) -> Choice:
        chosen = self._pool.card(choice.model)
        roomy = _roomy(chosen, [chosen, *self._pool.stronger(chosen.name)], query)
        if roomy == chosen:
            return choice
        return Choice(
            roomy.name, f"its context takes the conversation, that of {chosen.name} does not"
        )

    def _staying(self, choice: Choice, form: Form) -> Choice:
        chosen = self._pool.card(choice.model)
        outlook = self._talk.outlook(form)
        stays = keeper(chosen, _chat_models(self._pool), outlook)
        return choice if stays == chosen else Choice(stays.name, _why(stays, chosen, outlook))


def keeper(chosen: Card, ladder: Sequence[Card], outlook: Outlook) -> Card:
    """Return who answers: the chosen model, or a stronger one that its cache makes no dearer.

    `ladder` are those that may, weakest first. Of several it is the cheapest.
    """
    now = outlook.cost(chosen)
    if now is None or chosen not in ladder:
        return chosen
    costs = {
        card.name: cost
        for card in ladder[ladder.index(chosen) + 1 :]
        if outlook.cached(card) and (cost := outlook.cost(card)) is not None and cost <= now
    }
    return min(
        (card for card in ladder if card.name in costs),
        key=lambda card: costs[card.name],
        default=chosen,
    )


def _why(stays: Card, chosen: Card, outlook: Outlook) -> str:
    return (
        f"stays with {stays.name}: of about {outlook.input_tokens:,} input tokens its cache should"
        f" have {outlook.cached(stays):,}, which makes it {show_money(outlook.cost(stays))} instead"
        f" of {show_money(outlook.cost(chosen))} by {chosen.name}"
    )


def _at_once(query: Query, pool: Pool, trade_off: float) -> tuple[Card, ...]:
    """Return who answers a trivial turn, in order; stronger ones, then weaker, stand by.

    It is the cheapest chat model; where only quality counts, the strongest.
    """
    models = _chat_models(pool)
    cheapest = next(card for card in pool.by_price if card in models)
    first = models[-1] if trade_off == 0 else _roomy(cheapest, models, query)
    at = models.index(first)
    return (*models[at:], *reversed(models[:at]))


def _roomy(chosen: Card, ladder: Sequence[Card], query: Query) -> Card:
    """Return the chosen model or, where its context is too small, the next that takes it all."""
    asked = (*query.earlier, Message("user", query.text))
    size = turns.size(*asked)

    def takes(card: Card) -> bool:
        return card.prompt == "chat" and turns.room(card.context, card.max_tokens, 0) >= size

    if chosen.prompt != "chat" or takes(chosen):
        return chosen
    return next((card for card in ladder if takes(card)), chosen)


def _chat_models(pool: Pool) -> list[Card]:
    return [card for card in pool.workers if card.prompt == "chat"]
