"""What workers may see: nothing of any test, and only right answers."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2reasoner.client.text import split_words
from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.data import Mix, Row, policy_rows, rows
from r2reasoner.nano.items import weight_set
from r2reasoner.nano.vocabulary import MOST_SUBTASKS, vocabulary

COUNT = 2500
Sides = set[arithmetic.Side]


@pytest.fixture(scope="module", params=["length", "addprim_jump"])
def split(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def drawn(split: str) -> list[Row]:
    return list(rows(weight_set(split).mix, COUNT, seed=0))


def is_expression(text: str) -> bool:
    return any(c.isdigit() for c in text)


def sides_of(text: str) -> Sides:
    return {arithmetic.side(o) for o in arithmetic.operations(arithmetic.parse(text))}


def test_no_row_holds_a_test_command(split: str, drawn: list[Row]) -> None:
    commands = {row.question for row in drawn if not is_expression(row.question)}
    training, test = map(set, scan.split(split))
    assert commands
    assert commands <= training
    assert not commands & test


def test_no_row_meets_an_operation_that_is_held_out_or_an_unseen_value(drawn: list[Row]) -> None:
    expressions = [row.question for row in drawn if is_expression(row.question)]
    sides: Sides = set().union(*map(sides_of, expressions))
    assert sides <= {"train"}
    for text in expressions:
        numbers = {int(t) for t in text.split() if t.isdigit()}
        assert not numbers & arithmetic.UNSEEN_VALUES


def test_every_row_is_right(drawn: list[Row]) -> None:
    for question, answer in drawn:
        if is_expression(question):
            assert str(arithmetic.value_of(arithmetic.parse(question))) == answer
        else:
            assert scan.interpret(question) == answer


def test_every_row_has_words(drawn: list[Row]) -> None:
    known = frozenset(vocabulary())
    for question, answer in drawn:
        assert split_words(question, known)
        assert split_words(answer, known)


def test_the_default_set_has_single_operations_and_whole_expressions_of_up_to_4() -> None:
    mixed = list(rows(weight_set("length").mix, COUNT, seed=1))
    asked = [row.question for row in mixed]
    met = [len(list(arithmetic.operations(arithmetic.parse(q)))) for q in asked if is_expression(q)]
    assert set(met) == {1, 2, 3}
    assert 0.6 < met.count(1) / len(met) < 0.73
    assert 0.09 < 1 - len(met) / len(asked) < 0.15
    assert any(q.startswith("( ") for q in asked)


def test_only_the_default_set_has_arithmetic() -> None:
    jump = list(rows(weight_set("addprim_jump").mix, 500, seed=0))
    assert not any(is_expression(row.question) for row in jump)


def test_rows_are_the_same_for_a_seed() -> None:
    mix = Mix(["walk", "run left"])
    first = list(rows(mix, 200, seed=5))
    assert first == list(rows(mix, 200, seed=5))
    assert first != list(rows(mix, 200, seed=6))
    assert list(islice(rows(mix, 10**9, seed=5), 200)) == first


def test_a_mix_keeps_to_its_commands_and_operands() -> None:
    drawn = list(rows(Mix(["walk", "run left twice"], most_operands=2, scan_share=0.5), 400, 0))
    commands = {row.question for row in drawn if not is_expression(row.question)}
    assert commands == {"walk", "run left twice"}
    expressions = [row.question for row in drawn if is_expression(row.question)]
    assert all(len(list(arithmetic.operations(arithmetic.parse(q)))) == 1 for q in expressions)


def test_a_whole_plan_keeps_its_references() -> None:
    line = ("walk left twice", "walk left ; = #1 #1")
    assert list(policy_rows([line], 3, seed=0)) == [Row(*line)] * 4


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_steps_get_other_references_the_same_in_question_and_answer(seed: int) -> None:
    line = ("#1 * ( #2 + 7 )", "( #2 + 7 ) ...")
    first, *made = policy_rows([line], 4, seed)
    assert first == Row(*line)
    assert len(made) == 4
    for asked, written in made:
        words = asked.split()
        left, inner = words[0], words[3:6]
        assert written == f"( {' '.join(inner)} ) ..."
        assert left != inner[0]
        references = [w for w in (left, inner[0], inner[2]) if w.startswith("#")]
        assert {left, inner[0]} <= set(references)
        assert all(1 <= int(r[1:]) <= MOST_SUBTASKS for r in references)
        assert len(set(references)) == len(references)
    numbers = {row.question.split()[5] for row in policy_rows([line], 40, seed)}
    assert "7" in numbers
    assert any(number.startswith("#") for number in numbers)
