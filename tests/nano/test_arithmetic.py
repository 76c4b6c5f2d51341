import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.nano import arithmetic
from r2reasoner.nano.arithmetic import Node

ALL_SIDES: frozenset[arithmetic.Side] = frozenset({"train", "dev", "test", "values"})
SEEDS = st.integers(0, 10**6)
SIDES = st.sampled_from([frozenset({"train"}), frozenset({"dev"}), frozenset({"test"}), ALL_SIDES])


def drawn(operands: int, sides: frozenset[arithmetic.Side], seed: int) -> Node:
    return arithmetic.sample(operands, sides, random.Random(seed))


def operands_of(part: Node | int) -> list[int]:
    if isinstance(part, int):
        return [part]
    return operands_of(part.left) + operands_of(part.right)


def test_sides_are_the_same_on_every_machine() -> None:
    sides = [arithmetic.side((19, "+", b)) for b in range(20, 30)]
    assert [side for side in sides if side != "train"] == ["values", "test", "test", "values"]
    assert sorted(arithmetic.UNSEEN_VALUES) == [13, 21, 29, 32, 35, 54, 86, 89, 90, 98]


def test_a_fifth_is_held_out_of_everything_and_a_tenth_of_workers_only() -> None:
    operations = [(a, sign, b) for a, b in product(range(1, 1000, 11), repeat=2) for sign in "+-*"]
    operations = [o for o in operations if not {o[0], o[2]} & arithmetic.UNSEEN_VALUES]
    shares = {
        side: sum(arithmetic.side(o) == side for o in operations) / len(operations)
        for side in ("train", "dev", "test")
    }
    assert shares == pytest.approx({"train": 0.7, "dev": 0.1, "test": 0.2}, abs=0.02)


@given(
    st.integers(0, 999), st.sampled_from("+-*"), st.sampled_from(sorted(arithmetic.UNSEEN_VALUES))
)
def test_an_unseen_value_is_on_no_other_side(a: int, sign: str, unseen: int) -> None:
    assert arithmetic.side((a, sign, unseen)) == "values"
    assert arithmetic.side((unseen, sign, a)) == "values"


@given(st.integers(1, 5), SIDES, SEEDS)
def test_a_sample_keeps_every_rule(
    joins: int, sides: frozenset[arithmetic.Side], seed: int
) -> None:
    node = drawn(joins + 1 if joins < 4 else 2, sides, seed)
    met = list(arithmetic.operations(node))
    assert all(arithmetic.side(o) in sides for o in met)
    assert not any(arithmetic.is_large_product(o) for o in met)
    assert all(1 <= n <= 99 for n in operands_of(node))
    for a, sign, b in met:
        assert 0 <= arithmetic.OPERATORS[sign](a, b) <= 999
    assert len(met) == len(operands_of(node)) - 1


@given(st.integers(2, 6), SEEDS)
def test_what_is_written_reads_the_same_and_means_the_same(operands: int, seed: int) -> None:
    node = drawn(operands, ALL_SIDES, seed)
    text = arithmetic.render(node)
    assert arithmetic.parse(text) == node
    assert eval(text, {"__builtins__": {}}) == node.value  # Python's own precedence


@given(st.integers(2, 6), SEEDS)
def test_no_bracket_is_superfluous(operands: int, seed: int) -> None:
    text = arithmetic.render(drawn(operands, ALL_SIDES, seed))
    for at in (i for i, c in enumerate(text) if c == "("):
        depth = 0
        for end in range(at, len(text)):
            depth += (text[end] == "(") - (text[end] == ")")
            if depth == 0:
                break
        bare = f"{text[:at]}{text[at + 2 : end - 1]}{text[end + 1 :]}"
        assert arithmetic.parse(bare) != arithmetic.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "+",
            "1 +",
            "walk left",
            "1 / 2",
            "2 ** 3",
            "-1",
            "1.5",
            "True",
            "a + 1",
            "1 if 1 else 2",
        ),
        *("(1", "1 + 1\n2", "f'{1}'", "__import__('os')", "1_0 + #1", "9" * 5000),
        *("1" + " + 1" * 5000, "(" * 500 + "1" + ")" * 500, "\0"),
    ],
)
def test_what_is_no_expression_of_the_family_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no arithmetic expression|expected whole numbers"):
        arithmetic.parse(text)


def test_operations_are_those_met_while_evaluating() -> None:
    tree = arithmetic.parse("2 + 3 * ( 10 - 4 )")
    assert list(arithmetic.operations(tree)) == [(10, "-", 4), (3, "*", 6), (2, "+", 18)]
    assert arithmetic.value_of(tree) == 20


def test_kinds_are_named_by_digits_and_sign() -> None:
    assert arithmetic.kind((123, "-", 7)) == "3x1 -"
    assert arithmetic.is_large_product((10, "*", 10))
    assert not arithmetic.is_large_product((99, "*", 9))
    assert not arithmetic.is_large_product((99, "+", 99))


@pytest.mark.parametrize(("operands", "count"), [([2], 50), ([3, 4], 50), ([5], 5)])
def test_every_operation_of_a_test_item_is_held_out(operands: list[int], count: int) -> None:
    items = arithmetic.held_out_items(operands, count, seed=3)
    for number, item in enumerate(items):
        tree = arithmetic.parse(str(item["expression"]))
        assert {arithmetic.side(o) for o in arithmetic.operations(tree)} == {"test"}
        assert arithmetic.value_of(tree) == item["value"]
        assert len(operands_of(tree)) == operands[number % len(operands)]
    assert len({item["expression"] for item in items}) == count


def test_items_of_unseen_values_meet_one_and_no_training_operation() -> None:
    for item in arithmetic.held_out_items([2, 3], 40, seed=0, unseen_values=True):
        met = list(arithmetic.operations(arithmetic.parse(str(item["expression"]))))
        sides = {arithmetic.side(o) for o in met}
        assert "values" in sides
        assert sides <= {"values", "test"}


def test_a_seed_is_a_set_of_items() -> None:
    first = arithmetic.held_out_items([3, 4], 50, seed=1)
    assert first == arithmetic.held_out_items([3, 4], 50, seed=1)
    other = arithmetic.held_out_items([3, 4], 50, seed=2)
    assert not {i["expression"] for i in first} & {i["expression"] for i in other}
