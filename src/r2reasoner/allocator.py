"""The subtask allocator: Plan -> Allocation (section "subtask allocator" of the paper).

Four ways to choose a model for each subtask, behind one protocol:
`PolicyAllocator` asks a trained policy, subtask by subtask; `CalibratedAllocator` goes by outcomes
measured on training items (as our own estimate or a light router has them), `LadderAllocator` by
the cards alone (says "uncalibrated"); `PromptedAllocator` asks any chat model, which reads subtasks
and cards.
All obey one dial, `trade_off`: 0 is quality only, 1 is the cheapest model.
"""

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Final, Protocol

from r2reasoner import prompts
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client
from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    ConfigError,
    DataError,
    PlanError,
    PlanFault,
    UnknownWords,
)
from r2reasoner.estimate import OutcomeModel
from r2reasoner.plan import in_context
from r2reasoner.policy import asked, read_model
from r2reasoner.pool.cards import LIGHT, Card, Pool
from r2reasoner.types import Allocation, Choice, Message, Plan, Query, Role

ALLOCATION_MAX_TOKENS: Final = 600
POLICY_MAX_TOKENS: Final = 2


class Allocator(Protocol):
    """Anything that gives each subtask a model."""

    async def allocate(
        self, query: Query, plan: Plan, client: Client, meter: Meter, deadline: float | None
    ) -> Allocation:
        """Return one choice per subtask; joins get None."""
        ...


def open_allocator(pool: Pool, trade_off: float) -> Allocator:
    """Return the allocator that a pool file names; without outcomes, the ladder.

    Raises ConfigError for an unknown name, and where a light router cannot be had.
    """
    if pool.allocator == "calibrated" and pool.outcomes is not None and pool.outcomes.exists():
        return CalibratedAllocator(pool, OutcomeModel.load(pool.outcomes), trade_off)
    if pool.allocator in ("calibrated", "ladder"):
        return LadderAllocator(pool, trade_off)
    if pool.allocator.startswith(LIGHT):
        return light_allocator(pool, pool.allocator.removeprefix(LIGHT), trade_off)
    card = pool.card(pool.allocator)
    if card.plan_format == "line":
        return PolicyAllocator(pool, card, trade_off)
    return PromptedAllocator(pool, card, trade_off)


def light_allocator(pool: Pool, name: str, trade_off: float) -> "CalibratedAllocator":
    """Return the allocator that goes by a light router, trained on the pool's measured outcomes.

    Raises ConfigError for an unknown router, and where outcomes or scikit-learn are missing.
    """
    from r2reasoner.outcomes.measured import subtask_outcomes
    from r2reasoner.outcomes.routers.estimate import light_estimate

    estimate = light_estimate(name, subtask_outcomes(pool))
    return CalibratedAllocator(pool, estimate, trade_off, f"{LIGHT}{name}")


def cost_weight(trade_off: float) -> float:
    """Return mu: how much of `log P(right)` is given up to save what the dearest model costs."""
    return math.inf if trade_off >= 1 else trade_off**2 / (4 * (1 - trade_off))


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
        card = pool.cheapest if trade_off == 1 else pool.workers[round((1 - trade_off) * top)]
        reason = f"uncalibrated: trade-off {trade_off:g} on the ladder of {top + 1} models"
        self.choice = Choice(card.name, reason)

    async def allocate(
        self, query: Query, plan: Plan, client: Client, meter: Meter, deadline: float | None
    ) -> Allocation:
        """Return the same choice for every subtask."""
        return uniform(plan, self.choice, "ladder")


class Estimate(Protocol):
    """What outcomes say of some models. `mean_cost` in pico-dollars by name, NaN where unknown."""

    @property
    def models(self) -> Sequence[str]:
        """The models that it knows."""
        ...

    @property
    def mean_cost(self) -> Mapping[str, float]:
        """What a call to each has cost."""
        ...

    def p_right(self, text: str) -> Mapping[str, float]:
        """Return each model's probability of getting a text right, above 0."""
        ...


class CalibratedAllocator:
    """The cheapest model likely to be right, by outcomes measured on training items.

    Each subtask takes the model with the highest `log P(right) - mu * cost`, cost relative to the
    dearest model's and `mu = t^2 / (4 (1 - t))`: that maximises the plan's chance of being right
    for its cost, and makes cost fall monotonically as `trade_off` t rises. The square spreads the
    dial where it matters: at mu 0.03 a model of half the price may be 1.5 % less often right.
    `relative_cost` is by name, of the workers that were measured; `name` is what allocations and
    traces call it.
    """

    def __init__(
        self, pool: Pool, outcomes: Estimate, trade_off: float, name: str = "calibrated"
    ) -> None:
        self.name = name
        self._outcomes = outcomes
        self._mu = cost_weight(trade_off)
        known = [c.name for c in pool.workers if c.name in outcomes.models]
        if not known:
            raise DataError(
                f"the measured outcomes know none of the pool's models; they know"
                f" {', '.join(outcomes.models)}: run `r2reasoner calibrate` with this pool"
            )
        self.relative_cost = self._relative_costs(known)

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
            lambda number, text: self.choose(in_context(plan, number)),
            self.name,
            calibrated=True,
        )

    def choose(self, text: str) -> Choice:
        """Return the best of the measured models for a text."""
        return self.best(self.p_right(text), self.relative_cost.keys())

    def p_right(self, text: str) -> Mapping[str, float]:
        """Return each model's probability of getting a text right."""
        return self._outcomes.p_right(text)

    def best(self, p_right: Mapping[str, float], among: Set[str]) -> Choice:
        """Return the best of the measured models in `among`, given how likely each is right."""
        cost = self.relative_cost
        names = [name for name in cost if name in among]
        if math.isinf(self._mu):
            best = min(names, key=lambda name: cost[name])
        else:
            best = max(names, key=lambda name: math.log(p_right[name]) - self._mu * cost[name])
        reason = f"right {p_right[best]:.0%} of the time at {cost[best]:.1%} of the top price"
        return Choice(best, reason, p_right[best])


class PolicyAllocator:
    """A trained policy that reads a subtask in its context and writes one model's token.

    Subtasks are asked for at the same time. Where it writes no model that it knows, the ladder
    chooses, visibly. Workers that came to the pool after it was trained are compared with its
    choice by measured outcomes, so a new model needs no new policy.
    """

    def __init__(self, pool: Pool, card: Card, trade_off: float) -> None:
        workers = {w.name for w in pool.workers}
        unknown = [name for name in card.knows if name not in workers]
        if not card.knows or unknown:
            raise ConfigError(
                f"policy {card.name!r}: knows must list workers of this pool, weakest first;"
                f" {', '.join(unknown) if unknown else 'it lists none'}"
            )
        self.card = card
        self._trade_off = trade_off
        self._ladder = LadderAllocator(pool, trade_off)
        self._known = set(card.knows)
        self._newcomers = workers - self._known
        self._measured: CalibratedAllocator | None = None
        if self._newcomers and pool.outcomes is not None and pool.outcomes.exists():
            outcomes = OutcomeModel.load(pool.outcomes)
            self._newcomers &= set(outcomes.models)
            if self._newcomers:
                self._measured = CalibratedAllocator(pool, outcomes, trade_off)

    async def allocate(
        self, query: Query, plan: Plan, client: Client, meter: Meter, deadline: float | None
    ) -> Allocation:
        """Return the policy's choices. Raises DeadlineExceeded and LedgerError."""
        numbers = [n for n, s in enumerate(plan.subtasks, 1) if not s.is_join]
        choices = await asyncio.gather(
            *(self._choose(plan, number, client, meter, deadline) for number in numbers)
        )
        chosen = dict(zip(numbers, choices, strict=True))
        return per_subtask(
            plan, lambda number, text: chosen[number], self.card.name, calibrated=True
        )

    async def _choose(
        self, plan: Plan, number: int, client: Client, meter: Meter, deadline: float | None
    ) -> Choice:
        text = in_context(plan, number)
        request = ChatRequest(
            messages=(Message("user", asked(self.card, self._trade_off, text)),),
            max_tokens=POLICY_MAX_TOKENS,
            role=Role.ALLOCATOR,
            subtask=number,
        )
        try:
            completion = await client.complete(self.card, request, meter, deadline)
            name = read_model(completion.text, self.card.knows)
        except (BudgetExceeded, CallError, PlanError, UnknownWords) as error:
            return replace(self._ladder.choice, reason=f"ladder, since {error}")
        return self._or_newcomer(name, text) or Choice(name, f"chosen by {self.card.name}")

    def _or_newcomer(self, name: str, text: str) -> Choice | None:
        """Return the newcomer that measured outcomes prefer to the policy's choice, or None.

        The policy may know better than they do that a cheap model will do. A dearer newcomer is
        taken only where they agree with the policy about the models that it knows.
        """
        if self._measured is None or name not in self._measured.relative_cost:
            return None
        p_right, cost = self._measured.p_right(text), self._measured.relative_cost
        rivals = self._newcomers
        if self._measured.best(p_right, self._known).model != name:
            rivals = {rival for rival in rivals if cost[rival] <= cost[name]}
        best = self._measured.best(p_right, {name, *rivals})
        return None if best.model == name else best


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
        cards = "\n".join(card_line(card) for card in self._pool.workers)
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


def card_line(card: Card) -> str:
    """Return a worker as prompts list it: name, group, prices, context."""
    price = f"{card.price.input} in, {card.price.output} out" if card.price else "price unknown"
    group = f" ({card.group})" if card.group else ""
    return f"- {card.name}{group}: {price}, context {card.context}"
