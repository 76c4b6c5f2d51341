"""What stands right for the subtasks of items: found once, by calibration, and kept.

A model that comes to the pool later is asked the same subtasks on the same inputs, and only its
own calls are paid. The file is JSON lines, one item each, beside the outcomes of the same name.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from r2reasoner.errors import DataError, PlanError
from r2reasoner.files import write_whole
from r2reasoner.plan import read_json, validate
from r2reasoner.types import Plan

MOST_SUBTASKS: Final = 100
_TEXTS: Final = ("query", "gold", "scorer")


@dataclass(frozen=True, slots=True)
class Reference:
    """An item, its plan, and the subtasks' answers in a run whose final answer was right.

    Where the plan is one call there are no `answers`: what is right is judged by `gold` alone.
    """

    query: str
    gold: str
    plan: Plan
    answers: Mapping[int, str]

    @property
    def subtasks(self) -> tuple[int, ...]:
        """Numbers of the subtasks that a model does; joins cost no call."""
        return tuple(n for n, s in enumerate(self.plan.subtasks, 1) if not s.is_join)


class Recorded(NamedTuple):
    """The references of a file, and the name of the scorer that judged them."""

    references: tuple[Reference, ...]
    scorer: str


def references_file(outcomes: Path) -> Path:
    """Return where the references stand that go with a file of outcomes (.npz)."""
    return outcomes.with_suffix(".references.jsonl")


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON values, as `plan.read_json` reads it."""
    subtasks = [{"text": s.text, "needs": list(s.needs)} for s in plan.subtasks]
    return {"subtasks": subtasks, "answer": plan.answer}


def write_references(file: Path, references: Iterable[Reference], scorer: str) -> None:
    """Write references, whole or not at all. Raises ConfigError where they cannot be written."""
    rows = (
        {
            "query": reference.query,
            "gold": reference.gold,
            "scorer": scorer,
            "plan": plan_document(reference.plan),
            "answers": {str(n): answer for n, answer in reference.answers.items()},
        }
        for reference in references
    )
    write_whole(file, (json.dumps(row) + "\n" for row in rows), replace=True)


def read_references(file: Path) -> Recorded:
    """Read what `write_references` wrote. Raises DataError naming file and line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    references: list[Reference] = []
    scorers: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            reference, scorer = _read(json.loads(line))
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
            PlanError,
        ) as error:
            raise DataError(
                f"{file}:{number}: expected a reference as `r2reasoner calibrate` writes it:"
                f" {error}"
            ) from None
        references.append(reference)
        scorers.append(scorer)
    if len(set(scorers)) != 1:
        judged = ", ".join(sorted(set(scorers))) or "none"
        raise DataError(f"{file}: expected references judged by one scorer, got {judged}")
    return Recorded(tuple(references), scorers[0])


def _read(row: Any) -> tuple[Reference, str]:
    query, gold, scorer = (row[name] for name in _TEXTS)
    plan = validate(read_json(json.dumps(row["plan"])), max_subtasks=MOST_SUBTASKS)
    answers = {int(n): answer for n, answer in row["answers"].items()}
    if not all(isinstance(text, str) for text in (query, gold, scorer, *answers.values())):
        raise TypeError("query, gold, scorer and answers are texts")
    if not plan.is_direct and not answers.keys() >= _numbers(plan.subtasks):
        raise ValueError("a subtask has no answer")
    return Reference(query, gold, plan, answers), scorer


def _numbers(subtasks: Sequence[object]) -> set[int]:
    return set(range(1, len(subtasks) + 1))
