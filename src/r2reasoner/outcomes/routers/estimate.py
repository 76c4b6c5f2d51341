"""A light router as an estimate: what the calibrated allocator asks, learned from a pool's records.

It is fitted when it is opened (some seconds; no query waits for it), once for a set of records
however many open it, and remembers what it said of a text: in a pool, the same ones come again.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from r2reasoner.config import did_you_mean
from r2reasoner.errors import ConfigError
from r2reasoner.outcomes.routers import ROUTERS
from r2reasoner.outcomes.routers.base import LightRouter
from r2reasoner.outcomes.sets import OutcomeSet
from r2reasoner.types import PICO_PER_DOLLAR

SMALLEST_P: Final = 0.002
MOST_TEXTS: Final = 100_000
"""So many texts' estimates are remembered."""


class LightEstimate:
    """P(right | text, model), as a light router has it of the models in its training set.

    `mean_cost` in pico-dollars by name, NaN where no price is known; `outcomes` is how many scores
    it learned from.
    """

    def __init__(self, make: Callable[[int], LightRouter], records: OutcomeSet) -> None:
        self.models = records.models
        self.mean_cost = {
            model: float("nan")
            if np.isnan(prices).all()
            else float(np.nanmean(prices)) * PICO_PER_DOLLAR
            for model, prices in zip(records.models, records.prices.T, strict=True)
        }
        self.outcomes = int((~np.isnan(records.scores)).sum())
        self._router = make(0)
        self._router.fit(records)
        self._threads = _threads()
        self._remembered = lru_cache(maxsize=MOST_TEXTS)(self._predicted)

    def p_right(self, text: str) -> dict[str, float]:
        """Return each model's probability of getting the text right."""
        return self._remembered(text)

    def _predicted(self, text: str) -> dict[str, float]:
        # one text is little work: threads would wait for each other longer than they compute
        with self._threads.limit(limits=1):
            (scores,) = self._router.predict([text], [""])
        p = np.clip(scores, SMALLEST_P, 1 - SMALLEST_P).tolist()
        return dict(zip(self.models, p, strict=True))


def _threads() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@lru_cache(maxsize=16)
def light_estimate(name: str, records: OutcomeSet) -> LightEstimate:
    """Return the estimate of a router by name, fitted.

    Raises ConfigError as `router_maker`, and DataError where there is nothing to learn from.
    """
    return LightEstimate(router_maker(name), records)


def router_maker(name: str) -> Callable[[int], LightRouter]:
    """Return what makes a router, from a seed.

    Raises ConfigError for an unknown name, or where scikit-learn is missing.
    """
    if name not in ROUTERS:
        raise ConfigError(f"no light router {name!r}{did_you_mean(name, set(ROUTERS))}")
    if find_spec("sklearn") is None:
        raise ConfigError(
            "light routers need scikit-learn, which is not installed here:"
            " pip install 'r2reasoner[evaluation]'"
        )
    return ROUTERS[name]
