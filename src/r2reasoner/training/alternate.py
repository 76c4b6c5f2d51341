"""A whole training: data, fine-tuning of both policies, then GRPO in alternation.

    workers          nano sets: the search's worker, and the others if the recipe wants them anew
    decompositions   candidate plans, run and scored             sft-decomposer   imitates the best
    allocations      grouped search on that decomposer's plans   sft-allocator    imitates it
    grpo-1-decomposer, grpo-1-allocator, ...                     one learns, the other is frozen
    pool             the pool file with the policies that were trained

Every stage leaves a note of what it produced in the run folder and is not done twice. A policy is
converted and served after each of its stages, and the frozen one's served version is checked
before the first rollout of a phase.
"""

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from r2reasoner.client import PoolClient
from r2reasoner.config import settings
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.pool.load import load_pool
from r2reasoner.training import checkpoint, processes
from r2reasoner.training.allocations import FORM as ALLOCATIONS
from r2reasoner.training.arguments import grpo_arguments, seed_of, sft_arguments
from r2reasoner.training.bases import check_bases
from r2reasoner.training.controls import random_features, shuffled
from r2reasoner.training.decompositions import FORM as DECOMPOSITIONS
from r2reasoner.training.environment import (
    MAIN,
    SEARCHER,
    SHIFTED,
    WORKERS,
    Environment,
    is_phrase,
    open_environment,
)
from r2reasoner.training.optimum import Gap, gap
from r2reasoner.training.pairs import Pair, allocator_pairs, decomposer_pairs
from r2reasoner.training.plots import draw
from r2reasoner.training.recipe import POLICIES, PolicyName, Recipe, resolved, stages
from r2reasoner.training.rewards import shares
from r2reasoner.training.rollouts import Item, Rollouts, TrainingLedger, Turn
from r2reasoner.training.rows import Row, plan_text
from r2reasoner.training.run_folder import RunFolder
from r2reasoner.training.seats import check_seats, with_policy
from r2reasoner.training.shard_folder import Job, made_rows
from r2reasoner.training.shards import Engine, Factory, run_shards
from r2reasoner.types import PICO_PER_DOLLAR, Role

Say = Callable[[str], None]
ROLES: Final = {"decomposer": Role.DECOMPOSER, "allocator": Role.ALLOCATOR}
VALIDATION_SHARE: Final = 0.1
THRESHOLD_ITEMS: Final = 200
CHECKED: Final = 200
SHOWN: Final = 12
SAY_EVERY_S: Final = 15.0
FREE: Final = ("recipe.cap", "data.engine", "data.in_flight")
"""What a run may go on with another value of: no row and no policy is another one for it."""
FIGURES: Final = {
    "loss": "loss",
    "eval_loss": "val_loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "step_time": "step_seconds",
    "accuracy": "accuracy",
    "cost": "cost",
    "plan_length": "plan_length",
    "direct": "direct",
    "misspoke": "misspoke",
    "flat_groups": "flat_groups",
    "plans": "plans",
    "unparseable": "unparseable",
    "dropped": "dropped",
}
"""What trainers and rewards log, and what it is called in the metrics."""
SHOWN_FIGURES: Final = ("loss", "val_loss", "reward", "accuracy", "cost")


def run(
    recipe: Recipe,
    wanted: Iterable[str] | None = None,
    say: Say = print,
    engine: Engine | None = None,
) -> Path:
    """Do a recipe's stages (or the wanted ones) that are not done yet; return the run folder.

    `engine` builds the data; else the recipe's. Raises ConfigError and DataError for what cannot
    be done, CapReached where the dollars of the recipe are spent; what is done by then stays.
    """
    check_seats(load_pool(recipe.run.pool), recipe)
    check_bases(recipe)
    chosen = set(stages(recipe) if wanted is None else wanted)
    with Training.open(recipe, say, engine or Engine(recipe.data.engine)) as training:
        new = [s for s in stages(recipe) if s in chosen and not training.folder.is_done(s)]
        try:
            for name in new:
                training.do(name)
        finally:
            training.folder.summary()
        if new:
            draw(training.folder.path)
    return recipe.run.folder


def fork(source: Path, recipe: Recipe, kept: Iterable[str]) -> None:
    """Begin a run of another recipe with stages that a run has done, so that they cost nothing.

    Raises ConfigError where the new run's folder is taken, DataError for a stage that is not done.
    """
    to = recipe.run.folder
    seeds = {name: seed_of(recipe, name) for name in stages(recipe)}
    with RunFolder.open(to, resolved(recipe), seeds, _inputs(recipe)) as new:
        for name in (WORKERS, SEARCHER):
            if (source / name).is_file():
                shutil.copy(source / name, to / name)
        shutil.copytree(source / processes.OUTCOMES, to / processes.OUTCOMES, dirs_exist_ok=True)
        done = RunFolder.reading(source)
        for stage in kept:
            produced = done.produced(stage)
            for path in produced.values():
                shutil.copytree(path, to / path.relative_to(source), dirs_exist_ok=True)
            new.stage_done(stage, {n: to / p.relative_to(source) for n, p in produced.items()})


@dataclass
class Training:
    """An open training. `folder` holds all of its state; nothing is kept elsewhere."""

    recipe: Recipe
    folder: RunFolder
    environment: Environment
    ledger: TrainingLedger
    store: OutcomeStore
    say: Say
    engine: Engine

    @classmethod
    @contextmanager
    def open(cls, recipe: Recipe, say: Say, engine: Engine) -> Iterator[Self]:
        """Open the run folder of a recipe, or make it; raises what `RunFolder.open` raises."""
        path = recipe.run.folder
        seeds = {name: seed_of(recipe, name) for name in stages(recipe)}
        with ExitStack() as stack:
            folder = stack.enter_context(
                RunFolder.open(path, resolved(recipe), seeds, _inputs(recipe), FREE)
            )
            ledger = stack.enter_context(TrainingLedger.open(path / "ledger.db"))
            ledger.spent = ledger.totals().cost
            ledger.cap = round(recipe.run.cap * PICO_PER_DOLLAR)
            store = stack.enter_context(OutcomeStore.open(path / processes.OUTCOMES))
            environment = open_environment(path)
            yield cls(recipe, folder, environment, ledger, store, say, engine)

    def do(self, name: str) -> None:
        """Do a stage, and note its bill. Raises DataError where it cannot be done."""
        self.say(f"{name} ...")
        started = time.monotonic()
        try:
            produced = self._stage(name)
        finally:
            self._bill(name, time.monotonic() - started)
        self.folder.stage_done(name, produced)
        self.say(f"{name} done in {time.monotonic() - started:.0f} s")

    def _bill(self, stage: str, seconds: float) -> None:
        """Note what the ledger has beyond what was noted before: also of an attempt that died."""
        noted = self.folder.billed()
        total = self.ledger.totals()
        self.folder.metrics(
            stage,
            0,
            paid_pico=total.cost - round(noted["paid_pico"]),
            calls=total.calls - round(noted["calls"]),
            unpriced=total.unpriced - round(noted["unpriced"]),
            seconds=seconds,
        )

    def _stage(self, name: str) -> dict[str, Path]:
        kind, _, rest = name.partition("-")
        match kind:
            case "workers":
                return self._workers()
            case "decompositions":
                return self._decompositions()
            case "allocations":
                return self._allocations()
            case "sft":
                return self._fine_tune(name, "decomposer" if rest == "decomposer" else "allocator")
            case "grpo":
                number, _, policy = rest.partition("-")
                who: PolicyName = "decomposer" if policy == "decomposer" else "allocator"
                return self._reinforce(name, who, int(number))
            case _:
                return self._pool_file()

    # -- data

    def _workers(self) -> dict[str, Path]:
        from r2reasoner.training.nano_workers import train_workers

        weights = self.environment.weights
        assert weights is not None
        produced = train_workers(self.recipe, weights, self.folder.path, self.say)
        self.environment = open_environment(self.folder.path)
        return produced

    def _decompositions(self) -> dict[str, Path]:
        rows = self.environment.searched()
        self._need(rows, "decompositions")
        produced = {"decompositions": self._data("decompositions")}
        if self.environment.parts_first:
            parts = [row for row in rows if is_phrase(row)]
            rows = [row for row in rows if not is_phrase(row)]
            self._need(parts, "decompositions of phrases")
            produced = {"parts": self._data("parts"), **produced}
            made = self._build("parts", parts, "decompositions", {})
            made += self._build("decompositions", rows, "decompositions", {"known": "parts"})
        else:
            made = self._build("decompositions", rows, "decompositions", {})
        if not any(row["lines"] != "[]" for row in made):
            raise DataError(
                f"none of {len(made):,} items has a decomposition to learn from: every candidate"
                " was wrong; take easier items or a stronger worker, or keep best_of_all"
            )
        return produced

    def _allocations(self) -> dict[str, Path]:
        rows = self.environment.reinforced()
        self._need(rows, "allocations")
        planned = self._plans(rows)
        thresholds = self._thresholds(planned)
        made = self._build("allocations", planned, "allocations", {"thresholds": thresholds})
        if not any(row["right"] for row in made):
            raise DataError(
                f"no model solves any of {len(made):,} items by the decomposer's plans, so there is"
                " no allocation to learn from: take easier items, stronger workers, or train the"
                " decomposer for longer"
            )
        self._compare(planned, thresholds)
        return {"allocations": self._data("allocations")}

    def _data(self, name: str) -> Path:
        return self.folder.path / processes.DATA / name

    def _build(self, name: str, rows: list[Row], what: str, extra: dict[str, Any]) -> list[Row]:
        out = self._data(name)
        out.parent.mkdir(parents=True, exist_ok=True)
        job = Job(
            out=out,
            rows=rows,
            config={"what": what, **extra},
            form=DECOMPOSITIONS if what == "decompositions" else ALLOCATIONS,
        )
        # workers of a cluster may stand elsewhere
        where = {"run": str(self.folder.path.absolute())}
        work = run_shards(
            job,
            Factory(f"r2reasoner.training.processes:{what}", {**where, **extra}),
            self.ledger,
            engine=self.engine,
            in_flight=self.recipe.data.in_flight,
            progress=self._progress(name),
        )
        asyncio.run(work)
        self.store.refresh()
        return made_rows(out)

    def _progress(self, what: str) -> Callable[[Any], None]:
        last = time.monotonic()

        def tell(progress: Any) -> None:
            nonlocal last
            if time.monotonic() - last > 10 or progress.done == progress.total:
                last = time.monotonic()
                left = (
                    "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
                )
                self.say(f"  {what}: {progress.done:,} of {progress.total:,}{left}")

        return tell

    def _plans(self, rows: list[Row]) -> list[Row]:
        """Add to items the plans of the fine-tuned decomposer, at the dial's middle."""
        with self._rollouts() as rollouts:
            items = [_item(row, 0) for row in rows]
            traces = rollouts.traces(items, 0.5)
        plans = [plan_text(t.plan, row["query"]) for t, row in zip(traces, rows, strict=True)]
        failed = sum(trace.plan_failed for trace in traces)
        self.folder.metrics("allocations", 0, plans=len(plans), unparseable=failed)
        return [{**row, "plan": plan} for row, plan in zip(rows, plans, strict=True)]

    def _thresholds(self, rows: list[Row]) -> tuple[float, float] | None:
        """Return where subtasks count as hard and easy, from a sample of the data."""
        sample = random.Random(self.recipe.run.seed).sample(rows, min(THRESHOLD_ITEMS, len(rows)))

        async def measure() -> tuple[float, float] | None:
            client = RecordedClient(PoolClient(), self.store, "allocations")
            searches = processes.grouped(self.environment, client, self.ledger, None)
            told = await asyncio.gather(*(searches[r["family"]].logprobs(r) for r in sample))
            await client.close()
            config = next(iter(searches.values())).config
            return config.with_thresholds([x for xs in told for x in xs]).thresholds

        return asyncio.run(measure())

    def _compare(self, rows: list[Row], thresholds: tuple[float, float] | None) -> None:
        """Note how far grouped search is from the optimum, where that can be found."""
        search = self.recipe.data.search

        async def measure() -> Gap | None:
            client = RecordedClient(PoolClient(), self.store, "exhaustive search")
            searches = processes.grouped(self.environment, client, self.ledger, thresholds)
            small = [r for r in rows if searches[r["family"]].count(r) <= search.exhaustive_most]
            count = min(search.exhaustive_items, len(small))
            sample = random.Random(self.recipe.run.seed).sample(small, count)
            compared = await processes.compared(
                self.environment, client, self.ledger, thresholds, sample
            )
            await client.close()
            solved = any(c.grouped.cost is not None for c in compared)
            return gap(compared) if solved else None

        found = asyncio.run(measure()) if search.exhaustive_items else None
        if found is not None:
            self.folder.metrics("allocations", 0, **found.figures())
            self.say(f"  grouped against exhaustive search: {found}")

    def _need(self, rows: list[Row], what: str) -> None:
        if not rows:
            raise DataError(f"{what}: the recipe's sources have no items")

    # -- training

    def _fine_tune(self, stage: str, name: PolicyName) -> dict[str, Path]:
        from r2reasoner.training.sft import fine_tune

        sft = self.recipe.sft[name]
        policy = self._policy(name)
        pairs = self._pairs(name)
        if sft.trains:
            kept = max(1, round(sft.validation * len(pairs))) if sft.validation else 0
            kept = min(kept, len(pairs) - 1)
            states = self._states(stage, sft.checkpoint_every)
            fine_tune(
                policy,
                pairs[kept:],
                pairs[:kept],
                sft_arguments(self.recipe, name, states.work, self._device()),
                sft,
                hear=self._hear(stage),
                callbacks=[states],
                resume=states.resume,
            )
        return self._save(stage, name, policy, sft.steps)

    def _pairs(self, name: PolicyName) -> list[Pair]:
        rng = random.Random(seed_of(self.recipe, f"pairs {name}"))
        dial = self.recipe.policies[name].dial
        if name == "decomposer":
            rows = self._rows("decompositions")
            pairs = decomposer_pairs(rows, self.recipe.data.copies, dial, rng)
        else:
            knows = [card.name for card in self.environment.pool.workers]
            margins = self.recipe.sft.allocator.margins
            pairs = allocator_pairs(self._rows("allocations"), knows, dial, margins, rng)
        if self.recipe.controls.shuffle_labels:
            pairs = [Pair(*p) for p in shuffled(pairs, self.recipe.run.seed)]
        if self.recipe.controls.random_features:
            pairs = [Pair(*p) for p in random_features(pairs, self.recipe.run.seed)]
        if not pairs:
            raise DataError(f"no rows to fine-tune the {name} on")
        return pairs

    def _rows(self, what: str) -> list[Row]:
        if not self.folder.is_done(what):
            raise ConfigError(f"the stage {what} is not done yet: r2reasoner build {what} first")
        return [row for path in self.folder.produced(what).values() for row in made_rows(path)]

    def _reinforce(self, stage: str, name: PolicyName, round_: int) -> dict[str, Path]:
        from r2reasoner.training.grpo import reinforce

        items, validation = self._items(name)
        other: PolicyName = "allocator" if name == "decomposer" else "decomposer"
        knows = [card.name for card in self.environment.pool.workers]
        policy = self._policy(name)
        with self._rollouts() as rollouts:
            alike = self._check(other, rollouts, items)
            turns = self._turns(rollouts, items, name, stage)
            self.folder.metrics(stage, 0, served_alike=alike, turns=len(turns))
            states = self._states(stage, self.recipe.grpo.checkpoint_every)
            rewarder = reinforce(
                policy,
                ROLES[name],
                turns,
                rollouts,
                self.recipe,
                grpo_arguments(self.recipe, name, round_, states.work, self._device()),
                knows=knows,
                hear=self._hear(stage),
                callbacks=[states],
                resume=states.resume,
            )
        steps = self.recipe.grpo.steps(name)
        self.folder.rollouts(stage, steps, rewarder.samples(SHOWN))
        produced = self._save(stage, name, policy, steps)
        self._measure(stage, steps, validation, self._with(name, produced))
        return produced

    def _items(self, name: PolicyName) -> tuple[list[Item], list[Item]]:
        """Return what is reinforced on, and what validates: rows of the allocation data."""
        rows = self._rows("allocations")
        kept = max(1, round(VALIDATION_SHARE * len(rows)))
        order = random.Random(self.recipe.run.seed).sample(rows, len(rows))
        shifted = name == "decomposer" and self.environment.searcher is not None
        items = [
            _item(r, r["reference_cost"], SHIFTED if shifted and r["family"] == "scan" else MAIN)
            for r in order[kept:]
        ]
        return items, [_item(r, r["reference_cost"]) for r in order[:kept]]

    def _turns(
        self, rollouts: Rollouts, items: Sequence[Item], name: PolicyName, stage: str
    ) -> list[Turn]:
        rng = random.Random(seed_of(self.recipe, f"dials {stage}"))
        dial = self.recipe.policies[name].dial
        dials = [rng.randrange(dial) / (dial - 1) if dial else 0.5 for _ in items]
        return [t for of_item in rollouts.turns(items, dials, ROLES[name]) for t in of_item]

    def _measure(self, stage: str, step: int, items: list[Item], pool: Pool) -> None:
        """Write down how the policies, as they are served, do on held-out items."""
        with self._rollouts(pool) as rollouts:
            judged = [j for j in rollouts.answers(items, 0.25) if j is not None]
        count = max(1, len(judged))
        self.folder.metrics(
            stage,
            step,
            val_accuracy=sum(j.right for j in judged) / max(1, len(items)),
            val_cost=sum(j.cost for j in judged) / count / PICO_PER_DOLLAR,
            val_plan_length=sum(j.subtasks for j in judged) / count,
            shares=shares(judged),
        )

    # -- policies, from training to serving

    def _done(self, name: PolicyName) -> list[str]:
        """Return the stages of a policy that are done, in order."""
        mine = [s for s in stages(self.recipe) if s.endswith(f"-{name}")]
        return [stage for stage in mine if self.folder.is_done(stage)]

    def _policy(self, name: PolicyName) -> Any:
        """Return a policy as its last stage left it; untrained where there was none."""
        from r2reasoner.training.policies import load_policy, open_base

        done = self._done(name)
        if done:
            return load_policy(self.folder.produced(done[-1])["policy"])
        return open_base(self.recipe, name)

    def _save(self, stage: str, name: PolicyName, policy: Any, step: int) -> dict[str, Path]:
        """Save a policy, convert it to what is served, and check that this is the same."""
        from r2reasoner.training.serving import convert

        info = checkpoint.Info("policy", stage, step)
        saved = checkpoint.save(self.folder.checkpoints(stage), policy.save, info).path
        served = self.folder.path / "served" / stage
        convert(saved, served)
        return {"policy": saved, "served": served}

    def _card(self, name: PolicyName, made: dict[str, Path]) -> Card:
        from r2reasoner.training.serving import policy_card

        return policy_card(self.environment.pool, self.recipe, name, made["served"])

    def _with(self, name: PolicyName, made: dict[str, Path]) -> Pool:
        """Return the pool of the moment with a policy that is not noted as done yet."""
        return with_policy(self.served_pool(), ROLES[name], self._card(name, made))

    def served_pool(self) -> Pool:
        """Return the pool with the policies as their last stages left them.

        Where no allocator is trained yet, the ladder allocates.
        """
        pool = replace(self.environment.pool, allocator="ladder")
        for name in POLICIES:
            done = self._done(name)
            if done:
                card = self._card(name, self.folder.produced(done[-1]))
                pool = with_policy(pool, ROLES[name], card)
        return pool

    def _check(self, name: PolicyName, rollouts: Rollouts, items: list[Item]) -> float | None:
        """Return how far the served version of a policy says what the trained one says.

        Raises DataError where that is another one.
        """
        from r2reasoner.training.serving import check

        done = self._done(name)
        if not done:
            return None
        sample = items[:CHECKED]
        turns = rollouts.turns(sample, [0.25] * len(sample), ROLES[name])
        asked = list(dict.fromkeys(t.asked for of_item in turns for t in of_item))[:CHECKED]
        card = self._card(name, self.folder.produced(done[-1]))
        return check(self._policy(name), card, asked, self.recipe.policies[name].max_completion)

    @contextmanager
    def _rollouts(self, pool: Pool | None = None) -> Iterator[Rollouts]:
        rollouts = Rollouts(
            self.environment.pools(pool or self.served_pool()),
            settings(),
            RecordedClient(PoolClient(), self.store, "rollouts"),
            self.ledger,
            self.environment.grades,
            timeout_s=self.recipe.reward.timeout_s,
        )
        try:
            yield rollouts
        finally:
            rollouts.close()
            self.store.flush()

    def _states(self, stage: str, every: int) -> Any:
        """Return where the trainer of a stage stands."""
        from r2reasoner.training.states import States

        states = States(self.folder.checkpoints(f"{stage}-state"), stage, every)
        if states.step:
            self.say(f"  {stage}: goes on after step {states.step}")
            self.folder.went_back(stage, states.step)
        return states

    def _device(self) -> Literal["cpu", "cuda"]:
        """Return what trains; on a CPU, nano policies take the threads that the recipe says."""
        import torch

        wanted = self.recipe.hardware.device
        device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
        if wanted != "auto":
            device = wanted
        if device == "cpu":
            torch.set_num_threads(self.recipe.hardware.cpu_threads)
        return device

    def _hear(self, stage: str) -> Callable[[int, dict[str, float]], None]:
        """Return what writes a trainer's figures into the metrics, under our names."""
        order = [card.name for card in self.environment.pool.workers]
        last = time.monotonic()

        def hear(step: int, figures: dict[str, float]) -> None:
            nonlocal last
            known: dict[str, Any] = {
                ours: figures[theirs] for theirs, ours in FIGURES.items() if theirs in figures
            }
            taken = {name: figures.get(f"share/{name}", 0.0) for name in order}
            if any(taken.values()):
                known["shares"] = taken
            if known:
                self.folder.metrics(stage, step, **known)
            if time.monotonic() - last > SAY_EVERY_S and known:
                last = time.monotonic()
                shown = ", ".join(f"{k} {v:.4g}" for k, v in known.items() if k in SHOWN_FIGURES)
                self.say(f"  {stage} step {step}: {shown}")

        return hear

    def _pool_file(self) -> dict[str, Path]:
        """Write the pool file that names the trained policies."""
        from r2reasoner.pool.write import write_pool

        file = self.folder.path / "pool.toml"
        write_pool(self.served_pool(), file)
        self.say(f"the trained policies are in {file}: r2reasoner ask --pool {file} ...")
        return {"pool": file}


def _item(row: Row, reference: int, pool: str = MAIN) -> Item:
    return Item(row["query"], row["gold"], row["family"], reference, pool)


def _inputs(recipe: Recipe) -> dict[str, Path]:
    """Return the files that a recipe reads."""
    files = [s.benchmark if s.is_own else s.items for s in recipe.data.sources]
    files.append(recipe.data.train_items)
    return {f"items {name}": Path(name) for name in files if name}
