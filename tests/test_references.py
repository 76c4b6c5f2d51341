"""References: what is written is read again, and what is no reference is refused by its line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pools import plan_of
from r2reasoner.errors import DataError
from r2reasoner.plan import direct
from r2reasoner.references import (
    Recorded,
    Reference,
    read_references,
    references_file,
    write_references,
)
from r2reasoner.types import Plan, Subtask

CHAIN = Reference("double 4, add 1", "9", plan_of("double 4", "add 1 to #1"), {1: "8", 2: "9"})
NEEDS = Reference(
    "which is larger", "b", Plan((Subtask("a"), Subtask("compare", (1,))), "#2"), {1: "1", 2: "b"}
)
ALONE = Reference("walk", "WALK", direct("walk"), {})


def test_the_file_stands_beside_the_outcomes() -> None:
    assert references_file(Path("x/mine.npz")) == Path("x/mine.references.jsonl")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.references.jsonl"
    write_references(file, [CHAIN, NEEDS, ALONE], "number")
    assert read_references(file) == Recorded((CHAIN, NEEDS, ALONE), "number")


@given(st.text(), st.text(), st.text())
def test_any_text_survives(
    tmp_path_factory: pytest.TempPathFactory, query: str, gold: str, answer: str
) -> None:
    file = tmp_path_factory.mktemp("texts") / "mine.references.jsonl"
    reference = Reference(query, gold, plan_of("a", "b #1"), {1: answer, 2: gold})
    write_references(file, [reference], "exact")
    assert read_references(file).references == (reference,)


def test_joins_are_no_subtasks_for_a_model() -> None:
    plan = plan_of("walk", "run", "#1 #2")
    assert Reference("q", "g", plan, {}).subtasks == (1, 2)


ROW: dict[str, Any] = {
    "query": "double 4, add 1",
    "gold": "9",
    "scorer": "exact",
    "plan": {"subtasks": [{"text": "double 4"}, {"text": "add 1 to #1"}], "answer": "#2"},
    "answers": {"1": "8", "2": "9"},
}


@pytest.mark.parametrize(
    "changed",
    [
        {"query": 7},
        {"gold": None},
        {"scorer": ["exact"]},
        {"plan": "double 4"},
        {"plan": {"subtasks": [{"text": "add 1 to #3"}], "answer": "#1"}},
        {"answers": {"1": "8"}},
        {"answers": {"1": "8", "2": 9}},
        {"answers": {"one": "8", "2": "9"}},
        {"answers": ["8", "9"]},
    ],
)
def test_a_row_that_is_no_reference_is_named(tmp_path: Path, changed: dict[str, Any]) -> None:
    file = tmp_path / "mine.references.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | changed) + "\n")
    with pytest.raises(DataError, match=r"mine\.references\.jsonl:2: expected a reference"):
        read_references(file)


@pytest.mark.parametrize("text", ["[1]\n", "{}\n", '{"query": "cut', "\n", "no json\n"])
def test_other_lines_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.references.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=r"mine\.references\.jsonl"):
        read_references(file)


def test_files_without_rows_or_with_two_scorers(tmp_path: Path) -> None:
    file = tmp_path / "mine.references.jsonl"
    with pytest.raises(DataError, match="cannot be read"):
        read_references(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        read_references(file)
    file.write_text("")
    with pytest.raises(DataError, match="one scorer, got none"):
        read_references(file)
    file.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"scorer": "number"}) + "\n")
    with pytest.raises(DataError, match="one scorer, got exact, number"):
        read_references(file)
