"""GRPO of one policy by TRL's GRPOTrainer, with the whole rest of the pipeline behind the reward.

A prompt is a turn of the served policy; a sample is judged by running the query with the sample in
the served policy's place (`rollouts`). A group with a reward that could not be had is dropped.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from r2reasoner.errors import DataError, R2Error
from r2reasoner.policy import model_token, read_model
from r2reasoner.training.policies import Policy
from r2reasoner.training.recipe import Recipe, Reward
from r2reasoner.training.rewards import Judged, reward, shares, with_credit
from r2reasoner.training.rollouts import Rollouts, Sample, Turn
from r2reasoner.training.sft import Hear, Listener, optimizers, quiet
from r2reasoner.types import PICO_PER_DOLLAR, Role


class Rewarder:
    """The reward function that TRL calls: completions in, one reward (or None) each out."""

    __name__ = "reward"

    def __init__(
        self,
        policy: Policy,
        role: Role,
        turns: Sequence[Turn],
        rollouts: Rollouts,
        settings: Reward,
        knows: Sequence[str],
        group: int,
    ) -> None:
        self._policy = policy
        self._role = role
        self._turns = turns
        self._rollouts = rollouts
        self._settings = settings
        self._knows = knows
        self._group = group
        self._prompt_tokens = [_tokens(policy, turn) for turn in turns]
        self._seen: list[tuple[Turn, Sample, Judged | None, float | None]] = []

    def __call__(
        self, completions: list[Any], completion_ids: list[list[int]], turn: list[int], **kw: Any
    ) -> list[float | None]:
        """Return rewards; None for a whole group where one of it has none."""
        end = self._policy.tokenizer.eos_token_id
        turns = [self._turns[i] for i in turn]
        samples = [
            Sample(
                text=self._policy.text(completion),
                prompt_tokens=self._prompt_tokens[i],
                tokens=len(ids),
                cut=not ids or ids[-1] != end,
            )
            for completion, ids, i in zip(completions, completion_ids, turn, strict=True)
        ]
        judged = self._rollouts.judge_all(self._role, turns, samples)
        rewards = self._rewards(turns, samples, judged)
        self._seen = list(zip(turns, samples, judged, rewards, strict=True))
        self._log(judged, rewards, kw.get("log_metric"))
        return self._whole_groups(rewards)

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Return samples of the last step, for people to read; costs in dollars."""
        return [
            {
                "query": turn.item.query,
                "trade_off": turn.trade_off,
                "asked": turn.asked,
                "written": sample.text,
                "reward": earned,
                "right": judged and judged.right,
                "cost": judged and judged.cost / PICO_PER_DOLLAR,
                "models": judged and " ".join(judged.models),
                "gold": turn.item.gold,
            }
            for turn, sample, judged, earned in self._seen[:: max(1, self._group // 2)][:count]
        ]

    def _rewards(
        self, turns: list[Turn], samples: list[Sample], judged: list[Judged | None]
    ) -> list[float | None]:
        own = [
            None if j is None else reward(j, t.item.reference, self._settings)
            for j, t in zip(judged, turns, strict=True)
        ]
        if self._role is not Role.ALLOCATOR or not self._settings.per_subtask_credit:
            return own
        cheaper = [self._cheaper(sample) for sample in samples]
        asked = [i for i, c in enumerate(cheaper) if c is not None]
        others = self._rollouts.judge_all(
            self._role, [turns[i] for i in asked], [cheaper[i] or samples[i] for i in asked]
        )
        neighbours = dict(zip(asked, others, strict=True))
        return [
            None
            if r is None
            else with_credit(r, self._neighbour(neighbours.get(i), turns[i]), self._settings)
            for i, r in enumerate(own)
        ]

    def _neighbour(self, judged: Judged | None, turn: Turn) -> float | None:
        return None if judged is None else reward(judged, turn.item.reference, self._settings)

    def _cheaper(self, sample: Sample) -> Sample | None:
        """Return the sample with the next cheaper model; None where there is none."""
        try:
            at = self._knows.index(read_model(sample.text, self._knows))
        except R2Error:
            return None
        return sample._replace(text=model_token(self._knows[at - 1], self._knows)) if at else None

    def _whole_groups(self, rewards: list[float | None]) -> list[float | None]:
        kept: list[float | None] = []
        for start in range(0, len(rewards), self._group):
            group = rewards[start : start + self._group]
            broken = any(r is None or r != r for r in group)
            self._rollouts.counts.dropped_groups += broken
            kept += [None] * len(group) if broken else group
        return kept

    def _log(self, judged: list[Judged | None], rewards: list[float | None], log: Any) -> None:
        there = [j for j in judged if j is not None]
        if log is None or not there:
            return
        count = len(there)
        groups = [rewards[i : i + self._group] for i in range(0, len(rewards), self._group)]
        log("accuracy", sum(j.right for j in there) / count)
        log("cost", sum(j.cost for j in there) / count / PICO_PER_DOLLAR)
        log("plan_length", sum(j.subtasks for j in there) / count)
        log("direct", sum(j.direct for j in there) / count)
        log("misspoke", sum(j.misspoke for j in there) / count)
        log("flat_groups", sum(len(set(g)) == 1 for g in groups) / len(groups))
        for model, share in shares(there).items():
            log(f"share/{model}", share)


def _tokens(policy: Policy, turn: Turn) -> int:
    prompt = policy.prompt(turn.asked)
    if policy.tokens is not None:
        return len(str(prompt).split())
    messages = [{"role": m.role, "content": m.content} for m in turn.messages]
    return len(policy.tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def reinforce(
    policy: Policy,
    role: Role,
    turns: Sequence[Turn],
    rollouts: Rollouts,
    recipe: Recipe,
    arguments: dict[str, Any],
    *,
    knows: Sequence[str] = (),
    hear: Hear = lambda step, figures: None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: Path | None = None,
) -> Rewarder:
    """Train a policy on its turns. `arguments` are all of GRPOConfig's; the other policy is frozen.

    Returns the rewarder, which holds the last step's samples. Raises DataError where there are no
    turns, CapReached where the training's dollars are spent.
    """
    if not turns:
        raise DataError(f"the {role} was never called on the training items: nothing to train on")
    config = GRPOConfig(**arguments)
    group = int(config.num_generations or 1)
    rewarder = Rewarder(policy, role, turns, rollouts, recipe.reward, knows, group)
    rows = [{"prompt": _prompt(policy, turn), "turn": i} for i, turn in enumerate(turns)]
    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=rewarder,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
        optimizers=optimizers(policy, recipe.grpo, config.learning_rate, config.max_steps),
        callbacks=[Listener(hear), *callbacks],
    )
    quiet(trainer)
    with warnings.catch_warnings():
        # TRL asks a model by an older name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return rewarder


def _prompt(policy: Policy, turn: Turn) -> Any:
    if policy.tokens is not None:
        return policy.prompt(turn.asked)
    return [{"role": m.role, "content": m.content} for m in turn.messages]
