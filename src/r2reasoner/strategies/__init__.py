"""Strategies by name: ways to answer queries over one pool, to be compared with each other.

A package adds its own under the entry point group `r2reasoner.strategies`: a callable that takes
a StrategyContext and returns a Router. A built-in name cannot be taken over.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from r2reasoner.config import did_you_mean
from r2reasoner.errors import ConfigError
from r2reasoner.outcomes.routers import ROUTERS
from r2reasoner.pool.cards import LIGHT, Pool
from r2reasoner.router import Router
from r2reasoner.strategies.answering import share
from r2reasoner.strategies.automix import automix
from r2reasoner.strategies.base import Strategy, StrategyContext
from r2reasoner.strategies.cot import cot
from r2reasoner.strategies.datashunt import datashunt
from r2reasoner.strategies.dot import dot
from r2reasoner.strategies.fixed import cheapest, last_node, random, strongest
from r2reasoner.strategies.frugal import frugal, frugal_at
from r2reasoner.strategies.kind_table import kind_table, kind_table_at
from r2reasoner.strategies.knn import knn, knn_at
from r2reasoner.strategies.light import light
from r2reasoner.strategies.oracle import oracle
from r2reasoner.strategies.r2 import r2, r2_at
from r2reasoner.strategies.routellm import routellm
from r2reasoner.strategies.router_r1 import router_r1
from r2reasoner.strategies.single import single
from r2reasoner.strategies.tot import tot

__all__ = [
    "Strategy",
    "StrategyContext",
    "expand_strategies",
    "known",
    "left_out",
    "open_strategy",
]

GROUP: Final = "r2reasoner.strategies"
EVERY: Final = "single:*"
PAIRS: Final[Mapping[str, Callable[..., Router]]] = {
    "datashunt": datashunt,
    "automix": automix,
    "dot": dot,
    "routellm": routellm,
}
"""Strategies of a small and a large model; the small one can be named."""

BUILT_IN: Final[Mapping[str, Strategy]] = {
    "r2": r2,
    "cot": cot,
    "strongest": strongest,
    "cheapest": cheapest,
    "random": random,
    "last-node": last_node,
    "tot": tot,
    "frugal": frugal,
    "router-r1": router_r1,
    "knn": knn,
    "kind-table": kind_table,
    "oracle": oracle,
    **PAIRS,
}


def _at(name: str, context: StrategyContext, number: str) -> Router:
    return PAIRS[name](context, threshold=share(number, name))


def _of(name: str, context: StrategyContext, argument: str) -> Router:
    small, at, number = argument.rpartition("@")
    if at:
        return PAIRS[name](context, context.pool.card(small), threshold=share(number, name))
    return PAIRS[name](context, context.pool.card(argument))


WITH_ARGUMENT: Final[Mapping[str, Callable[[StrategyContext, str], Router]]] = {
    "single:": single,
    "r2@": r2_at,
    "frugal@": frugal_at,
    "knn@": knn_at,
    "kind-table@": kind_table_at,
    LIGHT: light,
    **{f"{name}@": partial(_at, name) for name in PAIRS},
    **{f"{name}:": partial(_of, name) for name in PAIRS},
}
"""What may follow a name: a worker (or a light router) after a colon, 0 to 1 after an @."""


def known() -> list[str]:
    """Return what strategies there are, for people to read."""
    forms = [f"{prefix}{_form(prefix)}" for prefix in WITH_ARGUMENT]
    return [*BUILT_IN, EVERY, *forms, *sorted(_plugins())]


def _form(prefix: str) -> str:
    if prefix == LIGHT:
        return "ROUTER"
    return "NUMBER" if prefix.endswith("@") else "MODEL"


def expand_strategies(names: Iterable[str], pool: Pool) -> tuple[str, ...]:
    """Return names without repeats, `single:*` as one for each worker.

    Raises ConfigError for an unknown strategy or worker, listing the known ones, and for an
    argument out of its range.
    """
    expanded: dict[str, None] = {}
    for name in (n.strip() for n in names):
        singles = [f"single:{card.name}" for card in pool.workers]
        for each in singles if name == EVERY else [name]:
            _check(each, pool)
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


def left_out(names: Iterable[str], context: StrategyContext) -> dict[str, str]:
    """Return which of these strategies a pool cannot run, each with the reason.

    Raises the first one's ConfigError where it can run none.
    """
    names = tuple(names)
    errors: dict[str, ConfigError] = {}
    for name in names:
        try:
            open_strategy(name, context)
        except ConfigError as error:
            errors[name] = error
    if names and len(errors) == len(names):
        raise errors[names[0]]
    return {name: str(error) for name, error in errors.items()}


def _check(name: str, pool: Pool) -> None:
    prefix = next((p for p in WITH_ARGUMENT if name.startswith(p)), None)
    if prefix is None:
        if name not in BUILT_IN and name not in _plugins():
            raise _unknown(name)
        return
    strategy, argument = prefix[:-1], name.removeprefix(prefix)
    model, at, number = argument.rpartition("@")
    if prefix.endswith("@"):
        share(argument, strategy)
    elif at and (strategy in PAIRS or prefix == LIGHT):
        share(number, strategy)
        argument = model
    if prefix == LIGHT:
        if argument not in ROUTERS:
            raise ConfigError(f"no light router {argument!r}{did_you_mean(argument, set(ROUTERS))}")
    elif prefix.endswith(":") and argument not in {card.name for card in pool.workers}:
        there = ", ".join(f"{prefix}{card.name}" for card in pool.workers)
        raise ConfigError(f"no strategy {name!r} in this pool; it has: {there}")


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"no strategy {name!r}; known: {', '.join(known())}")


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
