"""What is right on a benchmark, for the strategies that look it up: of subtasks if it is known."""

from collections.abc import Iterable

from r2reasoner.benchmarks import Benchmark, Item
from r2reasoner.nano.solve import Solve, solver
from r2reasoner.plan import without_references
from r2reasoner.strategies.base import AnswerKey


def answer_key(benchmark: Benchmark, items: Iterable[Item], *, plain: bool) -> AnswerKey:
    """Return the key of a benchmark's items; `plain` as in `Benchmark.query`."""
    solve = solver(benchmark)
    if solve is not None:
        return _solved(benchmark, solve)
    golds: dict[str, list[str]] = {}
    for item in items:
        text = benchmark.query(item, plain=plain)
        for asked in {text, without_references(text)}:
            golds.setdefault(asked, []).append(item.gold)

    def right(text: str, answer: str) -> bool | None:
        verdicts = [benchmark.grade(answer, gold) for gold in golds.get(text, ())]
        return True if True in verdicts else None if None in verdicts or not verdicts else False

    return AnswerKey(right, blocking=benchmark.blocking)


def _solved(benchmark: Benchmark, solve: Solve) -> AnswerKey:
    def right(text: str, answer: str) -> bool | None:
        gold = solve(text)
        return None if gold is None else benchmark.grade(answer, gold)

    return AnswerKey(right, subtasks=True)
