"""What a pool would have cost on logged requests, without asking anybody.

A model's answer is taken to have as many tokens as the logged one. Our router is taken to answer
directly, by the model that its allocator chooses where that needs no call, after the decomposer has
read the request. Decomposing costs more and may let a cheaper model do: only a sample can tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from r2reasoner import prompts
from r2reasoner.allocator import CalibratedAllocator, LadderAllocator, open_allocator
from r2reasoner.errors import DataError
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.savings.logs import Logged
from r2reasoner.types import Pico, Usage

BYTES_PER_TOKEN: Final = 4
PLAN_TOKENS: Final = 40
ALLOCATION_TOKENS: Final = 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one way to answer would have cost in all, pico-dollars; None: a price is unknown.

    `low` and `high` are ends where the choice of models is not known.
    """

    who: str
    cost: Pico | None
    how: str
    low: Pico | None = None
    high: Pico | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """Every way, what was assumed, and the mean chance of a right answer where it is calibrated."""

    router: Estimate
    workers: tuple[Estimate, ...]
    assumptions: tuple[str, ...]
    p_right: float | None


def outlook(requests: Sequence[Logged], pool: Pool, trade_off: float) -> Outlook:
    """Return the estimates over requests whose tokens are known."""
    usages = [r.usage for r in requests if r.usage is not None]
    workers = tuple(
        Estimate(card.name, _at(card, usages), "logged tokens at its price")
        for card in pool.workers
    )
    assumptions = ["Every model is taken to write as many tokens as the logged answer has."]
    routing = _routing(requests, pool)
    if routing is None:
        assumptions.append("A price of the decomposer or allocator is unknown: so is the router's.")
    else:
        assumptions.append(
            f"The router is taken to answer directly, after the decomposer ({pool.decomposer}) has"
            f" read the request and its prompt and written {PLAN_TOKENS} tokens and the request."
        )
    chosen, p_right, how = _chosen(requests, pool, trade_off)
    assumptions.append(how)
    costs = [card.price.cost(u) for card, u in chosen if card.price is not None]
    whole = bool(chosen) and len(costs) == len(chosen)
    cost = sum(costs) + routing if whole and routing is not None else None
    low, high = _ends(pool, usages, routing) if not chosen else (None, None)
    router = Estimate("r2", cost, "estimated without a call", low, high)
    return Outlook(router, workers, tuple(assumptions), p_right)


def _at(card: Card, usages: Sequence[Usage]) -> Pico | None:
    price = card.price
    return None if price is None else sum(price.cost(_fresh(usage)) for usage in usages)


def _fresh(usage: Usage) -> Usage:
    """Return a usage without cached tokens: another model's cache is cold."""
    return Usage(usage.input_tokens, usage.output_tokens)


def _chosen(
    requests: Sequence[Logged], pool: Pool, trade_off: float
) -> tuple[list[tuple[Card, Usage]], float | None, str]:
    """Return the model for each request, where the allocator can tell without a call."""
    try:
        allocator = open_allocator(pool, trade_off)
    except DataError as error:
        return [], None, f"The allocator cannot choose: {error}."
    known = [(r, r.usage) for r in requests if r.usage is not None]
    if isinstance(allocator, LadderAllocator):
        card = pool.card(allocator.choice.model)
        how = f"The pool is not calibrated: at trade-off {trade_off:g} every request goes to"
        chosen = [(card, _fresh(usage)) for _, usage in known]
        return chosen, None, f"{how} {card.name}. Run `r2reasoner calibrate` on your own items."
    if not isinstance(allocator, CalibratedAllocator):
        how = f"The allocator ({pool.allocator}) chooses only when asked: from all to the cheapest"
        return [], None, f"{how} model to all to the dearest."
    choices = [(allocator.choose(r.messages[-1].content), usage) for r, usage in known]
    rights = [c.p_right for c, _ in choices if c.p_right is not None]
    mean = sum(rights) / len(rights) if rights else None
    chosen = [(pool.card(c.model), _fresh(usage)) for c, usage in choices]
    return chosen, mean, "Each request goes to the model that the pool's measured outcomes choose."


def _ends(
    pool: Pool, usages: Sequence[Usage], routing: Pico | None
) -> tuple[Pico | None, Pico | None]:
    costs = [_at(card, usages) for card in pool.workers]
    known = [cost for cost in costs if cost is not None]
    if routing is None or len(known) < len(costs):
        return None, None
    return min(known) + routing, max(known) + routing


def _routing(requests: Sequence[Logged], pool: Pool) -> Pico | None:
    """Return what deciding costs over all requests; None where a price is unknown."""
    planner = pool.card(pool.decomposer)
    prompt = len(prompts.read("decompose").encode()) // BYTES_PER_TOKEN
    overhead = prompt if planner.plan_format == "json" else 0
    usages = []
    for request in requests:
        if request.usage is not None:
            size = len(request.messages[-1].content.encode("utf-8", "replace"))
            own = -(-size // BYTES_PER_TOKEN)
            made = min(planner.max_tokens, own + PLAN_TOKENS)
            usages.append(Usage(request.usage.input_tokens + overhead, made))
    cost = _at(planner, usages)
    if pool.allocator in ("calibrated", "ladder") or cost is None:
        return cost
    allocator = pool.card(pool.allocator)
    asked = [Usage(u.input_tokens, ALLOCATION_TOKENS) for u in usages]
    more = _at(allocator, asked)
    return None if more is None else cost + more
