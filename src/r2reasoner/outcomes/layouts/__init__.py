"""Outcomes in files: what a store is exported to, and the public layouts that it takes in.

A folder or a file is recognised by the fields of its rows, never by its name. One small module for
each public source; another source is one more module and one more entry in `LAYOUTS`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from r2reasoner.outcomes.layouts import (
    csqa,
    dot_queries,
    dot_steps,
    four_systems,
    llmrouter,
    llmrouterbench,
    own,
    p3_codex,
    routellm,
    routerarena,
    routerbench,
)
from r2reasoner.outcomes.layouts.base import Grade, Layout
from r2reasoner.outcomes.layouts.own import Taken, take_in, write_export
from r2reasoner.outcomes.layouts.read import Imported, Refusal, read

__all__ = [
    "LAYOUTS",
    "REFUSED",
    "Grade",
    "Imported",
    "Layout",
    "Taken",
    "read_records",
    "take_in",
    "write_export",
]

LAYOUTS: Final[Mapping[str, Layout]] = {
    "export": own.EXPORT,
    "calibration": own.CALIBRATION,
    csqa.NAME: csqa.LAYOUT,
    dot_queries.NAME: dot_queries.LAYOUT,
    dot_steps.NAME: dot_steps.TWO_MODELS,
    dot_steps.SIX_MODELS_NAME: dot_steps.SIX_MODELS,
    dot_steps.LABELS_NAME: dot_steps.LABELS,
    four_systems.NAME: four_systems.LAYOUT,
    llmrouter.NAME: llmrouter.LAYOUT,
    llmrouterbench.NAME: llmrouterbench.RUNS,
    llmrouterbench.SPLITS_NAME: llmrouterbench.SPLITS,
    p3_codex.NAME: p3_codex.LAYOUT,
    routellm.GSM8K_NAME: routellm.GSM8K,
    routellm.MMLU_NAME: routellm.MMLU,
    routellm.MTBENCH_NAME: routellm.MTBENCH,
    routerarena.NAME: routerarena.LAYOUT,
    routerbench.NAME: routerbench.LAYOUT,
}

REFUSED: Final = (
    Refusal(
        "open_agent_leaderboard",
        frozenset({"Algorithm", "Dataset", "LLM", "Score", "Samples"}),
        "has sums over whole benchmarks only: no outcome of any single question, so there is"
        " nothing to replay or to learn from",
    ),
    Refusal(
        "dot_decompositions",
        frozenset({"benchmark", "steps", "depths", "edges", "adapter_allocation"}),
        "has plans and allocations only: nobody recorded how they did, so there is no outcome",
    ),
)
"""Layouts that are known, and hold no outcomes."""


def read_records(path: Path, layout: str | None = None, *, grade: Grade | None = None) -> Imported:
    """Return what a file, or a folder of files, says, with its layout's name.

    With `grade` (answer, gold -> right, wrong or undecided) verdicts that the model under test
    gave itself are given anew. Raises ConfigError for a layout that there is not, DataError, with
    file and row, where the files are of none or not as their layout says.
    """
    return read(path, LAYOUTS, REFUSED, layout, grade)
