"""The controls: labels and features that teach nothing, alarms, and no test item in training."""

import math
from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.benchmarks import ARITHMETIC, SCAN, Benchmark
from r2reasoner.errors import DataError
from r2reasoner.nano.data import rows as training_rows
from r2reasoner.nano.items import calibration_items, search_items, shifted, weight_set
from r2reasoner.nano.splits import make_items
from r2reasoner.training.controls import (
    check_disjoint,
    one_model_alarm,
    overlap,
    random_features,
    shuffled,
    unparseable_plans,
)
from r2reasoner.types import Task

WORDS = st.lists(st.sampled_from(["walk", "run", "3", "+", "4", "left"]), max_size=6).map(" ".join)
ROWS = st.lists(st.tuples(WORDS, st.sampled_from(["m1", "m2", "m3"])), max_size=30)
SEEDS = st.integers(0, 2**32)


@given(ROWS, SEEDS)
def test_shuffled_labels_are_the_same_labels_elsewhere(
    rows: list[tuple[str, str]], seed: int
) -> None:
    before = list(rows)
    control = shuffled(rows, seed)
    assert [asked for asked, _ in control] == [asked for asked, _ in rows]
    assert Counter(label for _, label in control) == Counter(label for _, label in rows)
    assert control == shuffled(rows, seed)
    assert rows == before


def test_shuffled_labels_say_nothing_of_the_text() -> None:
    rows = [(f"{n % 2}", f"m{n % 2}") for n in range(4000)]
    control = shuffled(rows, 0)
    assert control != shuffled(rows, 1)
    right = sum(label == f"m{asked}" for asked, label in control)
    assert 0.45 < right / len(rows) < 0.55


@given(ROWS, SEEDS)
def test_random_features_have_the_length_and_the_words_of_the_texts(
    rows: list[tuple[str, str]], seed: int
) -> None:
    control = random_features(rows, seed)
    words = {word for asked, _ in rows for word in asked.split()}
    assert [label for _, label in control] == [label for _, label in rows]
    for (asked, _), (drawn, _) in zip(rows, control, strict=True):
        assert len(drawn.split()) == len(asked.split())
        assert set(drawn.split()) <= words
    assert control == random_features(rows, seed)


def test_random_features_say_nothing_of_the_label() -> None:
    rows = [("walk" if n % 2 else "run", f"m{n % 2}") for n in range(4000)]
    control = random_features(rows, 0)
    assert control != random_features(rows, 1)
    right = sum((asked == "walk") == (label == "m1") for asked, label in control)
    assert 0.45 < right / len(rows) < 0.55


def test_one_model_for_nearly_all_raises_the_alarm() -> None:
    said = one_model_alarm({"small": 0.04, "large": 0.96})
    assert said is not None
    assert said.startswith("large takes 96.0% of the subtasks (alarm above 90%)")
    assert one_model_alarm({"small": 0.1, "large": 0.9}) is None
    assert one_model_alarm({"small": 40, "large": 960}) == said
    assert one_model_alarm({"small": 0.4, "large": 0.6}, limit=0.5) is not None
    assert one_model_alarm({"alone": 3}) is not None
    assert one_model_alarm({}) is None
    assert one_model_alarm({"small": 0, "large": 0}) is None


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_shares_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="expected shares"):
        one_model_alarm({"small": bad, "large": 0.5})


@given(st.lists(WORDS, unique=True), st.lists(WORDS, unique=True))
def test_overlap_is_what_stands_on_both_sides(train: list[str], test: list[str]) -> None:
    assert overlap(train, test) == [query for query in test if query in train]
    disjoint = [query for query in test if query not in train]
    check_disjoint(train, disjoint)
    check_disjoint(train, [])


def test_the_same_item_is_seen_through_case_spacing_and_unicode_form() -> None:
    train = [Task("Who  wrote\nJane Éyre?", "x"), Task("３ + 4", "7")]
    test = ["who wrote jane éyre?", "who wrote jane e\u0301yre?", "3 + 4", "3 + 5"]
    assert overlap(train, test) == test[:3]


def test_shared_items_are_named() -> None:
    test = [Task(f"{n} + 1" + " " * n, str(n + 1)) for n in range(6)]
    with pytest.raises(DataError) as caught:
        check_disjoint([f"{n} + 1" for n in range(1, 6)], test, "search")
    said = str(caught.value)
    assert said.startswith("5 test items stand in the search data too: '1 + 1 ', '2 + 1  ', ")
    assert "and 2 more; split by content" in said
    with pytest.raises(DataError, match=r"1 test items .* too: 'x{59}…';"):
        check_disjoint(["x" * 500], ["x" * 500])


@cache
def nano_training(split: str) -> tuple[str, ...]:
    """Return every question of the nano data of a weight set: workers', search's, calibration's."""
    weights = weight_set(split)
    asked = [*weights.training]
    for mix in (weights.mix, shifted(weights, 0).mix):
        asked += [row.question for row in training_rows(mix, 4000, seed=0)]
    for seed in range(2):
        asked += [item.query for item in search_items(weights, 2000, 300, seed)]
        asked += [item.query for item in calibration_items(weights, 1000, 60, seed)]
    return tuple(asked)


@pytest.mark.parametrize(
    ("trained", "benchmark", "split"),
    [
        ("length", SCAN, "length"),
        ("length", ARITHMETIC, "test"),
        ("length", ARITHMETIC, "test:2"),
        ("length", ARITHMETIC, "values"),
        ("addprim_jump", SCAN, "addprim_jump"),
    ],
)
def test_no_item_stands_in_nano_training_data_and_among_its_test_items(
    trained: str, benchmark: Benchmark, split: str
) -> None:
    test = make_items(benchmark, split, 0, 1000 if benchmark is ARITHMETIC else None)
    assert len(test) >= 1000
    training = nano_training(trained)
    check_disjoint(training, test, f"nano {trained}")
    # The check can fail: what stands on both sides is found.
    leaked = test[len(test) // 2]
    assert overlap([*training, f" {leaked.query} "], test) == [leaked.query]


def test_unparseable_plans_are_counted_by_stage_and_fault() -> None:
    rows = [
        {"stage": "sft", "step": 1, "plans": 50, "unparseable": 2, "faults": {"cycle": 2}},
        {"stage": "sft", "step": 2, "plans": 50},
        {"stage": "grpo", "step": 1, "plans": 10, "unparseable": 3, "faults": None},
        {"stage": "grpo", "step": 2, "reward": 0.5},
        {"stage": "eval", "step": 0, "plans": 0},
    ]
    sft, grpo, nothing = unparseable_plans(rows)
    assert (sft.stage, sft.plans, sft.unparseable, sft.share) == ("sft", 100, 2, 0.02)
    assert sft.faults == {"cycle": 2}
    assert (grpo.unparseable, grpo.share) == (3, 0.3)
    assert nothing.share is None
