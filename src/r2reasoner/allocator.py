"""The subtask allocator: Plan -> Allocation (section "subtask allocator" of the paper).

Three ways to choose a model for each subtask, behind one protocol:
`CalibratedAllocator` from outcomes measured on training items, `LadderAllocator` from the cards
alone (says "uncalibrated"), `PromptedAllocator` asks a model that reads subtasks and cards.
All obey one dial, `trade_off`: 0 is quality only, 1 is the cheapest model.
"""

import json
import math
from collections.abc import Callable
from typing import Any, Final, Protocol

from r2reasoner import prompts
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client
from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    DataError,
    PlanError,
    PlanFault,
    UnknownWords,
)
from r2reasoner.estimate import OutcomeModel
from r2reasoner.plan import in_context
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import Allocation, Choice, Message, Plan, Query, Role

ALLOCATION_MAX_TOKENS: Final = 600


class Allocator(Protocol):
    """Anything that gives each subtask a model."""

    async def allocate(
        self, query: Query, plan: Plan, client: Client, meter: Meter, deadline: float | None
    ) -> Allocation:
        """Return one choice per subtask; joins get None."""
        ...


def open_allocator(pool: Pool, trade_off: float) -> Allocator:
    """Return the allocator that a pool file names; without outcomes, the ladder."""
    if pool.allocator == "calibrated" and pool.outcomes is not None and pool.outcomes.exists():
        return CalibratedAllocator(pool, OutcomeModel.load(pool.outcomes), trade_off)
    if pool.allocator in ("calibrated", "ladder"):
        return LadderAllocator(pool, trade_off)
    return PromptedAllocator(pool, pool.card(pool.allocator), trade_off)


def per_subtask(
    plan: Plan, choose: Callable[[int, str], Choice], name: str, *, calibrated: bool
) -> Allocation:
    """Build an allocation by a function of each subtask's number and text."""
    return Allocation(
        tuple(
            None if subtask.is_join else choose(number, subtask.text)
            for number, subtask in enumerate(plan.subtasks, 1)
        ),
        name,
        calibrated,
    )


def uniform(plan: Plan, choice: Choice, name: str) -> Allocation:
    """Build the allocation that gives every subtask the same choice."""
    return per_subtask(plan, lambda number, text: choice, name, calibrated=False)


class LadderAllocator:
    """One rung of the workers' ladder for every subtask, by the dial alone."""

    def __init__(self, pool: Pool, trade_off: float) -> None:
        top = len(pool.workers) - 1
        self._card = pool.cheapest if trade_off == 1 else pool.workers[round((1 - trade_off) * top)]
        self._reason = f"uncalibrated: trade-off {trade_off:g} on the ladder of {top + 1} models"

    async def allocate(
        self, query: Query, plan: Plan, client: Client, meter: Meter, deadline: float | None
    ) -> Allocation:
        """Return the same choice for every subtask."""
        return uniform(plan, Choice(self._card.name, self._reason), "ladder")


class CalibratedAllocator:
    """The cheapest model likely to be right, by outcomes measured on training items.

    Each subtask takes the model with the highest `log P(right) - mu * cost`, cost relative to the
    dearest model's and `mu = t^2 / (4 (1 - t))`: that maximises the plan's chance of being right
    for its cost, and makes cost fall monotonically as `trade_off` t rises. The square spreads the
    dial where it matters: at mu 0.03 a model of half the price may be 1.5 % less often right.
    """

    def __init__(self, pool: Pool, outcomes: OutcomeModel, trade_off: float) -> None:
        self._outcomes = outcomes
        self._mu = math.inf if trade_off >= 1 else trade_off**2 / (4 * (1 - trade_off))
        known = [c.name for c in pool.workers if c.name in outcomes.models]
        if not known:
            raise DataError(
                f"the measured outcomes know none of the pool's models; they know"
                f" {', '.join(outcomes.models)}: run `r2reasoner calibrate` with this pool"
            )
        self._cost = self._relative_costs(known)

    def _relative_costs(self, known: list[str]) -> dict[str, float]:
        costs = {name: self._outcomes.mean_cost[name] for name in known}
        priced = [c for c in costs.values() if not math.isnan(c)]
        dearest = max(priced, default=0.0) or 1.0
        # an unknown cost counts as the dearest: it must not be chosen for being "free"
        return {n: 1.0 if math.isnan(c) else c / dearest for n, c in costs.items()}

    async def allocate(
        self, query: Query, plan: Plan, client: Client, meter: Meter, deadline: float | None
    ) -> Allocation:
        """Return the best model for each subtask's text; no model is called."""
        return per_subtask(
            plan,
            lambda number, text: self._choose(in_context(plan, number)),
            "calibrated",
            calibrated=True,
        )

    def _choose(self, text: str) -> Choice:
        p_right = self._outcomes.p_right(text)
        if math.isinf(self._mu):
            best = min(self._cost, key=lambda name: self._cost[name])
        else:
            best = max(
                self._cost,
                key=lambda name: math.log(p_right[name]) - self._mu * self._cost[name],
            )
        return Choice(
            best,
            f"right {p_right[best]:.0%} of the time at {self._cost[best]:.1%} of the top price",
            p_right[best],
        )


class PromptedAllocator:
    """A model that reads the subtasks and the cards; one repair, then the ladder, visibly."""

    def __init__(self, pool: Pool, card: Card, trade_off: float) -> None:
        self._pool = pool
        self._card = card
        self._trade_off = trade_off
        self._ladder = LadderAllocator(pool, trade_off)

    async def allocate(
        self, query: Query, plan: Plan, client: Client, meter: Meter, deadline: float | None
    ) -> Allocation:
        """Return the model's choices."""
        messages = self._messages(query, plan)
        problem = ""
        for note in ("cards", "cards repair"):
            request = ChatRequest(
                messages=tuple(messages),
                max_tokens=min(ALLOCATION_MAX_TOKENS, self._card.max_tokens),
                role=Role.ALLOCATOR,
                note=note,
            )
            try:
                completion = await client.complete(self._card, request, meter, deadline)
                names = self._read(completion.text, len(plan.subtasks))
            except PlanError as error:
                problem = str(error)
                messages += [
                    Message("assistant", completion.text[:4000]),
                    Message("user", f"{problem}. Write the whole JSON again."),
                ]
            except (BudgetExceeded, CallError, UnknownWords) as error:
                problem = str(error)
                break
            else:
                return self._allocation(plan, names)
        ladder = await self._ladder.allocate(query, plan, client, meter, deadline)
        return Allocation(ladder.choices, f"ladder, since {problem}", calibrated=False)

    def _allocation(self, plan: Plan, names: list[str]) -> Allocation:
        reason = f"chosen by {self._card.name} from the cards (uncalibrated)"
        return per_subtask(
            plan,
            lambda number, text: Choice(names[number - 1], reason),
            self._card.name,
            calibrated=False,
        )

    def _messages(self, query: Query, plan: Plan) -> list[Message]:
        cards = "\n".join(_card_line(card) for card in self._pool.workers)
        system = prompts.read("allocate").format(trade_off=f"{self._trade_off:g}", cards=cards)
        steps = "\n".join(f"{n}. {s.text}" for n, s in enumerate(plan.subtasks, 1))
        user = f"The query:\n{prompts.as_data(query.text)}\nThe subtasks:\n{prompts.as_data(steps)}"
        return [Message("system", system), Message("user", user)]

    def _read(self, text: str, count: int) -> list[str]:
        try:
            document: Any = json.loads(text[text.find("{") : text.rfind("}") + 1])
            names = document["models"]
        except (ValueError, TypeError, KeyError, RecursionError):
            names = None
        if not isinstance(names, list) or len(names) != count:
            raise PlanError(
                PlanFault.UNREADABLE, f'expected {{"models": [...]}} with {count} names'
            )
        known = {card.name for card in self._pool.workers}
        for name in names:
            if not isinstance(name, str) or name not in known:
                raise PlanError(PlanFault.UNKNOWN_MODEL, f"no worker is named {name!r}")
        return names


def _card_line(card: Card) -> str:
    price = f"{card.price.input} in, {card.price.output} out" if card.price else "price unknown"
    group = f" ({card.group})" if card.group else ""
    return f"- {card.name}{group}: {price}, context {card.context}"
