"""`r2reasoner trace`: what happened to a query, from plan to answer and bill."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from r2reasoner.cli.ask import DbOption
from r2reasoner.cli.ledger import (
    Out,
    Since,
    Until,
    bounds,
    clock,
    console,
    exact,
    foreign,
    open_existing,
    print_json,
    report_export,
    table,
)
from r2reasoner.cli.pool import JsonOption
from r2reasoner.errors import DataError
from r2reasoner.files import write_whole

if TYPE_CHECKING:
    from rich.tree import Tree

    from r2reasoner.ledger import TraceSummary
    from r2reasoner.types import Call, Trace

MOST_QUERY: Final = 80

app = typer.Typer(help="Show or export what happened to each query.", no_args_is_help=True)


@app.command("list")
def list_traces(
    limit: Annotated[int, typer.Option(min=1, help="Most traces to list, newest first.")] = 20,
    as_json: JsonOption = False,
    db: DbOption = None,
) -> None:
    """List the queries, newest first."""
    with open_existing(db) as ledger:
        traces = ledger.traces(limit=limit)
    if as_json:
        print_json({"traces": [_record(summary) for summary in traces]})
        return
    if not traces:
        console().print("no traces yet")
        return
    titles = ("time", "id", "pool", "status", "cost", "s", "query")
    console().print(table(titles, {"cost", "s"}, map(_cells, traces)))


@app.command()
def show(
    identifier: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Id of a trace or its beginning [default: newest]."),
    ] = None,
    as_json: JsonOption = False,
    db: DbOption = None,
) -> None:
    """Show one trace: plan, models, answers, cost and calls."""
    with open_existing(db) as ledger:
        if identifier is None:
            newest = ledger.traces(limit=1)
            if not newest:
                raise DataError("no traces yet: ask something first")
            identifier = newest[0].id
        if as_json:
            print_json(json.loads(ledger.trace_json(identifier)))
            return
        trace = ledger.trace(identifier)
    console().print(_tree(trace))


@app.command()
def export(
    out: Out,
    since: Since = None,
    until: Until = None,
    as_json: JsonOption = False,
    db: DbOption = None,
) -> None:
    """Write traces to a file, one line of JSON each, oldest first."""
    begin, end = bounds(since, until)
    with open_existing(db) as ledger:
        bodies = ledger.iter_trace_json(since=begin, until=end)
        count = write_whole(out, (f"{body}\n" for body in bodies), replace=True)
    report_export(out, {"traces": count}, as_json=as_json)


def _record(summary: "TraceSummary") -> dict[str, Any]:
    fields = summary._asdict()
    cost = fields.pop("cost")
    return fields | {"cost_pico": cost, "cost_dollars": exact(cost)}


def _cells(summary: "TraceSummary") -> tuple[str, ...]:
    from r2reasoner.bill import show_money

    query = " ".join(summary.query.split())
    return (
        clock(summary.started_at),
        summary.id,
        summary.pool,
        summary.status,
        show_money(summary.cost),
        f"{summary.wall_s:.2f}",
        query if len(query) <= MOST_QUERY else f"{query[: MOST_QUERY - 1]}…",
    )


def _tree(trace: "Trace") -> "Tree":
    from rich.tree import Tree

    from r2reasoner.bill import show_money

    tree = Tree(foreign(trace.query.text))
    tree.add(
        foreign(
            f"{trace.id}: {clock(trace.started_at)}, pool {trace.pool}, trade-off "
            f"{trace.trade_off:g}, {trace.wall_s:.2f} s, {show_money(trace.cost())}"
        )
    )
    _add_plan(tree, trace)
    note = f" ({trace.answer.note})" if trace.answer.note else ""
    answer = tree.add(foreign(f"answer: {trace.answer.status.value}{note}"))
    answer.add(foreign(trace.answer.text))
    calls = tree.add(f"calls: {len(trace.calls)}")
    for call in trace.calls:
        calls.add(foreign(_call(call)))
    return tree


def _add_plan(tree: "Tree", trace: "Trace") -> None:
    failed = ", no valid plan was made" if trace.plan_failed else ""
    uncalibrated = "" if trace.allocation.calibrated else ", uncalibrated"
    size = len(trace.plan.subtasks)
    subtasks = "1 subtask" if size == 1 else f"{size} subtasks"
    plan = tree.add(
        foreign(
            f"plan: {subtasks}, answer {trace.plan.answer}{failed}; "
            f"allocator {trace.allocation.allocator}{uncalibrated}"
        )
    )
    for note in trace.plan_notes:
        plan.add(foreign(f"note: {note}"))
    steps = {step.subtask: step for step in trace.steps}
    for number, subtask in enumerate(trace.plan.subtasks, 1):
        node = plan.add(foreign(f"{number}. {subtask.text}"))
        choices = trace.allocation.choices
        choice = choices[number - 1] if number <= len(choices) else None
        if choice is not None:
            node.add(foreign(f"allocated to {choice.model}: {choice.reason}"))
        step = steps.get(number)
        if step is None:
            node.add("not run")
            continue
        for model in step.fell_back_from:
            node.add(foreign(f"fell back from {model}"))
        by = f"{step.model}, " if step.model else ""
        outcome = f"failed: {step.error}" if step.answer is None else f"= {step.answer}"
        node.add(foreign(f"{outcome} ({by}{step.finished_s - step.started_s:.2f} s)"))


def _call(call: "Call") -> str:
    from r2reasoner.bill import show_money

    subtask = "" if call.subtask is None else f" of subtask {call.subtask}"
    remarks = [remark for remark in (call.finish_reason, call.error, call.note) if remark]
    return (
        f"{call.role.value}{subtask}, {call.model}, try {call.attempt}: {call.outcome.value}, "
        f"{call.usage.input_tokens:,} tokens in, {call.usage.output_tokens:,} out, "
        f"{show_money(call.cost)}, {call.latency_s:.2f} s"
        + (f" ({'; '.join(remarks)})" if remarks else "")
    )
