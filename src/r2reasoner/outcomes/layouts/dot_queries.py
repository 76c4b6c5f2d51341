"""Division-of-Thoughts: how its baselines did on whole questions.

Source: tsinghua-fib-lab/DoT, `Baselines/**/*.log`. A model here is an LLM under one method:
`gpt-4o cot` (decompose, then step by step), `... tot`, `... sd`. Groups are benchmarks. What ended
in an error was not judged.

On MATH and CHAMP the model under test judged its own answer, at times plainly wrongly, so those
outcomes stand under a source of their own (`dot_query_outcomes self-judged`); with a grader they
are judged anew from gold and final answer (`dot_query_outcomes rescored`). Final answers are cut
at 600 characters. A DROP question stands here without its passage, so that one text may be several
questions: they count as samples of one item.

Prices: no tokens per question, so every question of a run costs the run's mean: DoT's token totals
(`token_totals.jsonl`) over its number of questions (`run_summary_full.jsonl`), at list prices.
DoT's totals count reruns, so this is too much rather than too little. Without those files, or for
a run whose totals do not name it, the price is unknown.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from r2reasoner.outcomes.layouts.base import (
    Context,
    Found,
    Judged,
    Layout,
    count,
    number,
    per_million,
    text,
)
from r2reasoner.outcomes.records import Row
from r2reasoner.types import Pico, Usage

NAME: Final = "dot_query_outcomes"
SELF_JUDGED: Final = f"{NAME} self-judged"
RESCORED: Final = f"{NAME} rescored"
JUDGED_THEMSELVES: Final = frozenset({"MATH", "CHAMP"})
TOTALS: Final = "token_totals"
RUNS: Final = "run_summary_full"
PRICES: Final = {
    "gpt-4o": per_million("2.5", "OpenAI's list price", output="10"),
    "gpt-4o-mini": per_million("0.15", "OpenAI's list price", output="0.6"),
    "gpt-4-turbo": per_million("10", "OpenAI's list price", output="30"),
    "gpt-3.5-turbo": per_million("0.5", "OpenAI's list price", output="1.5"),
    "llama3-8b": per_million("0.05", "Groq's list price", output="0.08"),
}
BENCHMARKS: Final = ("champ", "csqa", "drop", "math", "p3", "scan")
_FILE: Final = re.compile(r"(?P<stem>.*?)(-8192)?_(?P<side>input|output)_token\.txt")


class _Run(NamedTuple):
    benchmark: str
    method: str
    model: str


class _Counted(NamedTuple):
    run: _Run
    side: str


def _records(row: Row, context: Context) -> Iterator[Found]:
    run = _Run(text(row, "benchmark"), text(row, "method"), text(row, "model"))
    if run.model not in PRICES:
        raise ValueError(f"model: {run.model!r} is unknown; known: {', '.join(PRICES)}")
    source, score = _verdict(row, run, context)
    yield from Judged(
        source=source,
        text=text(row, "question"),
        model=f"{run.model} {run.method}",
        score=score,
        at=context.written_at,
        group=run.benchmark,
        sample=f"{row['run']} {row.get('question_id', '')}",
        answer=row["final_answer"],
        cost=_mean_cost(run, context),
        price=PRICES[run.model],
        latency_s=None if row.get("seconds") is None else number(row, "seconds"),
    ).records()


def _verdict(row: Row, run: _Run, context: Context) -> tuple[str, float | None]:
    """Return who judged the answer, and how."""
    correct, answer, gold = row["correct"], row["final_answer"], row["gold"]
    if not (correct is None or isinstance(correct, bool)):
        raise ValueError(f"correct: expected true, false or null, got {correct!r}")
    if (correct is None) != (row["status"] == "error"):
        raise ValueError(f"status: {row['status']!r} does not fit correct = {correct!r}")
    if run.benchmark not in JUDGED_THEMSELVES:
        return NAME, None if correct is None else float(correct)
    if context.grade is None:
        return SELF_JUDGED, None if correct is None else float(correct)
    right = context.grade(answer, gold) if correct is not None and answer and gold else None
    return RESCORED, None if right is None else float(right)


def _mean_cost(run: _Run, context: Context) -> Pico | None:
    """Return what a question of the run cost on average, in pico-dollars."""
    questions = sum(
        count(row, "n")
        for row in context.beside.get(RUNS, ())
        if (row["benchmark"], row["method"], row["model"]) == run
    )
    sides = {"input": 0, "output": 0}
    for row in context.beside.get(TOTALS, ()):
        if (found := _counted(text(row, "file"))) is not None and found.run == run:
            sides[found.side] += count(row, "total_tokens_logged")
    if not questions or not all(sides.values()):
        return None
    mean = Usage(round(sides["input"] / questions), round(sides["output"] / questions))
    return PRICES[run.model].cost(mean)


@lru_cache
def _counted(file: str) -> _Counted | None:
    """Return what a file of totals counts: `Baselines/COT/CHAMP/champ_cot_gpt-4o_input_token.txt`.

    None where it does not say, or lies in the folder of another benchmark than it names.
    """
    path = PurePosixPath(file)
    found = _FILE.fullmatch(path.name)
    if found is None or len(path.parts) < 3 or path.parts[-2].lower() not in BENCHMARKS:
        return None
    stem, (method, benchmark) = found["stem"].lower(), path.parts[-3:-1]
    others = [name for name in BENCHMARKS if name != benchmark.lower()]
    model = next((m for m in PRICES if re.search(rf"(^|_){re.escape(m)}$", stem)), None)
    if model is None or any(stem.startswith(f"{name}_") for name in others):
        return None
    return _Counted(_Run(benchmark, method.lower(), model), found["side"])


LAYOUT: Final = Layout(
    fields=frozenset(
        {
            *("benchmark", "method", "model", "run", "question"),
            *("gold", "final_answer", "status", "correct"),
        }
    ),
    records=_records,
    folder=NAME,
    beside={
        TOTALS: frozenset({"file", "total_tokens_logged"}),
        RUNS: frozenset({"benchmark", "method", "model", "run", "n", "accuracy_all"}),
    },
)
