"""What a training is expected to take, before anything is paid: calls, dollars, hours, memory.

Expected figures, not bounds: for the average item of the recipe (`profile`), on stated assumptions
where only a run could tell, and no answer counted twice, since the outcome store has it. A model
without a known price makes the cost unknown, never 0. What holds in any case is the cap, and
`check_budget` refuses one that cannot carry a single group. Left out: retries and fall-backs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Final, NamedTuple

from r2reasoner import prompts
from r2reasoner.bill import show_money
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.pool.cards import MOST_MODELS, Card, Pool, Price
from r2reasoner.training.memory import GIB, Memory, memory, shape_of, vllm_shortage
from r2reasoner.training.profile import Items, items_of
from r2reasoner.training.recipe import POLICIES, PolicyName, Recipe, stages
from r2reasoner.training.speed import HTTP_CALL_S, calls_s, grpo_step_s, learning_s, on_gpu
from r2reasoner.types import Pico, Usage, to_pico

BYTES_PER_TOKEN: Final = 4
ANSWER_TOKENS: Final = 200
PLAN_TOKENS: Final = 300
"""Of a chat model: tokens of an answer to a subtask, and of a plan."""
NANO_PLAN_SHARE: Final = 0.6
"""Tokens of a nano plan's line, to those of what was asked."""
MODELS_TRIED: Final = 2.0
"""Different models that one subtask meets in a decomposer's rollouts."""
CHAINED: Final = 1.5
"""Different inputs of one subtask: earlier answers may be wrong in different ways."""
CALL_OVERHEAD: Final = 128
"""Tokens that a client reserves for what a provider puts around messages."""
SECONDS_PER_HOUR: Final = 3600


class Paid(NamedTuple):
    """Calls to one model, and what they cost (None: its price is unknown)."""

    calls: int
    cost: Pico | None


@dataclass(frozen=True, slots=True)
class StageForecast:
    """One stage: calls by model, and hours."""

    name: str
    models: Mapping[str, Paid]
    hours: float

    @property
    def calls(self) -> int:
        """All its calls."""
        return sum(paid.calls for paid in self.models.values())

    @property
    def cost(self) -> Pico | None:
        """What it costs, in pico-dollars; None where a price is unknown."""
        return _total(paid.cost for paid in self.models.values())


@dataclass(frozen=True, slots=True)
class Forecast:
    """A whole training. `group_reserve`: what one group may hold reserved, in pico-dollars.

    `notes` are what the user should know or mend, `assumptions` what the figures rest on.
    """

    items: Items
    stages: tuple[StageForecast, ...]
    memory: Mapping[PolicyName, Memory | None]
    group_reserve: Pico | None
    notes: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """Calls of all stages."""
        return sum(stage.calls for stage in self.stages)

    @property
    def cost(self) -> Pico | None:
        """What all stages cost, in pico-dollars; None where a price is unknown."""
        return _total(stage.cost for stage in self.stages)

    @property
    def known_cost(self) -> Pico:
        """The part of the cost whose prices are known."""
        return sum(paid.cost or 0 for paid in self.models.values())

    @property
    def hours(self) -> float:
        """Hours of all stages, one after the other."""
        return sum(stage.hours for stage in self.stages)

    @property
    def models(self) -> dict[str, Paid]:
        """Calls and cost by model, over all stages."""
        found: dict[str, Paid] = {}
        for stage in self.stages:
            for name, paid in stage.models.items():
                before = found.get(name, Paid(0, 0))
                cost = _total((before.cost, paid.cost))
                found[name] = Paid(before.calls + paid.calls, cost)
        return found


def forecast(recipe: Recipe, pool: Pool, wanted: Iterable[str] | None = None) -> Forecast:
    """Return what a recipe's stages (or the wanted ones) are expected to take over a pool.

    Nothing is called. `workers`, which trains nano models, and `pool`, which writes a file, cost
    nothing and are left out. Raises ConfigError where recipe and pool do not fit, DataError for a
    file whose items cannot be read.
    """
    check_pool(recipe, pool)
    maker = _Maker(recipe, pool, items_of(recipe.data, recipe.run.seed))
    parts = (maker.stage(name) for name in (stages(recipe) if wanted is None else wanted))
    made = Forecast(
        items=maker.items,
        stages=tuple(part for part in parts if part is not None),
        memory={name: memory(recipe, name, on_gpu=on_gpu(recipe)) for name in POLICIES},
        group_reserve=maker.group_reserve(),
        assumptions=maker.assumptions(),
    )
    notes = [f"{file}: not there yet; its items are assumed" for file in made.items.missing]
    notes += [*_money_notes(recipe, pool, made), *_memory_notes(recipe, made)]
    return replace(made, notes=tuple(notes))


def check_pool(recipe: Recipe, pool: Pool) -> None:
    """Raise ConfigError where a recipe asks of a pool what it does not have."""
    for name in (recipe.data.worker, recipe.data.proposer_model):
        if name:
            pool.card(name)
    if len(pool.workers) > MOST_MODELS:
        raise ConfigError(
            f"pool {pool.name!r} has {len(pool.workers)} workers; an allocator policy can name"
            f" {MOST_MODELS}: leave some out"
        )


def check_items(made: Forecast) -> None:
    """Raise DataError where a file of items is not there."""
    if made.items.missing:
        raise DataError(
            f"{made.items.missing[0]}: no such file; [[data.sources]] takes items from it"
        )


def check_budget(recipe: Recipe, made: Forecast) -> None:
    """Raise ConfigError where calls are expected and the cap cannot carry one group of rollouts."""
    if not made.calls:
        return
    cap, reserve = to_pico(recipe.run.cap), made.group_reserve
    if reserve is None:
        raise ConfigError(
            f"no worker of pool {recipe.run.pool!r} has a known price, and under a cap no model"
            " without one is called: give input_price and output_price in the pool file"
        )
    if cap < reserve:
        raise ConfigError(
            f"[recipe] cap of {show_money(cap)} is too small for one group: its"
            f" {recipe.grpo.group} rollouts may hold {show_money(reserve)} reserved at a time, and"
            f" the whole training is expected to cost {show_money(made.known_cost)}"
            f"{'' if made.cost is not None else ' and what has no known price'}; raise cap, or"
            " lower [grpo] group or the workers' max_tokens"
        )


class _Maker:
    """Puts a forecast together for one recipe over one pool."""

    def __init__(self, recipe: Recipe, pool: Pool, items: Items) -> None:
        self.recipe = recipe
        self.pool = pool
        self.items = items
        self.profile = items.profile

    def stage(self, stage: str) -> StageForecast | None:
        """Return the forecast of a stage; None where it costs nothing."""
        kind, *rest = stage.split("-")
        policy: PolicyName = "decomposer" if rest[-1:] == ["decomposer"] else "allocator"
        match kind:
            case "decompositions":
                return self._decompositions()
            case "allocations":
                return self._allocations()
            case "sft":
                return self._sft(stage, policy) if self.recipe.sft[policy].trains else None
            case "grpo":
                return self._grpo(stage, int(rest[0]), policy)
            case "evaluate":
                return self._evaluate()
            case _:
                return None

    def _decompositions(self) -> StageForecast:
        """Return the forecast of running every candidate of every item."""
        data, p = self.recipe.data, self.profile
        worker = self.pool.card(data.worker) if data.worker else self.pool.strongest
        calls = _Calls()
        if data.proposer == "prompted":
            text = len(prompts.read("decompose")) + p.query_bytes
            model = self.pool.card(data.proposer_model)
            count = self.items.count * (data.candidates - 1)
            calls.add(model.name, model.price, count, _usage(text / BYTES_PER_TOKEN, PLAN_TOKENS))
        calls.add(worker.name, worker.price, self.items.count * p.tried, self._asked(worker))
        return self._forecast("decompositions", calls)

    def _allocations(self) -> StageForecast:
        """Return that of a trial answer for each subtask, the walk, and exhaustive search."""
        search, subtasks = self.recipe.data.search, self.profile.subtasks
        every = subtasks * len(self.pool.workers) * CHAINED
        walk = min(search.trials * (subtasks + 1) / 2, every)
        small = len(self.pool.workers) ** subtasks <= search.exhaustive_most
        items = self.items.reinforced
        whole = min(search.exhaustive_items, items) if small else 0
        count = items * (subtasks + walk) + whole * max(every - walk, 0)
        return self._forecast("allocations", self._spread(count))

    def _sft(self, stage: str, name: PolicyName) -> StageForecast:
        sft, policy = self.recipe.sft[name], self.recipe.policies[name]
        items = self.items.count if name == "decomposer" else self.items.reinforced
        rows = items * self._calls_of(name)
        steps = sft.steps or ceil(sft.epochs * rows / sft.batch)
        tokens = sft.batch * (policy.max_prompt + policy.max_completion) / 2
        seconds = steps * learning_s(self.recipe, name, tokens)
        return self._forecast(stage, _Calls(), seconds)

    def _grpo(self, stage: str, round_: int, name: PolicyName) -> StageForecast:
        """Return that of a phase: answers that are not on record, and both policies as served."""
        grpo, p = self.recipe.grpo, self.profile
        prompts_ = grpo.steps(name) * grpo.prompts_per_step
        used = min(prompts_, self.items.reinforced)
        unseen = min(prompts_ * round_, self.items.reinforced)
        unseen -= min(prompts_ * (round_ - 1), self.items.reinforced)
        levels = max(self.recipe.policies[name].dial, 1)
        if name == "decomposer":
            new = min(unseen * grpo.group * p.subtasks, unseen * p.tried * MODELS_TRIED)
            allocated = min(prompts_ * grpo.group * p.subtasks, used * p.tried * levels)
        else:
            every = unseen * p.subtasks * len(self.pool.workers) * CHAINED
            new = min(prompts_ * grpo.group * p.subtasks, every)
            allocated = used * p.subtasks * levels
        calls = self._spread(new)
        self._add_policy(calls, "decomposer", min(prompts_, used * levels) * p.lines)
        self._add_policy(calls, "allocator", allocated)
        seconds = grpo.steps(name) * grpo_step_s(self.recipe, name)
        return self._forecast(stage, calls, seconds)

    def _evaluate(self) -> StageForecast:
        evaluate = self.recipe.evaluate
        answers = len(evaluate.splits) * evaluate.items * len(evaluate.dial)
        calls = self._spread(answers * self.profile.subtasks)
        for name in POLICIES:
            self._add_policy(calls, name, answers * self._calls_of(name))
        return self._forecast("evaluate", calls)

    def group_reserve(self) -> Pico | None:
        """Return what a group's calls may hold reserved; None where no worker has a price."""
        costs = [c.price.cost(self._bound(c)) for c in self.pool.workers if c.price is not None]
        rollouts = self.recipe.grpo.group
        return ceil(max(costs) * self.profile.subtasks * rollouts) if costs else None

    def assumptions(self) -> tuple[str, ...]:
        """Return what the figures rest on, in words."""
        p = self.profile
        how = "assumed" if self.recipe.data.proposer == "prompted" else "from a sample"
        lines = [
            f"{p.subtasks:.1f} subtasks a plan, {p.candidates:.1f} candidates an item ({how})",
            "subtasks spread evenly over the workers; no answer is paid twice",
        ]
        if any(card.prompt == "chat" for card in self.pool.workers):
            lines.append(f"{ANSWER_TOKENS} tokens an answer, {HTTP_CALL_S:g} s a call over HTTP")
        where = "a GPU like an H100 (not measured)" if on_gpu(self.recipe) else "two CPU cores"
        lines.append(f"speeds of {where}, rough")
        if any(self.recipe.policies[name].shape is None for name in POLICIES):
            lines.append("policies run on your own machines: in hours, not in dollars")
        if self.recipe.data.nano_set != "none":
            lines.append("training a nano worker to search on is not in it (some minutes)")
        return tuple(lines)

    def _forecast(self, name: str, calls: "_Calls", seconds: float = 0.0) -> StageForecast:
        """Return a stage's forecast: its calls, and seconds beside theirs."""
        remote = {c.name for c in self.pool.workers if c.endpoint.kind != "embedded"}
        remote |= {f"policy {n}" for n in POLICIES if self.recipe.policies[n].shape is None}
        far = sum(count for model, count in calls.counts.items() if model in remote)
        near = sum(calls.counts.values()) - far
        seconds += calls_s(near, far, self.recipe.data.in_flight)
        return StageForecast(name, calls.paid(), seconds / SECONDS_PER_HOUR)

    def _asked(self, card: Card) -> Usage:
        """Return the tokens of one subtask's call."""
        p = self.profile
        if card.prompt == "plain":
            return _usage(p.query_words / p.subtasks + 2, p.gold_words / p.subtasks + 1)
        earlier = (p.subtasks - 1) / 2 * ANSWER_TOKENS
        text = len(prompts.read("subtask")) + 2 * p.query_bytes
        return _usage(text / BYTES_PER_TOKEN + earlier, min(ANSWER_TOKENS, card.max_tokens))

    def _bound(self, card: Card) -> Usage:
        """Return the most tokens of one subtask's call, as clients reserve for it."""
        p = self.profile
        if card.endpoint.kind == "embedded":
            return _usage(p.query_words + 2, card.max_tokens)
        read = p.query_bytes + CALL_OVERHEAD
        if card.prompt == "chat":
            earlier = (p.subtasks - 1) * ANSWER_TOKENS * BYTES_PER_TOKEN
            read += len(prompts.read("subtask")) + p.query_bytes + earlier
        return _usage(read, card.max_tokens)

    def _calls_of(self, name: PolicyName) -> float:
        """Return how often a policy is called for one query."""
        return self.profile.lines if name == "decomposer" else self.profile.subtasks

    def _spread(self, count: float) -> "_Calls":
        """Return so many subtasks' calls, spread evenly over the workers."""
        calls = _Calls()
        for card in self.pool.workers:
            calls.add(card.name, card.price, count / len(self.pool.workers), self._asked(card))
        return calls

    def _add_policy(self, calls: "_Calls", name: PolicyName, count: float) -> None:
        """Count calls to a served policy; a nano one has the pool's price for its size."""
        policy, p = self.recipe.policies[name], self.profile
        shape = shape_of(policy)
        rate = Decimal(0)
        if policy.shape is not None and shape is not None:
            rate = Decimal(shape.parameters) / 1_000_000
        if name == "decomposer":
            usage = _usage(p.query_words + 3, NANO_PLAN_SHARE * p.query_words + 1)
        else:
            usage = _usage(p.query_words / p.subtasks + 3, 2)
        calls.add(f"policy {name}", Price(rate, rate), count, usage)


class _Calls:
    """Counts calls and costs by model, in fractions until they are read."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}
        self._costs: dict[str, Fraction | None] = {}

    def add(self, model: str, price: Price | None, count: float, usage: Usage) -> None:
        """Count calls of so many tokens each."""
        self.counts[model] = self.counts.get(model, 0) + count
        before = self._costs.get(model, Fraction(0))
        if price is None or before is None:
            self._costs[model] = None
        else:
            self._costs[model] = before + Fraction(count) * price.cost(usage)

    def paid(self) -> dict[str, Paid]:
        """Return whole calls and pico-dollars by model."""
        costs = {m: None if c is None else ceil(c) for m, c in self._costs.items()}
        return {model: Paid(ceil(count), costs[model]) for model, count in self.counts.items()}


def _total(costs: Iterable[Pico | None]) -> Pico | None:
    """Return the sum of costs; None where one is unknown."""
    listed = list(costs)
    known = [cost for cost in listed if cost is not None]
    return sum(known) if len(known) == len(listed) else None


def _usage(read: float, written: float) -> Usage:
    return Usage(ceil(read), ceil(written))


def _money_notes(recipe: Recipe, pool: Pool, made: Forecast) -> Iterator[str]:
    unpriced = [card.name for card in pool.workers if card.price is None]
    if unpriced:
        yield (
            f"no known price: {', '.join(unpriced)}; under the cap they are not called, so nothing"
            " is learned about them: give input_price and output_price in the pool file"
        )
    cap = to_pico(recipe.run.cap)
    if made.known_cost > cap:
        yield (
            f"the cap of {show_money(cap)} will end the training early:"
            f" {show_money(made.known_cost)} are expected"
        )


def _memory_notes(recipe: Recipe, made: Forecast) -> Iterator[str]:
    for name, needed in made.memory.items():
        policy = recipe.policies[name]
        if needed is None:
            yield f"memory of the {name} unknown: {policy.base} is no folder here, nor a known name"
        elif not needed.fits:
            yield (
                f"the {name} needs about {needed.needs / GIB:.0f} GiB of a GPU's"
                f" {recipe.hardware.gpu_memory_gib:g}: lower [grpo] micro_batch or"
                " [grpo.vllm] memory_share, or take a smaller base"
            )
        shortage = vllm_shortage(recipe, policy)
        if shortage:
            yield shortage
