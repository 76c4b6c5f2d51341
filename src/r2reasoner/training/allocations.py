"""Allocation data: grouped search over models for plans whose answer is known (section "SFT data").

The paper splits the pool in three groups by size. Each subtask starts at the middle model of the
group that matches its difficulty, which is how sure a trial answer's tokens were. While the final
answer is right, subtasks move to weaker models; when it is wrong, to stronger ones: inside a group
first, then to the next. The walk ends where no single move helps, or where its trials are spent;
the label is the cheapest right allocation that it met. Where none was right, the label is the
strongest everywhere, at which the paper's moves upwards end, and the row says so.

A walk down stops at the first model that is wrong, so it misses weaker ones that happen to be
right; `far` moves pass over them. Labels are then cheaper, luckier, and worse to imitate.

A trial is a real run of the plan; with a `RecordedClient` no answer is paid for twice. Left out:
which items, and who runs `process` on many of them (`shards`).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from math import prod
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from r2reasoner.benchmarks.grading import Grade, exact
from r2reasoner.client.base import Client
from r2reasoner.errors import ConfigError, DataError, PlanError
from r2reasoner.ledger import Ledger
from r2reasoner.outcomes.records import Outcome
from r2reasoner.plan import in_context
from r2reasoner.pool.cards import Group, Pool
from r2reasoner.training.columns import Column, Form
from r2reasoner.training.groups import Ladder, Rungs
from r2reasoner.training.optimum import Compared, Found
from r2reasoner.training.rows import ITEM, Row, item_of, read_plan
from r2reasoner.training.trials import Runner
from r2reasoner.training.verdicts import verdicts
from r2reasoner.types import Allocation, Choice, Pico, Plan, Step, Task

FORM: Final = Form(
    dict.fromkeys((*ITEM, "plan", "subtasks", "models"), Column.TEXT)
    | {"right": Column.FLAG, "cost": Column.INTEGER, "reference_cost": Column.INTEGER}
    | {"trials": Column.INTEGER, "path": Column.TEXT, "difficulty": Column.TEXT}
    | {"settings": Column.TEXT}
)


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """How grouped search goes.

    `trial_model` gives the trial answers (None: the worker in the middle). `thresholds` are mean
    log-probabilities: a subtask below the first is hard and starts in the large group, from the
    second on it is easy and starts in the small one. Without them all start in the middle;
    `with_thresholds` takes them from data, at `quantiles`; few start high, since a walk from there
    stays dear where it meets a wrong model. `max_trials` bounds the runs of one item, `far` lets a
    move pass over models that are wrong.
    """

    trial_model: str | None = None
    groups: Literal["cards", "thirds"] = "cards"
    thresholds: tuple[float, float] | None = None
    quantiles: tuple[float, float] = (0.1, 0.5)
    max_trials: int = 48
    far: bool = False

    def with_thresholds(self, logprobs: Iterable[float]) -> "SearchConfig":
        """Return the same with thresholds at the quantiles of these; of none, without."""
        known = sorted(logprobs)
        if not known:
            return replace(self, thresholds=None)
        hard, easy = (known[round(q * (len(known) - 1))] for q in self.quantiles)
        return replace(self, thresholds=(hard, easy))

    def group(self, logprob: float | None) -> Group:
        """Return the group in which a subtask starts."""
        if logprob is None or self.thresholds is None:
            return Group.MEDIUM
        hard, easy = self.thresholds
        if logprob < hard:
            return Group.LARGE
        return Group.SMALL if logprob >= easy else Group.MEDIUM


class Trial(NamedTuple):
    """One run of the plan: the move that led to it and what became of it; cost in pico-dollars."""

    move: str
    rungs: Rungs
    right: bool
    cost: Pico
    steps: tuple[Step, ...]
    fault: str | None
    logprobs: Mapping[int, float]
    keys: Mapping[int, str]


class Difficulty(NamedTuple):
    """How sure the trial model was of each subtask (None: not told), and the group that matches."""

    model: str
    logprobs: list[float | None]
    groups: list[Group | None]
    note: str | None


End: TypeAlias = Literal["no move helps", "trials spent", "never right"]


class _Spent(Exception):
    """The trials of an item are spent."""


@dataclass(slots=True)
class _Walk:
    """The trials of one item, each allocation once."""

    task: Task
    plan: Plan
    most: int
    trials: dict[Rungs, Trial] = field(default_factory=dict)

    def everywhere(self, rung: int) -> Rungs:
        """Return the allocation of one model to all subtasks."""
        return tuple(None if subtask.is_join else rung for subtask in self.plan.subtasks)

    @property
    def best(self) -> Trial | None:
        """The cheapest right trial."""
        right = [trial for trial in self.trials.values() if trial.right]
        return min(right, key=lambda trial: trial.cost, default=None)

    @property
    def found(self) -> Found:
        """What the trials came to."""
        steps = [step for trial in self.trials.values() for step in trial.steps]
        calls = {(step.model, step.prompt) for step in steps if step.model is not None}
        return Found(self.best.cost if self.best else None, len(self.trials), len(calls))


class GroupedSearch:
    """Finds the models to learn from, item by item.

    `grade` says what is right. A dollar cap on all of it is the ledger's (`SpendingLedger`).
    `record` takes how the answers of all trials did. Raises ConfigError for an unknown trial model,
    and for a worker without a price.
    """

    def __init__(
        self,
        pool: Pool,
        client: Client,
        ledger: Ledger,
        config: SearchConfig | None = None,
        *,
        grade: Grade = exact,
        record: Callable[[Outcome], None] | None = None,
    ) -> None:
        self.config = config or SearchConfig()
        self._ladder = Ladder(pool.workers, self.config.groups)
        names = [card.name for card in self._ladder.cards]
        unpriced = [card.name for card in pool.workers if card.price is None]
        if unpriced:
            raise ConfigError(
                f"allocations are searched by cost, but of {', '.join(unpriced)} no price is known;"
                " set input_price and output_price in the pool file"
            )
        trial = self.config.trial_model
        if trial is not None and trial not in names:
            raise ConfigError(
                f"no worker {trial!r} to give trial answers; there are: {', '.join(names)}"
            )
        self._trial = names.index(trial) if trial is not None else self._ladder.middle()
        self._strongest = names.index(pool.strongest.name)
        self._runner = Runner(pool, client, ledger, grade, keyed=record is not None)
        self._record = record or (lambda outcome: None)

    async def process(self, row: Mapping[str, Any]) -> Row:
        """Return the row of an item and its plan with the models to learn (`FORM`).

        Costs are in pico-dollars. Raises DataError for a row without a valid plan, and what
        `Runner.run` raises.
        """
        walk = self._open(row)
        plan = walk.plan
        difficulty, end = await self._search(walk)
        reference = walk.trials[walk.everywhere(self._strongest)]
        kept = walk.best or reference
        runs = list(walk.trials.values())
        for outcome in verdicts(walk.task.query, plan, row["plan"], runs, "allocations"):
            self._record(outcome)
        trials = [self._told(trial) for trial in walk.trials.values()]
        texts = [in_context(plan, number) for number in range(1, len(plan.subtasks) + 1)]
        return item_of(row) | {
            "plan": row["plan"],
            "subtasks": json.dumps(texts),
            "models": json.dumps(self._ladder.names(kept.rungs)),
            "right": kept.right,
            "cost": kept.cost,
            "reference_cost": reference.cost,
            "trials": len(trials),
            "path": json.dumps({"end": end, "trials": trials}),
            "difficulty": json.dumps(difficulty._asdict()),
            "settings": json.dumps(asdict(self.config)),
        }

    async def logprobs(self, row: Mapping[str, Any]) -> list[float]:
        """Return how sure the trial model is of each subtask: what thresholds are made of.

        Subtasks of which it does not tell are left out. Raises what `process` does.
        """
        difficulty = await self._difficulty(self._open(row))
        return [logprob for logprob in difficulty.logprobs if logprob is not None]

    async def exhaustive(self, row: Mapping[str, Any], most: int = 729) -> Found:
        """Return what trying all allocations of a plan comes to.

        Raises DataError for a plan with more than `most` allocations, and what `process` raises.
        """
        walk = self._open(row)
        choices = self._choices(walk.plan)
        walk.most = prod(map(len, choices))
        if walk.most > most:
            raise DataError(f"the plan has {walk.most:,} allocations; at most {most:,} are tried")
        for allocation in product(*choices):
            await self._try(walk, "all", allocation)
        return walk.found

    def count(self, row: Mapping[str, Any]) -> int:
        """Return how many allocations a row's plan has. Raises DataError for a row without one."""
        return prod(map(len, self._choices(self._open(row).plan)))

    def _choices(self, plan: Plan) -> list[Sequence[int | None]]:
        """Return the rungs that each subtask may take; a join takes none."""
        rungs = range(len(self._ladder.cards))
        return [(None,) if subtask.is_join else rungs for subtask in plan.subtasks]

    async def compare(self, row: Mapping[str, Any], most: int = 729) -> Compared:
        """Return what grouped and exhaustive search come to on an item; raises what they raise."""
        walk = self._open(row)
        await self._search(walk)
        return Compared(walk.found, await self.exhaustive(row, most))

    def _open(self, row: Mapping[str, Any]) -> _Walk:
        item, text = item_of(row), row.get("plan")
        if not isinstance(text, str):
            raise DataError(f"item {item['item']} has no plan to give models to")
        try:
            plan = read_plan(text, item["query"])
        except PlanError as error:
            raise DataError(f"item {item['item']}: {error}") from error
        return _Walk(Task(item["query"], item["gold"]), plan, self.config.max_trials)

    async def _search(self, walk: _Walk) -> tuple[Difficulty, End]:
        """Walk from the matching groups to where no single move helps."""
        difficulty = await self._difficulty(walk)
        await self._try(walk, "strongest", walk.everywhere(self._strongest))
        start = tuple(None if g is None else self._ladder.middle(g) for g in difficulty.groups)
        try:
            right = await self._up(walk, await self._try(walk, "start", start)) or walk.best
            if right is None:
                return difficulty, "never right"
            while (cheaper := await self._down(walk, right)) is not None:
                right = cheaper
        except _Spent:
            return difficulty, "trials spent"
        return difficulty, "no move helps"

    async def _difficulty(self, walk: _Walk) -> Difficulty:
        """Run the plan with the trial model everywhere, and group subtasks by how sure it was."""
        model = self._ladder.cards[self._trial].name
        rungs = walk.everywhere(self._trial)
        trial = await self._try(walk, "trial", rungs, how_sure=model)
        if trial.fault is not None and not trial.logprobs:  # it may have refused to tell
            del walk.trials[rungs]
            await self._try(walk, "trial", rungs)
        told = trial.logprobs
        logprobs = [told.get(number) for number in range(1, len(rungs) + 1)]
        groups = [
            None if rung is None else self.config.group(logprob)
            for rung, logprob in zip(rungs, logprobs, strict=True)
        ]
        note = None
        if self.config.thresholds is None:
            note = "no thresholds: all start in the middle group"
        elif len(told) < sum(rung is not None for rung in rungs):
            note = "where no token probabilities were told, the middle group is taken"
        return Difficulty(model, logprobs, groups, note)

    async def _up(self, walk: _Walk, trial: Trial) -> Trial | None:
        """Move up until the answer is right; None where it is wrong at the top too.

        What moves is what went wrong. Where the strongest everywhere is right, that is what it
        answered otherwise, to the same question; where that says nothing, it may be any subtask.
        """
        top = len(self._ladder.cards) - 1
        reference = walk.trials[walk.everywhere(self._strongest)]
        while not trial.right:
            able = {n for n, rung in enumerate(trial.rungs, 1) if rung is not None and rung < top}
            if not able:
                return None
            wrong = _wrong(trial, reference) & able or able
            rungs = tuple(
                rung + 1 if rung is not None and n in wrong else rung
                for n, rung in enumerate(trial.rungs, 1)
            )
            trial = await self._try(walk, "up", rungs)
        return trial

    async def _down(self, walk: _Walk, trial: Trial) -> Trial | None:
        """Return a right and cheaper run that one move down leads to, tried from the dearest on."""
        placed = [(rung, place) for place, rung in enumerate(trial.rungs) if rung is not None]
        for across in (False, True):
            for rung, place in sorted(placed, reverse=True):
                for target in self._ladder.below(rung, across=across, far=self.config.far):
                    moved = (*trial.rungs[:place], target, *trial.rungs[place + 1 :])
                    move = f"down {place + 1}{' across' if across else ''}"
                    other = await self._try(walk, move, moved)
                    if other.right and other.cost < trial.cost:
                        return other
        return None

    async def _try(
        self, walk: _Walk, move: str, rungs: Rungs, *, how_sure: str | None = None
    ) -> Trial:
        """Run an allocation, unless it was run before. Raises _Spent where that is one too many."""
        if rungs not in walk.trials:
            if len(walk.trials) >= walk.most and move not in ("strongest", "trial"):
                raise _Spent
            walk.trials[rungs] = await self._run(walk, move, rungs, how_sure)
        return walk.trials[rungs]

    async def _run(self, walk: _Walk, move: str, rungs: Rungs, how_sure: str | None) -> Trial:
        names = self._ladder.names(rungs)
        choices = tuple(None if name is None else Choice(name, move) for name in names)
        allocation = Allocation(choices, "grouped search", calibrated=False)
        ran = await self._runner.run(walk.task, walk.plan, allocation, how_sure=how_sure)
        cost = sum(call.cost or 0 for call in ran.calls)
        return Trial(move, rungs, ran.right, cost, ran.steps, ran.fault, ran.logprobs, ran.keys)

    def _told(self, trial: Trial) -> dict[str, Any]:
        """Return a trial as it stands in a row."""
        told = {
            "move": trial.move,
            "models": self._ladder.names(trial.rungs),
            "right": trial.right,
            "cost": trial.cost,
        }
        return told if trial.fault is None else told | {"fault": trial.fault}


def _wrong(trial: Trial, reference: Trial) -> set[int]:
    """Return the subtasks that answered a question otherwise than a right run did."""
    if not reference.right:
        return set()
    right = {step.subtask: (step.prompt, step.answer) for step in reference.steps}
    return {
        step.subtask
        for step in trial.steps
        if step.prompt == right[step.subtask][0] and step.answer != right[step.subtask][1]
    }


def summary(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return one line about allocation rows: what was found, at what cost, in how many trials."""
    rows = list(rows)
    right = [row for row in rows if row["right"]]
    reference = sum(row["reference_cost"] for row in right)
    share = sum(row["cost"] for row in right) / reference if reference else 1.0
    trials = sum(row["trials"] for row in rows) / max(len(rows), 1)
    return (
        f"{len(rows):,} items, {len(right):,} solved, at {share:.1%} of what the strongest model"
        f" costs everywhere, in {trials:.1f} trials an item"
    )
