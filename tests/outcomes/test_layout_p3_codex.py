from pathlib import Path

import pytest

from r2reasoner.errors import DataError
from shared_rows import by_model, shared_lines, taken_in

RESULT = {"engine": "codex", "n": 10, "n_sols": 3}
ROW = {"name": "Study_1:0", "sat": "def sat(x): ...", "engine_results": {"short": RESULT}}


def test_a_row_by_hand(tmp_path: Path) -> None:
    found = by_model(taken_in(tmp_path, *shared_lines("p3_codex_outcomes", "outcomes.jsonl", 2)))
    assert {model: (o.score, o.group, a.cost) for model, (a, o) in found.items()} == {
        "cushman-codex short": (0.0, "Study_3", None),
        "cushman-codex med": (0.001, "Study_3", None),
        "cushman-codex long": (0.024, "Study_3", None),
        "cushman-codex bootstrap": (None, "Study_3", None),
    }


def test_bad_rows_are_named(tmp_path: Path) -> None:
    bad = ROW | {"sat": "other", "engine_results": {"short": RESULT | {"n_sols": 11}}}
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*n_sols: expected at most n = 10"):
        taken_in(tmp_path, ROW, bad)
