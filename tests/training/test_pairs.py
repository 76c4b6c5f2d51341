"""Rows to imitate: what is asked and written, by data, dial and margins."""

import json
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.nano.vocabulary import MOST_SUBTASKS
from r2reasoner.training.pairs import Pair, allocator_pairs, decomposer_pairs

KNOWS = ("weak", "middle", "strong")
LINES = (("walk and run", "walk ; run ; = #1 #2"), ("3 + 4 * 5", "4 * 5 ..."), ("3 + #1", "="))


def decomposed(*lines: tuple[str, str]) -> dict[str, Any]:
    return {"lines": json.dumps(lines)}


def allocated(*pairs: tuple[str, str | None], right: bool = True) -> dict[str, Any]:
    texts, models = zip(*pairs, strict=True)
    return {"right": right, "subtasks": json.dumps(texts), "models": json.dumps(models)}


def test_a_decomposer_imitates_every_line_of_what_was_kept() -> None:
    pairs = decomposer_pairs([decomposed(*LINES), decomposed()], 0, 0, Random(0))
    assert sorted(pairs) == sorted(Pair(*line) for line in LINES)


def test_steps_come_in_versions_with_other_references() -> None:
    pairs = decomposer_pairs([decomposed(LINES[1])], 30, 0, Random(0))
    assert len(pairs) == 31
    changed = [pair for pair in pairs if "#" in pair.asked]
    assert changed
    for asked, written in changed:
        assert written.removesuffix(" ...") in asked
        numbers = {int(word[1:]) for word in asked.split() if word.startswith("#")}
        assert numbers <= set(range(1, MOST_SUBTASKS + 1))


def test_a_plan_in_json_is_nothing_that_a_line_can_say() -> None:
    row = decomposed(("red and blue", '{"subtasks": [], "answer": "#1"}'), LINES[0])
    assert decomposer_pairs([row], 0, 0, Random(0)) == [Pair(*LINES[0])]


@given(st.integers(2, 9), st.integers(0, 2**32))
def test_a_dial_stands_before_the_text_at_a_level_drawn_at_random(dial: int, seed: int) -> None:
    pairs = decomposer_pairs([decomposed(LINES[0])] * 40, 0, dial, Random(seed))
    levels = {pair.asked.partition(" ")[0] for pair in pairs}
    assert levels <= {f"t{level}" for level in range(dial)}
    assert {pair.asked.partition(" ")[2] for pair in pairs} == {LINES[0][0]}
    assert {pair.written for pair in pairs} == {LINES[0][1]}


def test_all_levels_come() -> None:
    pairs = decomposer_pairs([decomposed(LINES[0])] * 100, 0, 3, Random(1))
    assert {pair.asked[:2] for pair in pairs} == {"t0", "t1", "t2"}


def test_an_allocator_imitates_the_models_of_solved_plans_alone() -> None:
    rows = [
        allocated(("walk", "weak"), ("# 1 # 1", None), ("run", "strong")),
        allocated(("jump", "strong"), right=False),
    ]
    pairs = allocator_pairs(rows, KNOWS, 0, (), Random(0))
    assert sorted(pairs) == [Pair("run", "m3"), Pair("walk", "m1")]


def test_margins_name_stronger_models_where_quality_counts() -> None:
    rows = [allocated(("walk", "weak"), ("run", "middle"))]
    pairs = allocator_pairs(rows, KNOWS, 3, (2, 1, 0), Random(0))
    assert sorted(pairs) == [
        Pair("t0 run", "m3"),
        Pair("t0 walk", "m3"),
        Pair("t1 run", "m3"),
        Pair("t1 walk", "m2"),
        Pair("t2 run", "m2"),
        Pair("t2 walk", "m1"),
    ]


def test_without_margins_levels_say_nothing_of_the_model() -> None:
    rows = [allocated(("walk", "weak"))] * 60
    pairs = allocator_pairs(rows, KNOWS, 3, (), Random(2))
    assert {pair.written for pair in pairs} == {"m1"}
    assert {pair.asked for pair in pairs} == {"t0 walk", "t1 walk", "t2 walk"}


def test_a_seed_is_an_order() -> None:
    rows = [decomposed(*LINES)] * 5
    made = [decomposer_pairs(rows, 2, 5, Random(seed)) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_nothing_comes_of_nothing() -> None:
    assert decomposer_pairs([], 2, 5, Random(0)) == []
    assert allocator_pairs([allocated(("a", "weak"), right=False)], KNOWS, 5, (), Random(0)) == []
