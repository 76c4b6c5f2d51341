"""P3: Codex (cushman-codex) on Python puzzles, a thousand samples under each kind of prompt.

Source: microsoft/PythonProgrammingPuzzles, `solvers/codex/results`. A model here is Codex with one
kind of prompt (short, med, long); its score is the share of samples that solve the puzzle, which
is pass@1. The bootstrapping prompt is left unjudged: the source only says after how many failures
it stopped. Groups are puzzle families. The engine was free of charge: no price is known.
"""

from collections.abc import Iterator
from typing import Final

from r2reasoner.outcomes.layouts.base import Context, Found, Judged, Layout, count, object_of, text
from r2reasoner.outcomes.records import Row

NAME: Final = "p3_codex_outcomes"


def _records(row: Row, context: Context) -> Iterator[Found]:
    puzzle, name = text(row, "sat"), text(row, "name")
    for kind, found in object_of(row, "engine_results").items():
        yield from Judged(
            source=NAME,
            text=puzzle,
            model=f"{text(found, 'engine')} {kind}",
            score=None if "n_sols" not in found else _share(found),
            at=context.written_at,
            group=name.partition(":")[0],
        ).records()


def _share(found: Row) -> float:
    solved, samples = count(found, "n_sols"), count(found, "n")
    if not 0 < samples >= solved:
        raise ValueError(f"n_sols: expected at most n = {samples}, got {solved}")
    return solved / samples


LAYOUT: Final = Layout(
    fields=frozenset({"name", "sat", "engine_results"}),
    records=_records,
    folder=NAME,
    complete=True,
)
