"""Division-of-Thoughts: how allocations of models to the steps of a plan did.

Source: tsinghua-fib-lab/DoT. An allocation is one outcome of a plan: its model is the models of
the steps, joined by commas, in the order of the plan. The recorded order inside an allocation runs
from the surest step to the least sure one, which no router may see: it is dropped here. Several
runs of one allocation are samples. No tokens were recorded, so no price is known.

Three files: two models on six benchmarks; six models on CHAMP, of which the step texts were never
published (and of the questions above 199 not even those: a stand-in takes their place); and labels
that say on which model the search settled for a step, which are no verdicts: their score is None.

Cautions: only questions that gpt-4-turbo had solved before are here, every allocation was run once
at temperature 1, and the search goes on from what it found (steps are lowered one by one until a
failure), so which allocations were tried depends on how they did.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from r2reasoner.outcomes.layouts.base import Context, Found, Judged, Layout, Skipped, count, text
from r2reasoner.outcomes.records import Row, content_id

NAME: Final = "dot_step_allocations"
SIX_MODELS_NAME: Final = "dot_six_model_allocations"
LABELS_NAME: Final = "dot_step_labels"
SIX_MODELS_SOURCE: Final = f"{NAME} six models"
LABELS_SOURCE: Final = f"{NAME} labels"
SMALL: Final = "llama3-8b"
STRONG: Final = "gpt-4-turbo"
JOIN: Final = ","
CLASSES: Final = {
    "MATH": (SMALL, "llama3-70b", "gpt-3.5-turbo", "gpt-4o-mini", "gpt-4", STRONG),
    "SCAN": (SMALL, STRONG),
}
"""Which model a label's number stands for."""
_STEP: Final = re.compile(r"(?:^|; )step\d+: ?")


def numbered(steps: Sequence[str]) -> str:
    """Return a plan's steps as numbered lines, one a step."""
    return "\n".join(f"{i}. {' '.join(step.split())}" for i, step in enumerate(steps, 1))


def plan_id(question: str, steps: Sequence[str]) -> str:
    """Return the id of a plan: a hash of question and steps."""
    return content_id(json.dumps([question, list(steps)], ensure_ascii=False))


def _two_models(row: Row, context: Context) -> Iterator[Found]:
    question, steps = text(row, "question"), _steps(row["steps"])
    for models, sample, right in _trials(row, [*range(1, len(steps) + 1)], (SMALL, STRONG)):
        yield from Judged(
            source=NAME,
            text=question,
            model=JOIN.join(models),
            score=float(right),
            at=context.written_at,
            group=text(row, "benchmark"),
            sample=f"{row['question_id']} {row['decomposition_id']} {sample}",
            plan=plan_id(question, steps),
            assistant=numbered(steps),
        ).records()


def _steps(found: Any) -> list[str]:
    """Return the texts of steps; on P3 each is an object with its number."""
    steps = [step.get("step") if isinstance(step, dict) else step for step in found or ()]
    texts = [step for step in steps if isinstance(step, str)]
    if not texts or len(texts) < len(steps):
        raise ValueError("steps: expected a list of texts")
    return texts


def _six_models(row: Row, context: Context) -> Iterator[Found]:
    index, number = count(row, "question_index"), count(row, "n_steps")
    known = row["question_by_index"]
    question = f"CHAMP, question {index} (text not recorded)" if known is None else known
    place = f"{text(row, 'search')} {index} {row['decomposition_id']}"
    for models, sample, right in _trials(row, None, (*CLASSES["MATH"],)):
        if len(models) != number:
            yield Skipped("allocation whose steps are not those of its plan")
            continue
        yield from Judged(
            source=SIX_MODELS_SOURCE,
            text=question,
            model=JOIN.join(models),
            score=float(right),
            at=context.written_at,
            group=text(row, "benchmark"),
            sample=f"{place} {sample}",
            plan=content_id(f"{question} {place}"),
        ).records()


def _trials(
    row: Row, numbers: Sequence[int] | None, known: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], int, bool]]:
    """Yield each allocation's models in the plan's order, which run of it this is, and if right.

    `numbers`: the steps that it must name, each once; None: any, each once.
    """
    trials, runs = row["trials"], Counter[tuple[str, ...]]()
    if not isinstance(trials, list) or not trials:
        raise ValueError("trials: expected a list of allocations and how they did")
    for trial in trials:
        allocation, right = _pairs(trial["allocation"]), trial["correct"]
        named = [step for step, _ in allocation]
        if len(set(named)) < len(named) or (numbers is not None and named != list(numbers)):
            raise ValueError(f"trials: expected each step once in an allocation, got {named}")
        models = tuple(model for _, model in allocation)
        if unknown := sorted(set(models) - set(known)):
            raise ValueError(f"trials: unknown model {', '.join(unknown)}")
        if not isinstance(right, bool):
            raise ValueError(f"trials: correct: expected true or false, got {right!r}")
        runs[models] += 1
        yield models, runs[models], right


def _pairs(allocation: Any) -> list[tuple[int, str]]:
    pairs = [(step, model) for step, model in allocation]
    if not all(isinstance(step, int) and isinstance(model, str) for step, model in pairs):
        raise ValueError("trials: expected pairs of a step's number and a model")
    return sorted(pairs)


def _labels(row: Row, context: Context) -> Iterator[Found]:
    question, benchmark, label = text(row, "question"), text(row, "benchmark"), row["difficulty"]
    steps = [step.strip() for step in _STEP.split(text(row, "all_subtasks"))[1:]]
    subtask = text(row, "subtask", empty=True).strip()
    if not subtask:
        yield Skipped("label of an empty step")
        return
    if subtask not in steps:
        raise ValueError(f"subtask: {subtask[:40]!r} is not one of all_subtasks")
    classes = CLASSES.get(benchmark, ())
    if not isinstance(label, int) or not 0 <= label < len(classes):
        raise ValueError(f"difficulty: {label!r} is no class of {benchmark}")
    yield from Judged(
        source=LABELS_SOURCE,
        text=question,
        model=classes[label],
        score=None,
        at=context.written_at,
        group=benchmark,
        plan=plan_id(question, steps),
        subtask=steps.index(subtask) + 1,
        assistant=numbered(steps),
    ).records()


TWO_MODELS: Final = Layout(
    fields=frozenset(
        {"benchmark", "question_id", "decomposition_id", "question", "steps", "edges", "trials"}
    ),
    records=_two_models,
    folder=NAME,
)
SIX_MODELS: Final = Layout(
    fields=frozenset({"benchmark", "search", "question_index", "question_by_index", "trials"}),
    records=_six_models,
    folder=NAME,
)
LABELS: Final = Layout(
    fields=frozenset({"benchmark", "question", "all_subtasks", "subtask", "difficulty"}),
    records=_labels,
    folder=NAME,
)
