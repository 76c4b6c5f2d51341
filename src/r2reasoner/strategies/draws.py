"""Which strategies draw, so that one run says little of them: several seeds are taken for those.

A strategy draws if it chooses by chance, or asks a model at a temperature above 0. Others come out
the same for every seed (as far as their models do). Leaves out: what a strategy trained before.
"""

from typing import Final

from r2reasoner.config import Settings
from r2reasoner.pool.cards import Pool
from r2reasoner.strategies import BUILT_IN, WITH_ARGUMENT

BY_CHANCE: Final = frozenset({"random"})
SAMPLES_IN_WORDS: Final = frozenset({"automix", "tot"})
"""They ask chat models again at temperature 1; of models with plain prompts they take beams."""


def draws(name: str, pool: Pool, settings: Settings) -> bool:
    """Tell whether a strategy comes out otherwise for another seed; others' own may."""
    strategy, _, _ = name.partition("@")
    own = strategy in BUILT_IN or any(name.startswith(prefix) for prefix in WITH_ARGUMENT)
    samples = strategy in SAMPLES_IN_WORDS and any(c.prompt == "chat" for c in pool.workers)
    return settings.temperature > 0 or strategy in BY_CHANCE or samples or not own
