import ast
from pathlib import Path

import pytest

import r2reasoner

EXPECTED = [
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


def test_the_public_names_are_these_sorted_and_few() -> None:
    assert r2reasoner.__all__ == EXPECTED
    assert sorted(EXPECTED) == EXPECTED
    assert len(EXPECTED) <= 40


@pytest.mark.parametrize("name", EXPECTED)
def test_each_is_there_with_a_docstring(name: str) -> None:
    value = getattr(r2reasoner, name)
    assert value.__name__ == name
    assert value.__module__.startswith("r2reasoner.")
    assert value.__doc__


def test_type_checkers_see_the_same_names_from_the_same_places() -> None:
    tree = ast.parse(Path(r2reasoner.__file__).read_text(encoding="utf-8"))
    guarded = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == EXPECTED
    assert all(getattr(r2reasoner, name).__module__ == module for name, module in seen.items())


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = r2reasoner.nothing


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert r2reasoner.__version__ == version("r2reasoner")
