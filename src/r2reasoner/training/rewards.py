"""What a rollout earns: pure functions of a Trace and of what the scorer said of its answer.

    right * (1 - lambda * min(1, net cost / reference cost)) - penalty where a policy misspoke

`lambda` follows the dial of the rollout, so one policy learns all settings. A wrong answer never
earns by being cheap. The paper's reward, 0 or 1 for the outcome alone, is the preset `paper`.
"""

from collections import Counter
from typing import NamedTuple

from r2reasoner.training.recipe import Reward
from r2reasoner.types import Pico, Trace


def weight_at(trade_off: float, settings: Reward) -> float:
    """Return lambda for a setting of the dial; 0 for the paper's reward.

    It rises with the square of the setting, so that the dial is finest where accuracy is dear.
    """
    if settings.preset == "paper":
        return 0.0
    return settings.lambda_floor + (settings.lambda_max - settings.lambda_floor) * trade_off**2


class Judged(NamedTuple):
    """What a reward needs of one finished rollout. Costs in pico-dollars."""

    right: bool
    cost: Pico
    misspoke: bool
    trade_off: float
    subtasks: int
    direct: bool
    models: tuple[str, ...]


def judge(trace: Trace, right: bool) -> Judged | None:
    """Boil a trace down to what rewards and records read; None where its cost is not known."""
    cost = trace.cost()
    if cost is None:
        return None
    choices = [c for c in trace.allocation.choices if c is not None]
    return Judged(
        right=right,
        cost=cost,
        misspoke=trace.plan_failed
        or any(note.startswith("repaired") for note in trace.plan_notes)
        or any(c.reason.startswith("ladder, since") for c in choices),
        trade_off=trace.trade_off,
        subtasks=len(trace.plan.subtasks),
        direct=trace.plan.is_direct,
        models=tuple(c.model for c in choices),
    )


def reward(judged: Judged, reference: Pico, settings: Reward) -> float:
    """Return what a rollout earns; `reference` is what the strongest model costs on the item."""
    share = min(1.0, judged.cost / reference) if reference > 0 else 0.0
    earned = (1 - weight_at(judged.trade_off, settings) * share) if judged.right else 0.0
    penalty = 0.0 if settings.preset == "paper" else settings.format_penalty
    return earned - penalty * judged.misspoke


def with_credit(own: float, neighbour: float | None, settings: Reward) -> float:
    """Add per-subtask credit: how much better the chosen model did than its cheaper neighbour.

    `neighbour` is the reward of the same rollout with that subtask given to the next cheaper
    model, as recorded outcomes have it; None where there is no such model.
    """
    return own if neighbour is None else own + settings.per_subtask_credit * (own - neighbour)


def shares(judged: list[Judged]) -> dict[str, float]:
    """Return each model's share of all subtasks."""
    counts = Counter(model for j in judged for model in j.models)
    total = counts.total()
    return {model: count / total for model, count in sorted(counts.items())}
