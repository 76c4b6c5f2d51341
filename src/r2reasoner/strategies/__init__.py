"""Strategies by name: ways to answer queries over one pool, to be compared with each other.

A package adds its own under the entry point group `r2reasoner.strategies`: a callable that takes
a StrategyContext and returns a Router. A built-in name cannot be taken over.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Pool
from r2reasoner.router import Router
from r2reasoner.strategies.base import Strategy, StrategyContext
from r2reasoner.strategies.cot import cot
from r2reasoner.strategies.fixed import cheapest, last_node, random, strongest
from r2reasoner.strategies.r2 import r2, r2_at
from r2reasoner.strategies.single import single

__all__ = ["Strategy", "StrategyContext", "expand_strategies", "known", "open_strategy"]

GROUP: Final = "r2reasoner.strategies"
EVERY: Final = "single:*"
BUILT_IN: Final[Mapping[str, Strategy]] = {
    "r2": r2,
    "cot": cot,
    "strongest": strongest,
    "cheapest": cheapest,
    "random": random,
    "last-node": last_node,
}
WITH_ARGUMENT: Final[Mapping[str, Callable[[StrategyContext, str], Router]]] = {
    "single:": single,
    "r2@": r2_at,
}


def known() -> list[str]:
    """Return what strategies there are, for people to read."""
    return [*BUILT_IN, "single:MODEL", EVERY, "r2@TRADE_OFF", *sorted(_plugins())]


def expand_strategies(names: Iterable[str], pool: Pool) -> tuple[str, ...]:
    """Return names without repeats, `single:*` as one for each worker.

    Raises ConfigError for an unknown strategy or worker, listing the known ones.
    """
    expanded: dict[str, None] = {}
    for name in (n.strip() for n in names):
        singles = [f"single:{card.name}" for card in pool.workers]
        for each in singles if name == EVERY else [name]:
            _check(each, singles)
            expanded[each] = None
    if not expanded:
        raise ConfigError(f"no strategy named; known: {', '.join(known())}")
    return tuple(expanded)


def open_strategy(name: str, context: StrategyContext) -> Router:
    """Return a strategy's router. Raises ConfigError for an unknown strategy, worker or value."""
    if name in BUILT_IN:
        return BUILT_IN[name](context)
    for prefix, build in WITH_ARGUMENT.items():
        if name.startswith(prefix):
            return build(context, name.removeprefix(prefix))
    plugin = _plugins().get(name)
    if plugin is None:
        raise _unknown(name)
    try:
        router = plugin.load()(context)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"strategy {name!r} ({plugin.value}) does not load: {error}") from error
    if not isinstance(router, Router):
        raise ConfigError(f"strategy {name!r} ({plugin.value}) returned no Router")
    return router


def _check(name: str, singles: list[str]) -> None:
    if name.startswith("single:") and name not in singles:
        raise ConfigError(f"no strategy {name!r} in this pool; it has: {', '.join(singles)}")
    argument = any(name.startswith(prefix) for prefix in WITH_ARGUMENT)
    if not argument and name not in BUILT_IN and name not in _plugins():
        raise _unknown(name)


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"no strategy {name!r}; known: {', '.join(known())}")


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
