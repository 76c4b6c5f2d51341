"""The ladder of a nano pool for a terminal and as JSON."""

import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from r2reasoner.nano.ladder import Ladder, Rung, Summary


def ladder_document(ladder: Ladder) -> dict[str, Any]:
    """Return the ladder as one JSON document."""
    return {
        "pool": ladder.pool,
        "split": ladder.split,
        "seed": ladder.seed,
        "kinds": [
            {
                "family": rung.family,
                "kind": rung.kind,
                "items": rung.items,
                "in_training": rung.seen,
                "apart": rung.apart or None,
                "accuracy": dict(rung.accuracy),
                "cheapest": rung.cheapest,
                "reached": rung.reached,
            }
            for rung in ladder.rungs
        ],
        "summary": _summary_document(ladder.summary()),
        "summary_unseen": _summary_document(ladder.summary(unseen_only=True)),
        "ceilings": {str(n): value for n, value in ladder.ceilings.items()},
    }


def _summary_document(summary: Summary) -> dict[str, Any]:
    return {
        "kinds": summary.kinds,
        "cheapest_for": dict(summary.cheapest_for),
        "nobodys": summary.nobodys,
        "mean_accuracy": dict(summary.mean),
        "one_model_for_most": summary.has_one_model_for_most,
        "rises_with_size": summary.rises,
    }


def print_ladder(ladder: Ladder) -> None:
    """Print the table of accuracies, and what it comes to."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("kind of subtask", no_wrap=True)
    table.add_column("items", justify="right")
    for model in ladder.rungs[0].accuracy:
        table.add_column(model, justify="right", no_wrap=True)
    table.add_column("cheapest right", no_wrap=True)
    titles = {
        "in training": "on the training side (all there are of their kind)",
        "": "never trained on",
    }
    for group, rungs in _groups(ladder):
        table.add_section()
        table.add_row(f"[bold]{titles.get(group, 'apart, never trained on')}[/]")
        for rung in rungs:
            table.add_row(*_cells(rung))
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)
    console.print(
        "cheapest right: the cheapest model right at least 95 % of the time; (in brackets) the best"
        " where none is",
        style="dim",
    )
    for line in _summary_lines(ladder):
        console.print(line, highlight=False)


def _groups(ladder: Ladder) -> list[tuple[str, list[Rung]]]:
    groups: dict[str, list[Rung]] = {"in training": [], "": [], "apart": []}
    for rung in ladder.rungs:
        groups["apart" if rung.apart else "in training" if rung.seen else ""].append(rung)
    return [(name, rungs) for name, rungs in groups.items() if rungs]


def _cells(rung: Rung) -> list[str]:
    shown = {
        model: "1.0" if share == 1 else f"{share:.2f}".removeprefix("0")
        for model, share in rung.accuracy.items()
    }
    colour = "green" if rung.reached else "yellow"
    shown[rung.cheapest] = f"[{colour}]{shown[rung.cheapest]}[/]"
    name = rung.kind if rung.apart in rung.kind else f"{rung.kind} ({rung.apart})"
    cheapest = rung.cheapest if rung.reached else f"({rung.cheapest})"
    return [name, str(rung.items), *shown.values(), cheapest]


def _summary_lines(ladder: Ladder) -> list[str]:
    lines = []
    for name, unseen_only in (("all kinds but those apart", False), ("never trained on", True)):
        summary = ladder.summary(unseen_only=unseen_only)
        if not summary.kinds:
            continue
        counts = {**summary.cheapest_for, "nobody": summary.nobodys}
        shown = ", ".join(f"{m} {n}" for m, n in counts.items() if n)
        means = " ".join(f"{share:.2f}" for share in summary.mean.values())
        most = "one model is" if summary.has_one_model_for_most else "no single model is"
        rises = "rises with size" if summary.rises else "does not rise with size throughout"
        lines.append(
            f"[bold]{name}[/] ({summary.kinds}): cheapest right {shown}; {most} it for most"
        )
        lines.append(f"  mean accuracy {rises}: {means}")
    if ladder.ceilings:
        shown = ", ".join(f"{n} operands {share:.1%}" for n, share in ladder.ceilings.items())
        lines.append(
            f"[bold]ceiling[/] (product of the pool's best accuracy per operation): {shown}"
        )
    return lines
