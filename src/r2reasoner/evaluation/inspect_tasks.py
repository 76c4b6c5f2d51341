"""Our benchmarks as tasks of Inspect (`inspect eval r2reasoner/csqa ...`), scored by our scorers.

Inspect finds them by the entry point `inspect_ai`; they need the extra `inspect`. Each takes
`items` (a file or folder; else as `r2reasoner evaluate` takes them), `split`, `limit`, `seed`,
`revision` (of the hub's dataset) and `plain` (ask the item alone, as nano models want it). What
cannot be judged is not counted, as everywhere here. Leaves out: plans, routing and costs; for those
put a router behind an OpenAI-compatible endpoint, or use `r2reasoner evaluate`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from anyio.to_thread import run_sync
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, accuracy, mean, scorer, stderr
from inspect_ai.solver import generate

from r2reasoner.benchmarks import BENCHMARKS, Benchmark
from r2reasoner.evaluation.evaluate import limited
from r2reasoner.evaluation.sources import Source

RIGHT: Final = "right"
SCORE: Final = "score"


def inspect_task(
    benchmark: Benchmark,
    source: Source,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    plain: bool = False,
) -> Any:
    """Return a benchmark's split as an Inspect task. Raises as `Source.load` does."""
    items = source.load(benchmark, split or benchmark.default_split, seed, limit)
    samples = [
        Sample(input=benchmark.query(item, plain=plain), target=item.gold, id=item.id)
        for item in limited(items, limit, seed)
    ]
    return Task(
        dataset=MemoryDataset(samples, name=benchmark.name),
        solver=generate(),
        scorer=inspect_scorer(benchmark),
        name=benchmark.name,
    )


def inspect_scorer(benchmark: Benchmark) -> Any:
    """Return a benchmark's scorer as Inspect's: `right`, and `score` where it has one."""
    metrics = {RIGHT: [accuracy(), stderr()]}
    if benchmark.score is not None:
        metrics[SCORE] = [mean(), stderr()]

    def make() -> Callable[..., Any]:
        async def judge(state: Any, target: Any) -> Any:
            answer = state.output.completion
            verdict = await run_sync(benchmark.judge, answer, target.text)
            if verdict.right is None:
                return Score.unscored(answer=answer, explanation="it cannot be judged")
            value: dict[str, float] = {RIGHT: float(verdict.right)}
            if verdict.score is not None:
                value[SCORE] = verdict.score
            return Score(value=value, answer=answer)

        return judge

    return scorer(metrics=metrics, name=f"r2_{benchmark.name}")(make)()


def _registered(benchmark: Benchmark) -> Any:
    def make(
        items: str | None = None,
        split: str | None = None,
        limit: int | None = None,
        seed: int = 0,
        revision: str | None = None,
        plain: bool = False,
    ) -> Any:
        source = Source(Path(items) if items else None, revision=revision)
        return inspect_task(benchmark, source, split=split, limit=limit, seed=seed, plain=plain)

    make.__name__ = benchmark.name
    return task(name=benchmark.name)(make)


TASKS: Final = {name: _registered(benchmark) for name, benchmark in BENCHMARKS.items()}
