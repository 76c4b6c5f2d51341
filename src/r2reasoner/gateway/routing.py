"""Who answers a request: the router, or pool models one after the other until one does.

The model's name says it (`r2reasoner`, `r2reasoner:0.7`, or a model of the pool), the `r2` field
refines it. What only one model can answer (tools, images, JSON, several choices) goes past the
plan to a model whose card has the capability. A request names models of the pool, never a host.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from r2reasoner.chat import MAX_SHOWN, Refusal
from r2reasoner.config import Settings
from r2reasoner.gateway.conversation import Talk
from r2reasoner.gateway.wire import NEEDS, Asked
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import Trace

ROUTER: Final = "r2reasoner"


@dataclass(frozen=True, slots=True)
class _Way:
    settings: Settings
    talk: Talk | None = field(default=None, kw_only=True)

    @property
    def conversation(self) -> str | None:
        """A hash that stays the same through the conversation, None where there is none."""
        return None if self.talk is None else self.talk.key

    def note(self, trace: Trace) -> None:
        """Note for the conversation's next turn what this one came to."""
        if self.talk is not None:
            self.talk.note(trace)


@dataclass(frozen=True, slots=True)
class Routed(_Way):
    """The engine plans and answers. `direct`: without a plan, by the model it chooses."""

    direct: bool


@dataclass(frozen=True, slots=True)
class Direct(_Way):
    """One of these models answers: the first that does, in this order."""

    candidates: tuple[Card, ...]
    reason: str


Way = Routed | Direct


def way_of(asked: Asked, pool: Pool, settings: Settings, *, bypass: bool = False) -> Way:
    """Return how a request is answered. `bypass`: by the strongest model, without the router.

    Raises Refusal: 404 for an unknown model, 400 where no model is capable.
    """
    base, _, dial = asked.model.partition(":")
    if base != ROUTER:
        card = _worker(asked.model, pool)
        _check_capable(asked, [card], f"{card.name} does not say")
        return Direct(_with(settings, asked, None), (card,), "asked for by name")
    settings = _with(settings, asked, dial_of(asked.model) if dial else None)
    capable = [card for card in pool.workers if lacks(asked, card) == ()]
    if not capable:
        _check_capable(asked, pool.workers, f"no model of pool {pool.name!r} says")
    if bypass:
        best = tuple(reversed(capable))
        return Direct(settings, best, "routing is bypassed: the strongest model")
    if asked.needs:
        return _by_the_dial(asked, capable, settings)
    return Routed(settings, asked.wish.direct)


def lacks(asked: Asked, card: Card) -> tuple[str, ...]:
    """Return the capabilities that a request needs and a card does not have."""
    missing = set(asked.needs) - card.capabilities
    if card.endpoint.kind == "openai" and "no_logprobs" not in card.capabilities:
        missing.discard("logprobs")
    return tuple(sorted(missing))


def _by_the_dial(asked: Asked, capable: Sequence[Card], settings: Settings) -> Direct:
    """Choose among capable models as the ladder does; stronger ones, then weaker, stand by."""
    at = round((1 - settings.trade_off) * (len(capable) - 1))
    order = (*capable[at:], *reversed(capable[:at]))
    needed = ", ".join(sorted(asked.needs))
    return Direct(settings, order, f"one of {len(capable)} models that can do: {needed}")


def _worker(name: str, pool: Pool) -> Card:
    for card in pool.workers:
        if card.name == name:
            return card
    known = ", ".join((ROUTER, *(card.name for card in pool.workers)))
    raise Refusal(
        404,
        f"no model {name[:MAX_SHOWN]!r} here; there are: {known}",
        code="model_not_found",
        param="model",
    )


def dial_of(name: str) -> float:
    """Return the dial's setting that a name of the router says. Raises Refusal (404)."""
    text = name.partition(":")[2]
    try:
        value = float(text) if text[:1].isdigit() else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Refusal(
            404,
            f"no model {name[:MAX_SHOWN]!r}: after {ROUTER}: comes a number from 0 (quality only)"
            " to 1 (cheapest)",
            code="model_not_found",
            param="model",
        )
    return value


def _with(settings: Settings, asked: Asked, dial: float | None) -> Settings:
    """Return settings with a request's wishes; its money and time are at most the operator's."""
    wish = asked.wish
    trade_off = wish.trade_off if wish.trade_off is not None else dial
    costs = [c for c in (settings.max_cost, wish.max_cost) if c is not None]
    return replace(
        settings,
        trade_off=settings.trade_off if trade_off is None else trade_off,
        max_cost=min(costs, default=None),
        deadline_s=min(settings.deadline_s, wish.deadline_s or settings.deadline_s),
        temperature=settings.temperature if asked.temperature is None else asked.temperature,
        max_answer_tokens=asked.max_tokens or settings.max_answer_tokens,
    )


def _field_of(asked: Asked, capability: str) -> str:
    """Return the field that needs a capability."""
    fields = (name for name, needed in NEEDS.items() if needed == capability)
    return next((name for name in fields if name in asked.forward), "messages")


def _check_capable(asked: Asked, cards: Sequence[Card], who: str) -> None:
    missing = min((lacks(asked, card) for card in cards), key=len)
    if missing:
        raise Refusal(
            400,
            f"{who} that it can do what this request needs: {', '.join(missing)}; the pool"
            " file says so by `capabilities`",
            code="unsupported_parameter",
            param=_field_of(asked, missing[0]),
        )
