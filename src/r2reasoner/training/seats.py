"""The seats of the two policies in a pool, and what a policy that takes one is billed like."""

from dataclasses import replace

from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.training.recipe import POLICIES, PolicyName, Recipe
from r2reasoner.types import Role


def with_policy(pool: Pool, role: Role, card: Card) -> Pool:
    """Return the pool with a policy in the seat of a role; the policy before it leaves."""
    seat = "decomposer" if role is Role.DECOMPOSER else "allocator"
    others = {name: c for name, c in pool.policies.items() if name != getattr(pool, seat)}
    policies = {**others, card.name: card}
    if role is Role.DECOMPOSER:
        return replace(pool, policies=policies, decomposer=card.name)
    return replace(pool, policies=policies, allocator=card.name)


def billed_like(pool: Pool, recipe: Recipe, name: PolicyName) -> Card:
    """Return the card whose price a policy on a base of its own has.

    That is a worker of the same base, else the policy that it takes the seat of. Raises
    ConfigError where there is neither, or no price is known.
    """
    base = recipe.policies[name].base.rstrip("/").rpartition("/")[2]
    same = [c for c in pool.workers if base in (c.name, c.model.rpartition("/")[2])]
    seat = pool.policies.get(pool.decomposer if name == "decomposer" else pool.allocator)
    found = same[0] if same else seat
    if found is None:
        raise ConfigError(
            f"pool {pool.name!r} does not say what the {name} ({base}) costs: it has no worker of"
            f" that model and no {name} policy; add it under [[policies]], with its prices, and"
            f" name it as {name} in [pool]"
        )
    if found.price is None:
        raise ConfigError(
            f"{found.name}: set its input_price and output_price in the pool file; the {name} is"
            " billed like it"
        )
    return found


def check_seats(pool: Pool, recipe: Recipe) -> None:
    """Raise ConfigError where what a policy will be billed at is not known."""
    for name in POLICIES:
        if recipe.policies[name].shape is None:
            billed_like(pool, recipe, name)
