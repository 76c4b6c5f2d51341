"""What runs say about single answers."""

from typing import NamedTuple

from r2reasoner.outcomes.records import Outcome, content_id
from r2reasoner.training.verdicts import verdicts
from r2reasoner.types import Plan, Step, Subtask

PLAN = Plan((Subtask("red"), Subtask("blue"), Subtask("#1 twice")), "#3 #2")
WRITTEN = "red ; blue ; #1 twice ; = #3 #2"


class Ran(NamedTuple):
    right: bool
    steps: tuple[Step, ...]
    keys: dict[int, str]


def ran(right: bool, *answers: tuple[str, str], model: str = "m") -> Ran:
    """Return a run with (asked, answered) subtask by subtask."""
    steps = [Step(n, model, asked, said, None, 0, 0) for n, (asked, said) in enumerate(answers, 1)]
    return Ran(right, tuple(steps), {n: f"{asked}>{said}" for n, (asked, said) in _all(answers)})


def _all(answers: tuple[tuple[str, str], ...]) -> list[tuple[int, tuple[str, str]]]:
    return list(enumerate(answers, 1))


def scores(*runs: Ran, plan: Plan = PLAN) -> dict[tuple[int | None, str], float | None]:
    return {(o.subtask, o.key): o.score for o in verdicts("q", plan, WRITTEN, runs, "test")}


RIGHT = ran(True, ("red", "RED"), ("blue", "BLUE"), ("RED twice", "RED RED"))


def test_all_answers_of_a_right_run_were_right() -> None:
    assert set(scores(RIGHT).values()) == {1.0}
    assert len(scores(RIGHT)) == 3


def test_outcomes_name_item_plan_and_who_judged() -> None:
    first = next(verdicts("the query", PLAN, WRITTEN, [RIGHT], "test"))
    expected = Outcome(
        content_id("the query"), content_id(WRITTEN), 1, "m", "red>RED", 1.0, "test: runs"
    )
    assert first == expected


def test_the_one_answer_that_made_a_run_wrong_was_wrong() -> None:
    wrong = ran(False, ("red", "RAD"), ("blue", "BLUE"), ("RAD twice", "RAD RAD"))
    found = scores(RIGHT, wrong)
    assert found[1, "red>RAD"] == 0.0
    assert found[2, "blue>BLUE"] == 1.0
    assert found[3, "RAD twice>RAD RAD"] is None, "what it was asked was wrong already"


def test_of_two_that_differ_neither_is_blamed() -> None:
    wrong = ran(False, ("red", "RAD"), ("blue", "BLAU"), ("RAD twice", "RAD RAD"))
    found = scores(RIGHT, wrong)
    assert found[1, "red>RAD"] is None
    assert found[2, "blue>BLAU"] is None


def test_without_a_right_run_nobody_is_judged() -> None:
    wrong = ran(False, ("red", "RAD"), ("blue", "BLUE"), ("RAD twice", "RAD RAD"))
    assert set(scores(wrong).values()) == {None}


def test_an_answer_that_is_the_whole_one_is_judged_as_that_too() -> None:
    whole = Plan((Subtask("red"),), "#1")
    for right in (True, False):
        found = scores(ran(right, ("red", "RED")), plan=whole)
        assert found[None, "red>RED"] == float(right)
    assert not any(subtask is None for subtask, _ in scores(RIGHT))


def test_joins_and_answers_without_a_key_are_left_out() -> None:
    steps = (
        Step(1, "m", "red", "RED", None, 0, 0),
        Step(2, None, "RED RED", "RED RED", None, 0, 0),
        Step(3, "m", "blue", None, "failed", 0, 0),
    )
    assert scores(Ran(True, steps, {1: "key"})) == {(1, "key"): 1.0}
