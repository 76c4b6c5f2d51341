from dataclasses import dataclass

import pytest

import toy_pool
from r2reasoner.benchmarks import ARITHMETIC, SCAN
from r2reasoner.errors import ConfigError
from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.splits import check_split, default_split, is_trained_on, make_items
from r2reasoner.pool.cards import Pool

ANY = toy_pool.pool("http://127.0.0.1:1/v1")


@dataclass(frozen=True, kw_only=True)
class TrainedPool(Pool):
    splits: tuple[str, ...] = ()


def trained(*splits: str) -> Pool:
    return TrainedPool(
        name="trained",
        workers=ANY.workers,
        policies=ANY.policies,
        decomposer=ANY.decomposer,
        allocator=ANY.allocator,
        splits=splits,
    )


@pytest.mark.parametrize(("split", "count"), [("length", 3920), ("addprim_jump", 7706)])
def test_scan_has_the_whole_test_side_and_nothing_else(split: str, count: int) -> None:
    items = make_items(SCAN, split, seed=0, count=None)
    assert len(items) == count
    assert not any(is_trained_on(SCAN, split, item) for item in items[::50])
    (walk,) = SCAN.items([{"command": "walk", "actions": scan.interpret("walk")}])
    assert is_trained_on(SCAN, split, walk)


def test_arithmetic_meets_held_out_operations_only_and_another_seed_makes_others() -> None:
    items = make_items(ARITHMETIC, "test", seed=1, count=40)
    assert not any(is_trained_on(ARITHMETIC, "test", item) for item in items)
    assert items == make_items(ARITHMETIC, "test", seed=1, count=40)
    assert not set(items) & set(make_items(ARITHMETIC, "test", seed=2, count=40))
    operands = [len(list(arithmetic.operations(arithmetic.parse(i.query)))) + 1 for i in items]
    assert set(operands) == {3, 4}


def test_operand_counts_and_unseen_values_are_asked_for_in_the_split() -> None:
    for item in make_items(ARITHMETIC, "values:2", seed=0, count=20):
        ((left, _, right),) = arithmetic.operations(arithmetic.parse(item.query))
        assert {left, right} & arithmetic.UNSEEN_VALUES


def test_training_operations_are_told() -> None:
    pairs = [(a, b) for a in range(10, 99) for b in range(10, 99)]
    seen = next((a, b) for a, b in pairs if arithmetic.side((a, "+", b)) == "train")
    (item,) = ARITHMETIC.items([{"expression": f"{seen[0]} + {seen[1]}", "value": sum(seen)}])
    assert is_trained_on(ARITHMETIC, "test", item)
    (other,) = ARITHMETIC.items([{"expression": "seven plus one", "value": 8}])
    assert not is_trained_on(ARITHMETIC, "test", other)


def test_weights_trained_for_another_split_are_refused() -> None:
    pool = trained("length", "arithmetic")
    check_split(SCAN, "length", pool, from_file=False)
    check_split(ARITHMETIC, "my items", pool, from_file=True)
    with pytest.raises(ConfigError, match="trained for arithmetic, length, so what they score on"):
        check_split(SCAN, "addprim_jump", pool, from_file=True)
    with pytest.raises(ConfigError, match="score on arithmetic means nothing"):
        check_split(ARITHMETIC, "test", trained("length"), from_file=False)
    check_split(SCAN, "addprim_jump", ANY, from_file=True)


def test_the_split_of_a_pool_is_the_one_taken_unless_told_otherwise() -> None:
    assert default_split(SCAN, ANY) == "length"
    assert default_split(SCAN, trained("length", "addprim_jump")) == "length"
    assert default_split(SCAN, trained("addprim_jump", "arithmetic")) == "addprim_jump"
    assert default_split(ARITHMETIC, trained("arithmetic")) == "test"


@pytest.mark.parametrize("split", ["tests", "test:", "test:1", "test:3,x", "test:99", ""])
def test_an_unknown_arithmetic_split_is_refused(split: str) -> None:
    with pytest.raises(ConfigError):
        check_split(ARITHMETIC, split, ANY, from_file=False)


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(ConfigError, match="no SCAN split 'lenght'; did you mean 'length'"):
        check_split(SCAN, "lenght", ANY, from_file=False)
    with pytest.raises(ConfigError, match="give its official file with --items"):
        make_items(SCAN, "simple", seed=0, count=None)
    with pytest.raises(ConfigError, match="give its items with --items"):
        make_items(toy_pool.SHOUT, "all", seed=0, count=None)
