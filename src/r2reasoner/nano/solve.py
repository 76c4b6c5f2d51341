"""What is right, of any text of the nano tasks: by computing it."""

from collections.abc import Callable
from typing import TypeAlias

from r2reasoner.benchmarks import ARITHMETIC, SCAN, Benchmark
from r2reasoner.nano import arithmetic, scan

Solve: TypeAlias = Callable[[str], str | None]
"""A text -> its right answer; None where it is no text of the task."""


def solver(benchmark: Benchmark) -> Solve | None:
    """Return what solves a benchmark's queries and their subtasks, None where nothing does."""
    if benchmark is ARITHMETIC:
        return solve_arithmetic
    return solve_scan if benchmark is SCAN else None


def solve_arithmetic(text: str) -> str | None:
    """Return the value of an expression."""
    try:
        return str(arithmetic.value_of(arithmetic.parse(text)))
    except ValueError:
        return None


def solve_scan(text: str) -> str | None:
    """Return the actions of a command."""
    try:
        return scan.interpret(text)
    except ValueError:
        return None
