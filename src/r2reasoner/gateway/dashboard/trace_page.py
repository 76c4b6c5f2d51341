"""One trace: its plan as a graph, what ran when, each subtask, what others would have cost."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from r2reasoner.bill import bill
from r2reasoner.errors import DataError
from r2reasoner.estimate import OutcomeModel
from r2reasoner.gateway.dashboard.graph import Node, draw_graph
from r2reasoner.gateway.dashboard.overview import ROLE_WORDS
from r2reasoner.gateway.dashboard.shown import money
from r2reasoner.gateway.dashboard.waterfall import draw_waterfall, overlap, rows_of
from r2reasoner.gateway.dashboard.web import Desk
from r2reasoner.plan import in_context
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import Call, CallOutcome, Choice, Pico, Plan, Role, Step, Trace, Usage

ROUTING: Final = (Role.DECOMPOSER, Role.ALLOCATOR)
BESIDE: Final = 2
"""How many weaker and how many stronger models stand beside the one that answered."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A model that might have answered: its cost at the same tokens, and how likely it is right.

    `cost` is in pico-dollars, `times` of what the one that answered cost; None is unknown.
    """

    model: str
    cost: Pico | None
    times: float | None
    p_right: float | None
    answered: bool
    place: str


@dataclass(frozen=True, slots=True)
class SubtaskView:
    """All about one subtask."""

    number: int
    text: str
    needs: tuple[int, ...]
    is_join: bool
    choice: Choice | None
    step: Step | None
    calls: tuple[Call, ...]
    usage: Usage
    cost: Pico | None
    neighbours: tuple[Neighbour, ...]

    @property
    def state(self) -> str:
        """Its class in pictures."""
        if self.step is None:
            return "waits"
        return "failed" if self.step.answer is None else "done"


def page(desk: Desk, request: Request) -> Response:
    """Return the page of one trace; where it runs or there is none, a page that says so."""
    try:
        trace = desk.gateway.ledger.trace(request.path_params["identifier"])
    except DataError as error:
        return desk.trouble(request, 404, f"{error}. A query that is still running has none yet.")
    pool = desk.gateway.pool_called(trace.pool)
    views = subtasks_of(trace, pool)
    rows = rows_of(trace)
    return desk.page(
        request,
        "trace.html",
        trace=trace,
        bill=bill(trace, pool) if trace.pool == pool.name else None,
        role_words=ROLE_WORDS,
        subtasks=views,
        graph=draw_graph(trace.plan, [_node(view) for view in views], trace.answer.text),
        waterfall=draw_waterfall(rows, trace.wall_s) if rows else "",
        overlap=overlap(trace),
        calls=sorted(trace.calls, key=lambda call: call.started_at),
        score_of=desk.scores.all().get(trace.id),
        settings=json.dumps(dict(trace.settings), indent=1, default=str),
    )


def subtasks_of(trace: Trace, pool: Pool) -> list[SubtaskView]:
    """Return what is known of each subtask, in order."""
    steps = {step.subtask: step for step in trace.steps}
    views = []
    for number, subtask in enumerate(trace.plan.subtasks, 1):
        calls = tuple(c for c in trace.calls if c.subtask == number and c.role not in ROUTING)
        choices = trace.allocation.choices
        step = steps.get(number)
        views.append(
            SubtaskView(
                number=number,
                text=subtask.text,
                needs=subtask.dependencies,
                is_join=subtask.is_join,
                choice=choices[number - 1] if number <= len(choices) else None,
                step=step,
                calls=calls,
                usage=sum((call.usage for call in calls), Usage()),
                cost=_sum([call.cost for call in calls]),
                neighbours=neighbours(trace, number, step, calls, pool),
            )
        )
    return views


def neighbours(
    trace: Trace, number: int, step: Step | None, calls: Sequence[Call], pool: Pool
) -> tuple[Neighbour, ...]:
    """Return the model that answered between those next to it, weakest first.

    Costs are at the tokens that it used; another model would count and write others.
    """
    if step is None or step.model is None or trace.pool != pool.name:
        return ()
    names = [card.name for card in pool.workers]
    won = [c for c in calls if c.outcome is CallOutcome.OK and c.model == step.model]
    if step.model not in names or not won:
        return ()
    at = names.index(step.model)
    usage = won[-1].usage
    paid = _cost(pool.workers[at], usage)
    p_right = _p_right(trace.plan, number, pool.outcomes)
    first = max(0, at - BESIDE)
    return tuple(
        Neighbour(
            model=card.name,
            cost=(cost := _cost(card, usage)),
            times=cost / paid if cost is not None and paid else None,
            p_right=p_right.get(card.name),
            answered=place == at,
            place="answered" if place == at else "weaker" if place < at else "stronger",
        )
        for place, card in enumerate(pool.workers[first : at + BESIDE + 1], first)
    )


def _cost(card: Card, usage: Usage) -> Pico | None:
    return None if card.price is None else card.price.cost(usage)


def _p_right(plan: Plan, number: int, outcomes: Path | None) -> dict[str, float]:
    if outcomes is None:
        return {}
    try:
        model = _outcomes(outcomes, outcomes.stat().st_mtime_ns)
    except (OSError, DataError):
        return {}
    return model.p_right(in_context(plan, number))


@lru_cache(maxsize=4)
def _outcomes(path: Path, stamp: int) -> OutcomeModel:
    """Read measured outcomes, again when the file has another time (`stamp`)."""
    return OutcomeModel.load(path)


def _sum(costs: Sequence[Pico | None]) -> Pico | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _node(view: SubtaskView) -> Node:
    model = view.step.model if view.step else view.choice.model if view.choice else None
    name = "join" if view.is_join else model or "no model"
    beside = "" if view.is_join or view.step is None else money(view.cost)
    return Node(f"#{view.number} {name}", view.text, beside, view.state)
