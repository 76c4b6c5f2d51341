"""What runs of a plan say about single answers: outcomes, as the store keeps them. Pure.

The scorer judges whole answers. An answer to a subtask was right where a right run used it, and
wrong where it alone made a run wrong that another one got right. What neither shows has no score.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from r2reasoner.outcomes.records import Outcome, content_id
from r2reasoner.types import Plan, Step


class Run(Protocol):
    """A run of the plan: whether its answer was right, its steps, and the keys of their answers."""

    @property
    def right(self) -> bool:
        """Whether the whole answer was right."""
        ...

    @property
    def steps(self) -> tuple[Step, ...]:
        """What happened to each subtask."""
        ...

    @property
    def keys(self) -> Mapping[int, str]:
        """The key of each answer, by subtask."""
        ...


def verdicts(
    query: str, plan: Plan, written: str, runs: Sequence[Run], source: str
) -> Iterator[Outcome]:
    """Yield which answers stood where in the runs of a plan, and how they did.

    `written` is the plan's text. An answer that is all of a run's answer is judged as that too.
    """
    item, plan_id = content_id(query), content_id(written)
    right = [_said(run) for run in runs if run.right]
    good = {(n, *said) for one in right for n, said in one.items()}
    for run in runs:
        said = _said(run)
        culprit = None if run.right else _culprit(said, right)
        for step in run.steps:
            key = run.keys.get(step.subtask)
            if step.model is None or key is None:
                continue
            number = step.subtask
            score = 1.0 if (number, *said[number]) in good else None
            score = 0.0 if number == culprit else score
            yield Outcome(item, plan_id, number, step.model, key, score, f"{source}: runs")
            if plan.answer.strip() == f"#{number}":
                whole = float(run.right)
                yield Outcome(item, plan_id, None, step.model, key, whole, f"{source}: gold")


def _said(run: Run) -> dict[int, tuple[str, str | None]]:
    return {step.subtask: (step.prompt, step.answer) for step in run.steps}


def _culprit(
    said: Mapping[int, tuple[str, str | None]],
    right: Sequence[Mapping[int, tuple[str, str | None]]],
) -> int | None:
    """Return the one subtask that answered the same question otherwise than a right run did."""
    for other in right:
        differing = [
            n
            for n, (asked, answer) in said.items()
            if n in other and other[n][0] == asked
            if other[n][1] != answer
        ]
        if len(differing) == 1:
            return differing[0]
    return None
