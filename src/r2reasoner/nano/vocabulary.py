"""The tokens of the nano models: one vocabulary for workers, a longer one for policies."""

from typing import Final

from r2reasoner.client.text import SPECIAL
from r2reasoner.nano.scan import ACTIONS, WORDS
from r2reasoner.pool.cards import MOST_LEVELS, MOST_MODELS

MOST_SUBTASKS: Final = 9


def vocabulary() -> list[str]:
    """Return the workers' tokens in id order."""
    plan = (";", "=", "...", *(f"#{i}" for i in range(1, MOST_SUBTASKS + 1)))
    words = (*WORDS, *ACTIONS, *"0123456789", *"+-*()")
    return [*SPECIAL, *words, *plan]


def policy_vocabulary() -> list[str]:
    """Return the policies' tokens: the workers', levels of the dial, models, what has context."""
    levels = (f"t{i}" for i in range(MOST_LEVELS))
    models = (f"m{i}" for i in range(1, MOST_MODELS + 1))
    return [*vocabulary(), *levels, *models, "#", "[", "]"]
