from pathlib import Path

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.layouts import read_records, take_in
from r2reasoner.outcomes.steps import (
    Allocation,
    RecordedPlan,
    StepRouter,
    judge_steps,
    labels,
    recorded_plans,
)
from r2reasoner.outcomes.store import OutcomeStore
from shared_rows import write_rows

EASY, HARD = "Write the sum down.", "Prove the integral converges."


def plan(number: int, hard_at: int) -> RecordedPlan:
    """Two steps; right if and only if the hard one goes to the strong model."""
    steps = tuple(HARD if i == hard_at else EASY for i in range(2))
    tried: dict[Allocation, float] = {
        allocation: float(allocation[hard_at])
        for allocation in ((True, False), (False, True), (False, False))
    }
    return RecordedPlan(f"item {number}", f"question {number}", "MATH", steps, tried)


PLANS = [plan(i, i % 2) for i in range(40)]


def test_labels() -> None:
    assert labels(PLANS[0]) == {0: False, 1: True}
    only = RecordedPlan("i", "q", "", ("a", "b"), {(False, True): 0.0})
    assert labels(only) == {}  # nothing was right: no step is to blame
    wide = RecordedPlan("i", "q", "", ("a", "b"), {(False, True): 1.0})
    assert labels(wide) == {0: True}  # of step 2 small was never tried


def test_what_the_words_tell_is_learnt() -> None:
    router = StepRouter()
    router.fit(PLANS[:30])
    first, second = router.predict(PLANS[30:32])
    assert first[0] < 0.5 < first[1]
    assert second[1] < 0.5 < second[0]
    with pytest.raises(DataError, match="no step that needs the strong model"):
        router.fit([RecordedPlan("i", "q", "", ("a",), {(False,): 1.0})])


def test_arms_by_hand() -> None:
    found = judge_steps(PLANS, None, folds=4)
    rows = {(row["arm"], row["at"]): row for row in found["rows"]}
    assert (found["plans"], found["plans_with_a_choice"], found["questions"]) == (40, 40, 40)
    small, strong = rows["all small", None], rows["all strong", None]
    assert (small["success"], small["coverage"], small["strong_share"]) == (0.0, 1.0, 0.0)
    assert (strong["success"], strong["coverage"], strong["strong_share"]) == (None, 0.0, 1.0)
    free = rows["learned, free", 0.5]
    assert (free["success"], free["coverage"], free["strong_share"]) == (1.0, 1.0, 0.5)
    learned, lottery = rows["learned, recorded", 0.0], rows["lottery, recorded", 0.0]
    assert learned["success"] == 1.0
    assert lottery["strong_share"] == pytest.approx(learned["strong_share"], abs=0.02)
    assert lottery["success"] == pytest.approx(0.5, abs=0.05)
    against = next(row for row in found["comparisons"] if row["at"] == 0.0)
    assert against["success_difference_ci95"][0] > 0.4
    assert rows["oracle, recorded", None]["success"] == 1.0


def test_on_other_plans_shared_questions_are_dropped() -> None:
    found = judge_steps(PLANS[:30], PLANS[25:])
    assert (found["plans"], found["dropped_test_plans"]) == (10, 5)
    with pytest.raises(DataError, match="stands in the training store too"):
        judge_steps(PLANS, PLANS[:3])
    with pytest.raises(DataError, match="4 questions are too few for 5 folds"):
        judge_steps(PLANS[:4], None)


def test_plans_come_from_a_store(tmp_path: Path) -> None:
    row = {
        "benchmark": "MATH",
        "question_id": 0,
        "decomposition_id": 1,
        "question": "How many?",
        "steps": ["Count.", "Add 1. and 2."],
        "edges": [],
        "trials": [
            {"allocation": [[2, "llama3-8b"], [1, "gpt-4-turbo"]], "correct": True},
            {"allocation": [[1, "gpt-4-turbo"], [2, "llama3-8b"]], "correct": False},
        ],
    }
    file = write_rows(tmp_path / "rows.jsonl", row)
    with OutcomeStore.open(tmp_path / "store") as store:
        with pytest.raises(DataError, match="no step allocations of dot_step_allocations"):
            recorded_plans(store)
        take_in(read_records(file).records, store)
        (found,) = recorded_plans(store)
    assert (found.question, found.group) == ("How many?", "MATH")
    assert [step.strip() for step in found.steps] == ["Count.", "Add 1. and 2."]
    assert found.tried == {(True, False): 0.5}
