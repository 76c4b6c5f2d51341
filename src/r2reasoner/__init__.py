"""Route-and-Reason: decompose a query, route each subtask to the best model, bill it honestly.

Public names are loaded when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r2reasoner.config import Settings, settings
    from r2reasoner.errors import (
        BudgetExceeded,
        CallError,
        ConfigError,
        DataError,
        DeadlineExceeded,
        LedgerError,
        PlanError,
        R2Error,
        UnknownWords,
    )
    from r2reasoner.ledger import Ledger
    from r2reasoner.pool.cards import Card, Endpoint, Pool, Price
    from r2reasoner.pool.load import load_pool
    from r2reasoner.router import Router
    from r2reasoner.types import Allocation, Answer, Plan, Query, Subtask, Trace, Usage

__version__ = "0.1.0"

_HOME = {
    "config": ("Settings", "settings"),
    "errors": (
        "BudgetExceeded",
        "CallError",
        "ConfigError",
        "DataError",
        "DeadlineExceeded",
        "LedgerError",
        "PlanError",
        "R2Error",
        "UnknownWords",
    ),
    "ledger": ("Ledger",),
    "pool.cards": ("Card", "Endpoint", "Pool", "Price"),
    "pool.load": ("load_pool",),
    "router": ("Router",),
    "types": ("Allocation", "Answer", "Plan", "Query", "Subtask", "Trace", "Usage"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Allocation",
    "Answer",
    "BudgetExceeded",
    "CallError",
    "Card",
    "ConfigError",
    "DataError",
    "DeadlineExceeded",
    "Endpoint",
    "Ledger",
    "LedgerError",
    "Plan",
    "PlanError",
    "Pool",
    "Price",
    "Query",
    "R2Error",
    "Router",
    "Settings",
    "Subtask",
    "Trace",
    "UnknownWords",
    "Usage",
    "load_pool",
    "settings",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'r2reasoner' has no attribute {name!r}")
    return getattr(import_module(f"r2reasoner.{_MODULE_OF[name]}"), name)
