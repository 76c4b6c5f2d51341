"""The tokens of the nano models: one vocabulary for workers and policies of a weight set."""

from typing import Final

from r2reasoner.client.text import SPECIAL
from r2reasoner.nano.scan import ACTIONS, WORDS

MOST_SUBTASKS: Final = 9


def vocabulary() -> list[str]:
    """Return the tokens in id order."""
    plan = (";", "=", "...", *(f"#{i}" for i in range(1, MOST_SUBTASKS + 1)))
    words = (*WORDS, *ACTIONS, *"0123456789", *"+-*()")
    return [*SPECIAL, *words, *plan]
