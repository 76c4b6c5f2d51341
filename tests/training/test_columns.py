from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.training.columns import MOST_INTEGER, Column, Form, decode, encode

FORM = Form(
    {
        "item": Column.TEXT,
        "plan": Column.TEXT,
        "cost": Column.INTEGER,
        "score": Column.NUMBER,
        "right": Column.FLAG,
    }
)
ROW = {"item": "a", "plan": "= #1", "cost": 5, "score": 0.5, "right": True}
KINDS = {
    "plan": st.text(),
    "cost": st.integers(-MOST_INTEGER, MOST_INTEGER),
    "score": st.floats(allow_nan=False) | st.integers(-(10**15), 10**15),
    "right": st.booleans(),
}
ROWS = st.lists(
    st.fixed_dictionaries(
        {"item": st.just("a"), **{name: st.none() | kind for name, kind in KINDS.items()}}
    ),
    min_size=1,
    max_size=5,
)


@given(rows=ROWS)
def test_rows_come_back_as_they_went_in(rows: list[dict[str, Any]]) -> None:
    checked = [FORM.checked({"item": "a"}, row) for row in rows]
    assert checked == rows
    assert list(decode(encode(checked, FORM))) == rows


@given(rows=ROWS)
def test_equal_rows_give_equal_bytes(rows: list[dict[str, Any]]) -> None:
    assert encode(rows, FORM) == encode([dict(row) for row in rows], FORM)


def test_columns_come_in_their_order_and_numbers_as_numbers() -> None:
    row = FORM.checked({"item": "a"}, dict(reversed({**ROW, "score": 1}.items())))
    assert list(row) == list(FORM.columns)
    assert type(row["score"]) is float


def test_what_utf_8_cannot_hold_becomes_a_question_mark() -> None:
    row = FORM.checked({"item": "a"}, {**ROW, "plan": "walk \ud800"})
    assert row["plan"] == "walk ?"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"plan": 5}, "row a: expected plan to be of kind text, got '5'"),
        ({"cost": True}, "expected cost to be of kind integer"),
        ({"cost": 2**63}, "expected cost to be of kind integer"),
        ({"cost": 1.5}, "expected cost to be of kind integer"),
        ({"score": True}, "expected score to be of kind number"),
        ({"score": 10**400}, "expected score to be of kind number"),
        ({"score": "high"}, "expected score to be of kind number"),
        ({"right": 1}, "expected right to be of kind flag"),
        ({"item": "b"}, "row a: what was made of it has the key 'b'"),
        ({"more": 1}, "row a: columns missing or not expected: more"),
    ],
)
def test_a_row_of_another_form_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        FORM.checked({"item": "a"}, {**ROW, **changes})


def test_a_column_that_is_missing_is_named() -> None:
    with pytest.raises(DataError, match="not expected: cost"):
        FORM.checked({"item": "a"}, {k: v for k, v in ROW.items() if k != "cost"})


def test_the_key_is_a_column_of_text() -> None:
    with pytest.raises(ConfigError, match="their key 'item' as a column of text"):
        Form({"item": Column.INTEGER})
