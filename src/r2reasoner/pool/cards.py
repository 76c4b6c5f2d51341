"""Model cards: what the engine knows of each model, its endpoint and its price.

A pool lists its workers from weakest to strongest; that order is what "the next stronger model"
and "the strongest" mean. Policies (decomposer, allocator) are models with cards like any other,
listed apart so that no subtask is given to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from math import lcm
from pathlib import Path
from typing import Final, Literal, NamedTuple

from r2reasoner.errors import ConfigError
from r2reasoner.types import Pico, Usage

LIGHT: Final = "light:"
"""What stands before a light router's name where a pool's allocator is one."""
MOST_LEVELS: Final = 9
MOST_MODELS: Final = 12
"""Most settings of the dial, and most workers, that a policy in the line format has words for."""


class Group(StrEnum):
    """The paper's three groups of workers, by size."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Tier(NamedTuple):
    """Rates for calls with more than `above` input tokens, in dollars per million tokens."""

    above: int
    input: Decimal
    output: Decimal
    cached: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, exact, with where the figures come from.

    A call with more than `tiers[i].above` input tokens pays that tier's rates for all its tokens;
    tiers stand in ascending order. `cached` None means cached input pays the input rate.
    """

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    source: str = "pool file"
    tiers: tuple[Tier, ...] = ()

    def cost(self, usage: Usage) -> Pico:
        """Return what a usage costs; fractions of a pico-dollar are rounded up."""
        rates: Price | Tier = self
        for tier in self.tiers:
            if usage.input_tokens > tier.above:
                rates = tier
        new, old, out, scale = _whole_rates(rates.input, rates.cached, rates.output)
        exact = (
            new * (usage.input_tokens - usage.cached_tokens)
            + old * usage.cached_tokens
            + out * usage.output_tokens
        )
        return -(-exact // scale)


@lru_cache(maxsize=4096)
def _whole_rates(
    new: Decimal, cached: Decimal | None, output: Decimal
) -> tuple[int, int, int, int]:
    """Return rates as whole numbers over a common scale, so that a cost is integers only.

    In pico-dollars per token: new and cached input, output, and what to divide by.
    """
    rates = [Fraction(r) * 1_000_000 for r in (new, new if cached is None else cached, output)]
    scale = lcm(*(rate.denominator for rate in rates))
    a, b, c = (int(rate * scale) for rate in rates)
    return a, b, c, scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where models are reached. `embedded` runs CTranslate2 folders under `path` in process."""

    name: str
    kind: Literal["openai", "embedded"]
    base_url: str = ""
    key_env: str | None = None
    path: Path | None = None
    concurrency: int = 16
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One model. `prompt`: whether it takes chat messages or only the last user text.

    `plan_format`: how it writes plans when it is a decomposer. `price` None means unknown.
    Of trained policies: `dial` is how many settings of `trade_off` it reads (0: none), `knows`
    the workers that an allocator can name, weakest first.
    """

    name: str
    endpoint: Endpoint
    model: str
    price: Price | None
    group: Group | None = None
    context: int = 32_768
    max_tokens: int = 1024
    concurrency: int | None = None
    capabilities: frozenset[str] = frozenset()
    prompt: Literal["chat", "plain"] = "chat"
    plan_format: Literal["json", "line"] = "json"
    parameters: int | None = None
    sha256: str | None = None
    dial: int = 0
    knows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The models at hand. `allocator` names a policy, a built-in allocator, or `light:ROUTER`.

    `splits` are the benchmark splits that the models were trained for; empty: any.
    `decomposer` names a policy or a worker. `outcomes` is the file of measured outcomes that the
    calibrated allocator and light routers read (these also the folder of a store), or None.
    """

    name: str
    workers: tuple[Card, ...]
    policies: Mapping[str, Card]
    decomposer: str
    allocator: str
    outcomes: Path | None = None
    source: Path | None = None
    splits: tuple[str, ...] = ()

    def card(self, name: str) -> Card:
        """Return a worker or policy by name. Raises ConfigError for an unknown one."""
        for card in (*self.workers, *self.policies.values()):
            if card.name == name:
                return card
        known = ", ".join(c.name for c in (*self.workers, *self.policies.values()))
        raise ConfigError(f"no model {name!r} in pool {self.name!r}; it has: {known}")

    @property
    def strongest(self) -> Card:
        """The last worker listed."""
        return self.workers[-1]

    @property
    def by_price(self) -> tuple[Card, ...]:
        """Workers from cheapest to dearest (input plus output price); unknown prices last."""

        def key(card: Card) -> tuple[bool, Decimal]:
            price = card.price
            return (price is None, price.input + price.output if price else Decimal(0))

        return tuple(sorted(self.workers, key=key))

    @property
    def cheapest(self) -> Card:
        """The worker with the lowest input plus output price."""
        return self.by_price[0]

    def stronger(self, name: str) -> tuple[Card, ...]:
        """Workers after this one, weakest first: where a failed call falls back to."""
        names = [card.name for card in self.workers]
        return self.workers[names.index(name) + 1 :]
