import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.outcomes.records import (
    TYPES,
    Answered,
    Outcome,
    Record,
    checked,
    content_id,
    from_row,
    to_row,
)
from r2reasoner.types import Role, Usage
from recorded import answered, outcome

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
COUNT = st.integers(0, 2**63 - 1)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
ANSWERED: st.SearchStrategy[Record] = st.builds(
    Answered,
    key=TEXT,
    model=TEXT,
    revision=TEXT,
    prompt=TEXT,
    answer=st.none() | TEXT,
    finish_reason=st.none() | TEXT,
    usage=st.none() | st.builds(Usage, COUNT, COUNT, COUNT, COUNT),
    cost=st.none() | COUNT,
    input_price=st.none() | TEXT,
    output_price=st.none() | TEXT,
    latency_s=st.none() | NUMBER,
    logprob=st.none() | NUMBER,
    source=TEXT,
    at=NUMBER,
    role=st.sampled_from(Role),
    logprob_asked=st.booleans(),
)
OUTCOME: st.SearchStrategy[Record] = st.builds(
    Outcome, TEXT, st.none() | TEXT, st.none() | COUNT, TEXT, TEXT, st.none() | NUMBER, TEXT
)


@given(ANSWERED | OUTCOME)
def test_a_record_comes_back_from_its_row(record: Record) -> None:
    row = to_row(record)
    assert row.keys() <= TYPES.keys()
    assert from_row(checked(json.loads(json.dumps(row)))) == record
    table_row = dict.fromkeys(TYPES) | row
    assert from_row(checked(table_row)) == record


def test_what_utf_8_cannot_hold_is_replaced() -> None:
    row = to_row(answered("a", answer="half \ud83d of it", prompt="\ude00é"))
    assert (row["answer"], row["prompt"]) == ("half ? of it", "?é")


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_is_a_number(score: float) -> None:
    with pytest.raises(ValueError, match="a score is a finite number or None"):
        outcome("a", score=score)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": "letter"}, "expected kind 'answer' or 'outcome', got 'letter'"),
        ({"kind": None}, "got None"),
        ({"model": None}, "without model"),
        ({"cost": 1.5}, "cost: expected int64, got '1.5'"),
        ({"cost": True}, "cost: expected int64, got 'True'"),
        ({"cost": -1}, "cost: expected a whole number of at least 0"),
        ({"cost": 2**63}, "cost: expected a whole number"),
        ({"answer": ["x"]}, "answer: expected string"),
        ({"logprob_asked": 1}, "logprob_asked: expected bool"),
        ({"logprob": math.nan}, "logprob: expected a finite number"),
        ({"at": "now"}, "at: expected double"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_a_row_from_outside_is_checked(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked(to_row(answered("a")) | changed)


def test_content_ids() -> None:
    assert content_id("2 + 3") == content_id("2 + 3")
    assert len({content_id(text) for text in ("2 + 3", "2 +3", "", "\ud83d")}) == 4
    assert len(content_id("")) == 24
