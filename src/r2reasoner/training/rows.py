"""Rows of training data, one per item, flat so that they fit a Parquet shard.

An item comes as `item` (its content id), `query`, `gold` and `family`; `decompositions` adds a
plan to it, `allocations` adds models to that. What is nested is JSON text. This module holds what
both share: how a plan stands in a row.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from r2reasoner.errors import DataError, PlanError
from r2reasoner.outcomes.records import content_id
from r2reasoner.plan import direct, read_json, read_line, validate, whole, write_line
from r2reasoner.references import plan_document
from r2reasoner.types import Plan, Task

Row: TypeAlias = dict[str, Any]
ITEM: Final = ("item", "query", "gold", "family")


def item_row(task: Task, family: str) -> Row:
    """Return the row of an item that has nothing but its query and right answer yet."""
    return {
        "item": content_id(task.query),
        "query": task.query,
        "gold": task.gold,
        "family": family,
    }


def item_of(row: Mapping[str, Any]) -> Row:
    """Return the part of a row that says what the item is. Raises DataError where that lacks."""
    texts = {name: row.get(name) for name in ITEM}
    if not all(isinstance(text, str) for text in texts.values()) or not row["query"].strip():
        raise DataError(f"a training item has the texts {', '.join(ITEM)}; got {_cut(repr(row))}")
    return texts


def plan_text(plan: Plan, query: str) -> str:
    """Write a plan in the line format where that says all of it, else as JSON."""
    line = write_line(plan)
    try:
        if read_plan(line, query) == plan:
            return line
    except PlanError:
        pass
    return json.dumps(plan_document(plan))


def read_plan(text: str, query: str) -> Plan:
    """Read what `plan_text` wrote for a query. Raises PlanError."""
    if text.startswith("{"):
        return validate(read_json(text))
    written = read_line(text)
    return validate(whole(written) if written.subtasks else direct(query))


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"
