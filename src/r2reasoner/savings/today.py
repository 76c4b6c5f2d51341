"""What logged requests cost at the model that they went to.

By the pool file where it has the model, else by the public price lists, else by what the log itself
says; what none of them knows is unknown and counted, never 0.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

from r2reasoner.pool.cards import Card, Pool, Price
from r2reasoner.pool.prices import public_price
from r2reasoner.savings.logs import OPENAI, Logged
from r2reasoner.types import Pico

PROVIDERS: Final[Mapping[str, str]] = {
    "anthropic": "https://api.anthropic.com",
    "deepseek": "https://api.deepseek.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "openai": OPENAI,
    "openrouter": "https://openrouter.ai/api/v1",
    "together_ai": "https://api.together.xyz/v1",
    "xai": "https://api.x.ai/v1",
}
"""Where LiteLLM's provider prefixes stand, for the price lists."""
UNKNOWN: Final = "unknown"


class Paid(NamedTuple):
    """What a request cost, in pico-dollars (None: unknown), and who says so."""

    cost: Pico | None
    source: str


def paid(request: Logged, pool: Pool, base_url: str = OPENAI) -> Paid:
    """Return what a request cost; `base_url` is where those went whose log does not say."""
    if request.usage is not None:
        price = price_of(request, pool, base_url)
        if price is not None:
            return Paid(price.cost(request.usage), price.source)
    if request.cost is not None:
        return Paid(request.cost, "the log")
    return Paid(None, UNKNOWN)


def price_of(request: Logged, pool: Pool, base_url: str = OPENAI) -> Price | None:
    """Return the price of the model that a request went to, or None."""
    card = card_of(request.model, pool)
    if card is not None:
        return card.price
    prefix, _, rest = request.model.partition("/")
    if rest and prefix in PROVIDERS:
        return _public(rest, PROVIDERS[prefix])
    return _public(request.model, request.base_url or base_url) if request.model else None


@cache
def _public(model: str, base_url: str) -> Price | None:
    return public_price(model, base_url)


def card_of(model: str, pool: Pool) -> Card | None:
    """Return the pool's worker that is a logged model, by its name, or that of the provider."""
    bare = model.partition("/")[2] or model
    for wanted in (model, bare):
        for card in pool.workers:
            if wanted in (card.name, card.model):
                return card
    return None


def by_source(costs: Sequence[Paid]) -> dict[str, int]:
    """Return how many requests each source priced, most first."""
    counts: dict[str, int] = {}
    for one in costs:
        counts[one.source] = counts.get(one.source, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))
