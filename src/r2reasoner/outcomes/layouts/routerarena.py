"""RouterArena's subset of a tenth: two models, with what each answer cost.

Source: RouteWorks/RouterArena, `cached_results`. Scores, tokens and costs as recorded; one score
of a text metric is a little below 0, and stands so. An item's
group is its benchmark, which is its index without the number (`MMLUPro_history_12`).
"""

from collections.abc import Iterator
from typing import Final

from r2reasoner.outcomes.layouts.base import (
    Context,
    Found,
    Judged,
    Layout,
    count,
    dollars,
    number,
    object_of,
    text,
)
from r2reasoner.outcomes.records import Row
from r2reasoner.types import Usage

NAME: Final = "routerarena_sub10"


def _records(row: Row, context: Context) -> Iterator[Found]:
    question, index = text(row, "question"), text(row, "global_index")
    text(row, "ground_truth")
    for model, found in object_of(row, "models").items():
        yield from Judged(
            source=NAME,
            text=question,
            model=model,
            score=_score(found),
            at=context.written_at,
            group=index.rpartition("_")[0] or index,
            usage=Usage(count(found, "input_tokens"), count(found, "output_tokens")),
            cost=dollars(found, "cost_usd"),
        ).records()


def _score(found: Row) -> float:
    value = number(found, "score")
    if abs(value) > 1:
        raise ValueError(f"score: expected at most 1, got {value:g}")
    return value


LAYOUT: Final = Layout(
    fields=frozenset({"global_index", "question", "ground_truth", "metric", "models"}),
    records=_records,
    folder=NAME,
    complete=True,
)
