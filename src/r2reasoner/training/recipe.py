"""Recipes: one TOML file says how both policies are trained; every algorithm setting stands here.

    [recipe]     name, seed, where to, pool, the cap in dollars
    [hardware]   device, processes, memory
    [data]       items, candidates, their score, search; [[data.sources]]: where items come from
    [policies.*] what is trained: base, adapter, dial, lengths
    [sft.*]      supervised fine-tuning of the decomposer and of the allocator
    [grpo]       reinforcement in alternation; [grpo.vllm]: who generates
    [reward]     what a rollout earns
    [evaluate]   what is measured at the end
    [controls]   the trainer's sanity controls

A key that a file leaves out takes the default that stands at its field here; `resolved` writes all
of them back. Paths are relative to the working folder. Left out: how settings become arguments of
TRL (`arguments`), and what they cost (`forecast`).
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from r2reasoner.benchmarks import BENCHMARKS
from r2reasoner.benchmarks.grading import GRADES
from r2reasoner.config import did_you_mean, read_toml
from r2reasoner.errors import ConfigError
from r2reasoner.nano.vocabulary import policy_vocabulary
from r2reasoner.pool.cards import MOST_LEVELS
from r2reasoner.training.tables import (
    Key,
    dollars,
    number,
    one_of,
    read_table,
    several,
    text,
    whole,
    write_table,
)

SHIPPED: Final = Path(__file__).resolve().parents[1] / "recipes"
_SHAPE: Final = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]?)")
_MOST: Final = 10**9
NANO_POSITIONS: Final = 256
"""Most tokens that a nano model can read and write: `nano.fit.POSITIONS`, which needs torch."""

PolicyName = Literal["decomposer", "allocator"]
POLICIES: Final[tuple[PolicyName, ...]] = ("decomposer", "allocator")

Device = Literal["auto", "cpu", "cuda"]
NanoSet = Literal["length", "addprim_jump", "simple", "none"]
Workers = Literal["shipped", "full", "tiny"]
Proposer = Literal["nano", "prompted"]
Keep = Literal["best_right", "best_of_all"]
Groups = Literal["cards", "thirds"]
Engine = Literal["asyncio", "ray"]
Dtype = Literal["float32", "bfloat16"]
Prompt = Literal["plain", "chat"]
Schedule = Literal["linear", "cosine", "constant", "trapezoid"]
Optimizer = Literal["adamw", "adamw_fused", "adamw_8bit", "adafactor", "muon"]
LossType = Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo"]
Scale = Literal["none", "group", "batch"]
Level = Literal["token", "sequence"]
VllmMode = Literal["off", "colocate", "server"]
Preset = Literal["cost_aware", "paper"]
Reference = Literal["strongest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """`[recipe]`. `name`: else the file's; `out`: the run folder, else `runs/<name>`.

    `cap` is the hard cap over the whole training, in dollars. `pool`: a shipped one, or a file.
    """

    name: Annotated[str, text(empty=True)] = ""
    seed: Annotated[int, whole(0, 2**31 - 1)] = 0
    out: Annotated[str, text(empty=True)] = ""
    pool: Annotated[str, text()] = "nano"
    cap: Annotated[Decimal, dollars(1_000_000)] = Decimal(1)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """`[hardware]`. `device` auto: a GPU where there is one. `processes`: one per training GPU.

    `cpu_threads`: of a process that trains on a CPU (two threads beside other work collapse).
    """

    device: Device = "auto"
    processes: Annotated[int, whole(1, 4096)] = 1
    gpu_memory_gib: Annotated[float, number(1, 10_000)] = 80.0
    cpu_threads: Annotated[int, whole(1, 1024)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`[[data.sources]]`. `benchmark`: by name, or the path of a file of one's own.

    `items`: its file; empty: made here, from the training side of `[data] nano_set`. `count`: items
    to search and imitate; `reinforce`: further ones for GRPO (0: the same). `operands`: of
    arithmetic, in turn. `scorer`: of an own file.
    """

    benchmark: Annotated[str, text()] = "scan"
    items: Annotated[str, text(empty=True)] = ""
    scorer: Annotated[str, one_of(GRADES)] = "exact"
    count: Annotated[int, whole(1, _MOST)] = 1000
    reinforce: Annotated[int, whole(0, _MOST)] = 0
    operands: Annotated[tuple[int, ...], several(whole(2, 4))] = (2, 3, 4)

    @property
    def is_own(self) -> bool:
        """True for a user's own file."""
        return self.benchmark.endswith(".jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`[data.score]`: weights per subtask, per token and per unused subtask; lower is better.

    Scores that differ by no more than `tolerance` count as equal.
    """

    conciseness: Annotated[float, number(0, 1e6)] = 1.0
    practicality: Annotated[float, number(0, 1e6)] = 0.1
    coherence: Annotated[float, number(0, 1e6)] = 2.0
    tolerance: Annotated[float, number(0, 1e6)] = 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """`[data.search]`: the grouped search of allocations.

    `groups`: as the cards say, or thirds of the pool by order. `trials`: most allocations tried for
    a plan. Plans of at most `exhaustive_most` allocations, from `exhaustive_items` items, are
    searched exhaustively too, to report how far grouped search is from the optimum.
    """

    groups: Groups = "cards"
    trials: Annotated[int, whole(1, 100_000)] = 24
    exhaustive_items: Annotated[int, whole(0, _MOST)] = 200
    exhaustive_most: Annotated[int, whole(0, 10**6)] = 729


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """`[data]`. `candidates`: plans tried for an item, answering directly among them.

    `nano_set`: a nano weight set, or none; `train_items` has the training commands of `simple`,
    whose split is random. Its `workers` are the pool's own, or trained first, full
    or tiny. The one that searches, which may not have seen the items, is trained first in any case,
    unless `searcher` names a run folder that has it.
    `proposer` prompted: `proposer_model` of the pool is asked at `proposer_temperature`. `worker`:
    who runs candidates; empty: the strongest. `keep` best_right leaves items out where no candidate
    is right, best_of_all keeps the best-scored wrong one (the paper). `copies`: versions of each
    step's row with other references (nano).
    """

    nano_set: NanoSet = "length"
    train_items: Annotated[str, text(empty=True)] = ""
    workers: Workers = "shipped"
    searcher: Annotated[str, text(empty=True)] = ""
    candidates: Annotated[int, whole(1, 1000)] = 40
    proposer: Proposer = "nano"
    proposer_model: Annotated[str, text(empty=True)] = ""
    proposer_temperature: Annotated[float, number(0, 2)] = 1.0
    worker: Annotated[str, text(empty=True)] = ""
    keep: Keep = "best_right"
    copies: Annotated[int, whole(0, 100)] = 2
    engine: Engine = "asyncio"
    in_flight: Annotated[int, whole(1, 4096)] = 64
    score: Score = field(default_factory=Score)
    search: Search = field(default_factory=Search)
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """`[policies.*.lora]`: a low-rank adapter, and the layers that get one."""

    rank: Annotated[int, whole(1, 1024)] = 16
    alpha: Annotated[int, whole(1, 4096)] = 32
    dropout: Annotated[float, number(0, 1, below=True)] = 0.0
    targets: Annotated[tuple[str, ...], several(text())] = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """`[policies.*]`. `base`: a nano shape (`24x2`), or a Hugging Face model's folder or name.

    A nano policy (width x layers) starts from random weights. `lora` "none": all of it is trained.
    `dial`: settings of `trade_off` that it reads (0: none). Lengths are tokens; a prompt's holds
    the chat template's own. `prompt` chat: asked as a user's message. `interchangeable` (nano):
    words of which it learns to do with all what it does with one.
    """

    base: Annotated[str, text()] = "24x2"
    dtype: Dtype = "float32"
    prompt: Prompt = "plain"
    dial: Annotated[int, whole(0, MOST_LEVELS)] = 5
    max_prompt: Annotated[int, whole(1, 10**6)] = 64
    max_completion: Annotated[int, whole(1, 10**6)] = 64
    interchangeable: Annotated[tuple[str, ...], several(text(), none=True)] = ()
    lora: Lora | None = None

    @property
    def shape(self) -> tuple[int, int] | None:
        """Width and layers of a nano base; None for any other."""
        match = _SHAPE.fullmatch(self.base)
        return None if match is None else (int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """`[policies.decomposer]` and `[policies.allocator]`."""

    decomposer: PolicySettings = field(default_factory=PolicySettings)
    allocator: PolicySettings = field(default_factory=PolicySettings)

    def __getitem__(self, name: PolicyName) -> PolicySettings:
        """Return one policy's settings."""
        return self.decomposer if name == "decomposer" else self.allocator


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What fine-tuning and reinforcement have in common. `warm_up` is a share of all steps.

    `schedule`: of the learning rate, after warm-up; all but constant end at 0. `trapezoid` holds
    the full rate, then falls over the last `decay_share` of the steps. `muon` is `nano.fit`'s, for
    matrices; `other_rate` is the rate of all the rest there (AdamW).
    `micro_batch`: rows on a device at once (0: all of a step's). `log_every`, `checkpoint_every`
    count steps.
    """

    warm_up: Annotated[float, number(0, 1, below=True)] = 0.05
    schedule: Schedule = "linear"
    decay_share: Annotated[float, number(0, 1, above=True)] = 0.8
    weight_decay: Annotated[float, number(0, 1)] = 0.0
    optimizer: Optimizer = "adamw"
    other_rate: Annotated[float, number(0, 1, above=True)] = 0.005
    adam_beta1: Annotated[float, number(0, 1, below=True)] = 0.9
    adam_beta2: Annotated[float, number(0, 1, below=True)] = 0.99
    adam_epsilon: Annotated[float, number(0, 1, above=True)] = 1e-8
    max_grad_norm: Annotated[float, number(0, 1e6, above=True)] = 1.0
    micro_batch: Annotated[int, whole(0, 10**6)] = 0
    log_every: Annotated[int, whole(1, _MOST)] = 5
    checkpoint_every: Annotated[int, whole(1, _MOST)] = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Sft(Learning):
    """`[sft.*]`. Length: `steps` or `epochs`, the other 0; both 0: no fine-tuning.

    `validation`: share of rows kept apart; training ends where their loss, looked at every
    `evaluate_every` steps, has not fallen `patience` times in a row (0: it goes on), and the best
    state is kept. `stretch`: gaps in the positions of half of the rows, so many in all (nano), so
    that longer texts work than were seen. `margins`, of the allocator: how many places stronger
    than the search's are the models that it imitates, for each setting of its dial, so that it
    starts with a sense of that (below 0: weaker; none: the search's). `seed` makes another fit.
    """

    steps: Annotated[int, whole(0, _MOST)] = 1500
    epochs: Annotated[float, number(0, 10_000)] = 0.0
    batch: Annotated[int, whole(1, 10**6)] = 32
    learning_rate: Annotated[float, number(0, 1, above=True)] = 1e-3
    validation: Annotated[float, number(0, 0.5)] = 0.05
    evaluate_every: Annotated[int, whole(1, _MOST)] = 100
    patience: Annotated[int, whole(0, 10_000)] = 5
    stretch: Annotated[int, whole(0, 200)] = 0
    margins: Annotated[tuple[int, ...], several(whole(-100, 100), none=True)] = ()
    seed: Annotated[int, whole(0, 2**20)] = 0

    @property
    def trains(self) -> bool:
        """True unless it is left out."""
        return self.steps > 0 or self.epochs > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SftPair:
    """`[sft.decomposer]` and `[sft.allocator]`."""

    decomposer: Sft = field(default_factory=Sft)
    allocator: Sft = field(default_factory=Sft)

    def __getitem__(self, name: PolicyName) -> Sft:
        """Return one policy's settings."""
        return self.decomposer if name == "decomposer" else self.allocator


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """`[grpo.vllm]`. `off`: transformers generates; `colocate`: vLLM on the training GPUs.

    `server`: `vllm serve` at `url`. `memory_share`: of each GPU, when colocated. `sleep`: colocated
    vLLM gives its memory back while the policy learns.
    """

    mode: VllmMode = "off"
    url: Annotated[str, text(empty=True)] = ""
    memory_share: Annotated[float, number(0, 1, above=True, below=True)] = 0.35
    tensor_parallel: Annotated[int, whole(1, 64)] = 1
    sleep: bool = False
    timeout_s: Annotated[float, number(0, 86_400, above=True)] = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grpo(Learning):
    """`[grpo]`. A round: `steps_decomposer` steps with the allocator frozen, then the reverse.

    A step samples `group` completions of each of `prompts_per_step` prompts and learns from them
    `num_iterations` times (1: on-policy). `schedule` and `warm_up` run anew in each phase. `beta`
    weighs the KL to the policy that a phase starts from; `epsilon`, `epsilon_high` clip the ratio.
    `scale_rewards` none: advantages are not divided by a standard deviation, since where all of a
    group are right tiny differences in cost would weigh as much as right against wrong. `top_k` 0:
    all tokens. `entropy` weighs the entropy bonus. `mask_truncated`: completions cut at their
    length teach nothing (else they earn the format penalty). Checkpoints fall on whole steps.
    """

    rounds: Annotated[int, whole(0, 1000)] = 2
    steps_decomposer: Annotated[int, whole(0, _MOST)] = 150
    steps_allocator: Annotated[int, whole(0, _MOST)] = 400
    prompts_per_step: Annotated[int, whole(1, 10**6)] = 32
    group: Annotated[int, whole(2, 4096)] = 16
    learning_rate_decomposer: Annotated[float, number(0, 1, above=True)] = 3e-4
    learning_rate_allocator: Annotated[float, number(0, 1, above=True)] = 1e-3
    loss_type: LossType = "dr_grpo"
    scale_rewards: Scale = "none"
    beta: Annotated[float, number(0, 100)] = 0.0
    epsilon: Annotated[float, number(0, 1, above=True)] = 0.2
    epsilon_high: Annotated[float, number(0, 10, above=True)] = 0.2
    num_iterations: Annotated[int, whole(1, 100)] = 1
    importance_sampling_level: Level = "token"
    temperature: Annotated[float, number(0, 10, above=True)] = 1.0
    top_p: Annotated[float, number(0, 1, above=True)] = 1.0
    top_k: Annotated[int, whole(0, 10**6)] = 0
    entropy: Annotated[float, number(0, 10)] = 0.0
    mask_truncated: bool = False
    vllm: Vllm = field(default_factory=Vllm)

    def steps(self, name: PolicyName) -> int:
        """Return the steps of a policy in each round."""
        return self.steps_decomposer if name == "decomposer" else self.steps_allocator

    def learning_rate(self, name: PolicyName) -> float:
        """Return the peak learning rate of a policy."""
        if name == "decomposer":
            return self.learning_rate_decomposer
        return self.learning_rate_allocator

    @property
    def completions(self) -> int:
        """Completions sampled in each step."""
        return self.prompts_per_step * self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """`[reward]`. `cost_aware`: `1[right] * (1 - lambda * min(1, cost / reference))`; `paper`: 0/1.

    lambda rises with the dial from `lambda_floor` (quality only) to `lambda_max` (cheapest).
    `reference`: the cost of the strongest worker everywhere. `format_penalty` is taken off where
    nothing valid was written. `per_subtask_credit` weighs what the outcome store says would have
    happened with the neighbour model (0: off). `timeout_s`: seconds given to one rollout.
    """

    preset: Preset = "cost_aware"
    lambda_floor: Annotated[float, number(0, 100)] = 0.02
    lambda_max: Annotated[float, number(0, 100)] = 1.0
    reference: Reference = "strongest"
    format_penalty: Annotated[float, number(0, 100)] = 0.2
    per_subtask_credit: Annotated[float, number(0, 100)] = 0.0
    timeout_s: Annotated[float, number(0, 86_400, above=True)] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """`[evaluate]`. `splits`: BENCHMARK/SPLIT, or a file of one's own (scored as its source is).

    `items`: most of each; `dial`: settings of `trade_off` that are measured.
    """

    splits: Annotated[tuple[str, ...], several(text())] = ("scan/length", "arithmetic/test")
    items: Annotated[int, whole(1, _MOST)] = 1000
    dial: Annotated[tuple[float, ...], several(number(0, 1))] = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """`[controls]`. `shuffle_labels`, `random_features`: train a control, not a policy.

    `alarm_share`: share of all subtasks at which one model raises the always-one-model alarm.
    """

    shuffle_labels: bool = False
    random_features: bool = False
    alarm_share: Annotated[float, number(0, 1, above=True)] = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole recipe. Made by `load_recipe`, which checks it. Immutable: `replace` its tables."""

    run: Annotated[Run, Key("recipe")] = field(default_factory=Run)
    hardware: Hardware = field(default_factory=Hardware)
    data: Data = field(default_factory=Data)
    policies: Policies = field(default_factory=Policies)
    sft: SftPair = field(default_factory=SftPair)
    grpo: Grpo = field(default_factory=Grpo)
    reward: Reward = field(default_factory=Reward)
    evaluate: Evaluate = field(default_factory=Evaluate)
    controls: Controls = field(default_factory=Controls)


def shipped() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    return tuple(sorted(file.stem for file in SHIPPED.glob("*.toml")))


def find_recipe(path_or_name: str | Path) -> Path:
    """Return the file of a shipped recipe's name (`nano`), or of a path. Raises ConfigError."""
    if str(path_or_name) in shipped():
        return SHIPPED / f"{path_or_name}.toml"
    file = Path(path_or_name).expanduser()
    if file.is_file():
        return file
    hint = did_you_mean(str(path_or_name), set(shipped()))
    raise ConfigError(f"no recipe {str(path_or_name)!r}: neither a file nor a shipped one{hint}")


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe by name or path; overrides like `grpo.rounds=1` win over the file.

    Raises ConfigError, naming file, table and key, for whatever is wrong in it.
    """
    file = find_recipe(path_or_name)
    raw = read_toml(file)
    for override in overrides:
        _override(raw, override)
    recipe = read_table(Recipe, raw, str(file))
    name = recipe.run.name or file.stem
    run = replace(recipe.run, name=name, out=recipe.run.out or f"runs/{name}")
    recipe = replace(recipe, run=run)
    problems = list(_disagreements(recipe))
    if problems:
        raise ConfigError("\n  ".join([f"{file}: {problems[0]}", *problems[1:]]))
    return recipe


def stages(recipe: Recipe) -> list[str]:
    """Return the names of a recipe's stages, in order: what `alternate.run` does."""
    names = ["workers"] if recipe.data.nano_set != "none" else []
    names += ["decompositions", "sft-decomposer", "allocations", "sft-allocator"]
    for round_ in range(1, recipe.grpo.rounds + 1):
        names += [f"grpo-{round_}-{name}" for name in POLICIES if recipe.grpo.steps(name)]
    return [*names, "pool"]


def resolved(recipe: Recipe) -> str:
    """Return a recipe as TOML with every key, defaults included; it loads as the same recipe."""
    return write_table(recipe)


def _override(raw: dict[str, Any], override: str) -> None:
    """Put `table.key=VALUE` (VALUE as in TOML; a text may go without quotes) into raw tables."""
    path, equals, value = (part.strip() for part in override.partition("="))
    *parents, key = path.split(".")
    if not equals or not all((*parents, key)):
        raise ConfigError(f"--set {override!r}: expected TABLE.KEY=VALUE, like grpo.rounds=1")
    try:
        read = tomllib.loads(f"value = {value}", parse_float=Decimal)["value"]
    except tomllib.TOMLDecodeError:
        read = value
    target: Any = raw
    for name in parents:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override!r}: {name} is no table")
    target[key] = read


def _disagreements(recipe: Recipe) -> Iterator[str]:
    """Yield what is wrong between fields that are right by themselves."""
    yield from _data_disagreements(recipe.data)
    for name in POLICIES:
        yield from _policy_disagreements(f"[policies.{name}]", recipe.policies[name])
        yield from _sft_disagreements(f"[sft.{name}]", recipe.sft[name], recipe.hardware)
        if recipe.policies[name].shape is None:
            yield from _muon_disagreements(f"[sft.{name}]", recipe.sft[name])
            yield from _muon_disagreements("[grpo]", recipe.grpo)
    yield from _grpo_disagreements(recipe.grpo, recipe.hardware)
    reward = recipe.reward
    if reward.lambda_floor > reward.lambda_max:
        yield (
            f"[reward] lambda_floor {reward.lambda_floor:g} is above lambda_max"
            f" {reward.lambda_max:g}"
        )
    for split in recipe.evaluate.splits:
        if not split.endswith(".jsonl") and split.partition("/")[0] not in BENCHMARKS:
            yield (
                f"[evaluate] splits: {split!r}: expected BENCHMARK/SPLIT"
                f" ({', '.join(BENCHMARKS)}) or a .jsonl file"
            )


def _data_disagreements(data: Data) -> Iterator[str]:
    if not data.sources:
        yield "no items to train on: expected at least one [[data.sources]]"
    if data.proposer == "prompted" and not data.proposer_model:
        yield '[data] proposer "prompted" needs proposer_model, a model of the pool'
    if data.proposer == "nano" and data.nano_set == "none":
        yield '[data] proposer "nano" knows nano sets only; expected "prompted"'
    if (data.nano_set == "simple") != bool(data.train_items):
        yield (
            '[data] nano_set "simple" needs train_items, its file of training commands'
            if data.nano_set == "simple"
            else f"[data] train_items: the split {data.nano_set} has training commands of its own"
        )
    if data.proposer == "nano" and data.proposer_model:
        yield '[data] proposer_model belongs to proposer "prompted"'
    for number_, source in enumerate(data.sources, 1):
        where = f"data.sources {number_} ({source.benchmark})"
        if source.is_own:
            if source.items:
                yield f"{where}: an own file is named by benchmark; leave items out"
            continue
        if source.benchmark not in BENCHMARKS:
            yield f"{where}: no such benchmark{did_you_mean(source.benchmark, BENCHMARKS)}"
        elif not source.items and data.nano_set == "none":
            yield f"{where}: expected its file in items, since nano_set is none"
        elif not source.items and source.benchmark == "arithmetic" and data.nano_set != "length":
            yield f"{where}: only nano_set length has arithmetic"
        if source.scorer != Source().scorer:
            yield f"{where}: scorer is for own files; {source.benchmark} has its own"


def _policy_disagreements(where: str, policy: PolicySettings) -> Iterator[str]:
    if policy.dial == 1:
        yield f"{where} dial: one setting is none; expected 0, or 2 to {MOST_LEVELS}"
    if policy.shape is None:
        if policy.interchangeable:
            yield f"{where} interchangeable: for nano policies; expected none"
        return
    unknown = [word for word in policy.interchangeable if word not in policy_vocabulary()]
    if unknown:
        yield f"{where} interchangeable: {', '.join(unknown)}: no word of a nano policy"
    if policy.prompt == "chat":
        yield f"{where} prompt: a nano policy has no chat template; expected plain"
    if policy.lora is not None:
        yield f"{where} lora: a nano policy starts from random weights; expected none"
    if policy.max_prompt + policy.max_completion > NANO_POSITIONS:
        yield (
            f"{where} max_prompt + max_completion is {policy.max_prompt + policy.max_completion};"
            f" a nano policy has {NANO_POSITIONS} positions"
        )


def _sft_disagreements(where: str, sft: Sft, hardware: Hardware) -> Iterator[str]:
    if sft.steps and sft.epochs:
        yield f"{where} steps {sft.steps} and epochs {sft.epochs:g}: expected one of them to be 0"
    yield from _uneven(where, sft.batch, "batch", sft.micro_batch, hardware)


def _grpo_disagreements(grpo: Grpo, hardware: Hardware) -> Iterator[str]:
    steps = "prompts_per_step x group"
    yield from _uneven("[grpo]", grpo.completions, steps, grpo.micro_batch, hardware)
    if grpo.epsilon_high < grpo.epsilon:
        yield f"[grpo] epsilon_high {grpo.epsilon_high:g} is below epsilon {grpo.epsilon:g}"
    if grpo.vllm.mode == "server" and not grpo.vllm.url:
        yield '[grpo.vllm] mode "server" needs url, like "http://localhost:8000"'
    if grpo.vllm.mode != "server" and grpo.vllm.url:
        yield '[grpo.vllm] url belongs to mode "server"'
    if grpo.vllm.mode == "colocate" and hardware.processes % grpo.vllm.tensor_parallel:
        yield (
            f"[grpo.vllm] tensor_parallel {grpo.vllm.tensor_parallel} does not divide"
            f" [hardware] processes {hardware.processes}"
        )
    if grpo.vllm.mode != "off" and hardware.device == "cpu":
        yield '[grpo.vllm] mode: vLLM needs a GPU; expected "off" on device cpu'


def _muon_disagreements(where: str, learning: Learning) -> Iterator[str]:
    if learning.optimizer == "muon":
        yield f'{where} optimizer: "muon" is for nano policies; expected "adamw" or another'


def _uneven(
    where: str, rows: int, what: str, micro_batch: int, hardware: Hardware
) -> Iterator[str]:
    each, rest = divmod(rows, hardware.processes)
    if rest:
        yield f"{where} {what} is {rows}: expected a multiple of {hardware.processes} processes"
    elif micro_batch and each % micro_batch:
        yield f"{where} micro_batch {micro_batch} does not divide {each} rows on each device"
