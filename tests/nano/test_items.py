"""Items that plans are searched on and the pool is measured on: unseen by workers, no test item."""

import pytest

from r2reasoner.errors import ConfigError
from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.items import (
    HELD_VERBS,
    SHIFTED_ACTIONS,
    calibration_items,
    search_items,
    shifted,
    weight_set,
)
from r2reasoner.types import Task

LENGTH, JUMP = weight_set("length"), weight_set("addprim_jump")


def sides_of(items: list[Task]) -> set[arithmetic.Side]:
    trees = [arithmetic.parse(i.query) for i in items if any(c.isdigit() for c in i.query)]
    return {arithmetic.side(o) for tree in trees for o in arithmetic.operations(tree)}


def commands_of(items: list[Task]) -> set[str]:
    return {i.query for i in items if not any(c.isdigit() for c in i.query)}


def test_gold_answers_are_right() -> None:
    for item in (*search_items(LENGTH, 40, 40, 0), *calibration_items(LENGTH, 40, 40, 0)):
        if any(c.isdigit() for c in item.query):
            assert str(arithmetic.value_of(arithmetic.parse(item.query))) == item.gold
        else:
            assert scan.interpret(item.query) == item.gold


@pytest.mark.parametrize("weights", [LENGTH, JUMP], ids=lambda w: w.split)
def test_the_shift_divides_the_training_side_and_touches_no_test_command(weights) -> None:  # type: ignore[no-untyped-def]
    shift = shifted(weights, seed=0)
    kept, unseen = set(shift.mix.commands), set(shift.unseen)
    test = set(scan.split(weights.split)[1])
    assert kept
    assert unseen
    assert not kept & unseen
    assert not (kept | unseen) & test


def test_the_length_shift_keeps_short_commands() -> None:
    shift = shifted(LENGTH, seed=0)
    assert all(len(scan.interpret(c).split()) <= SHIFTED_ACTIONS for c in shift.mix.commands)
    assert set(shift.mix.commands) | set(shift.unseen) == set(LENGTH.training)
    assert shift.mix.most_operands == 2
    assert any(len(scan.interpret(c).split()) <= SHIFTED_ACTIONS for c in shift.unseen)


def test_the_jump_shift_knows_two_verbs_alone() -> None:
    shift = shifted(JUMP, seed=0)
    for verb in HELD_VERBS:
        assert [c for c in shift.mix.commands if verb in c.split()] == [verb]
    assert all(set(c.split()) & set(HELD_VERBS) for c in shift.unseen)


@pytest.mark.parametrize("weights", [LENGTH, JUMP], ids=lambda w: w.split)
def test_search_runs_on_what_its_worker_has_not_seen(weights) -> None:  # type: ignore[no-untyped-def]
    items = search_items(weights, 60, 60, seed=0)
    assert commands_of(items) <= set(shifted(weights, seed=0).unseen)
    assert sides_of(items) <= {"train"}
    assert len({i.query for i in items}) >= len(items) - 2


def test_calibration_meets_operations_that_no_worker_has_seen_and_no_test_one() -> None:
    items = calibration_items(LENGTH, 30, 60, seed=0)
    assert sides_of(items) == {"dev"}
    assert commands_of(items) <= set(LENGTH.training)
    assert len(items) == 90


def test_items_are_the_same_for_a_seed() -> None:
    assert search_items(LENGTH, 20, 20, 3) == search_items(LENGTH, 20, 20, 3)
    assert search_items(LENGTH, 20, 20, 3) != search_items(LENGTH, 20, 20, 4)
    assert calibration_items(JUMP, 20, 20, 3) == calibration_items(JUMP, 20, 20, 3)


def test_a_random_split_needs_its_training_commands() -> None:
    with pytest.raises(ConfigError, match="training file"):
        weight_set("simple")
    own = weight_set("simple", ["walk", "run left"])
    assert own.training == ("walk", "run left")
    assert not own.arithmetic
