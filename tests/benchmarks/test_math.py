"""MATH: right answers in many forms, near misses, words and units; every shared row."""

import json
from pathlib import Path

import pytest

from r2reasoner.benchmarks.math import MATH, grade, is_words, read
from r2reasoner.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "math"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"So \boxed{42}.", "42"),
        ("The answer is $\\dfrac{1}{2}$.", r"\frac{1}{2}"),
        ("The answer is 0.5", r"\frac{1}{2}"),
        (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}"),
        ("It was Evelyn.\n\nThe answer is Evelyn.", r"\text{Evelyn}"),
        (r"\boxed{(C)}", r"\text{(C)}"),
        (r"\boxed{C}", r"\text{(C)}"),
        (r"\boxed{even}", r"\text{even}"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{90}", r"90^\circ"),
        (r"\boxed{12\text{ inches}}", "12"),
        ("The answer is 12 inches.", r"12\text{ inches}"),
        (r"\boxed{\$36}", "36"),
        (r"\boxed{1{,}234}", "1,234"),
        (r"\boxed{10\%}", "10"),
        (r"\boxed{11\sqrt2}", r"11\sqrt{2}"),
        ("1152 cups", "1152"),
        ("The resulting new pressure is 8.00 kPa.", "8"),
    ],
)
def test_right(answer: str, gold: str) -> None:
    assert grade(answer, gold) is True


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\boxed{43}", "42"),
        (r"\boxed{42} is wrong, so \boxed{41}", "42"),
        ("", "42"),
        ("I cannot solve it, 42 seems wrong.\nNo idea", r"\text{Evelyn}"),
        (r"\boxed{\text{Evelyn and Bob}}", r"\text{Evelyn}"),
        (r"\boxed{-\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{0.33}", r"\frac{1}{3}"),
        (r"\boxed{(B)}", r"\text{(C)}"),
        ("7,200 cartons per day", "400"),
        ("3 or 4", "3"),
    ],
)
def test_wrong(answer: str, gold: str) -> None:
    assert grade(answer, gold) is False


def test_without_gold_nothing_is_judged() -> None:
    assert grade("1", " ") is None


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        (r"\text{Evelyn}", True),
        ("Navin", True),
        (r"\text{(C)}", True),
        ("x", False),
        (r"\frac{1}{2}", False),
        ("p - q", False),
        ("3", False),
        (r"6 - 5i", False),
        ("(a)" * 9, False),
    ],
)
def test_words(gold: str, words: bool) -> None:
    assert is_words(gold) is words


def test_the_last_box_of_a_solution_is_the_answer() -> None:
    for field in ("solution", "answer"):
        assert read({"problem": "p", field: r"\boxed{1}, so \boxed{2}."}).gold == "2"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"answer": "1"}, "no 'problem'"),
        ({"problem": "p"}, "no 'solution'"),
        ({"problem": "p", "solution": "It is 3."}, "expected a .*boxed"),
        ({"problem": "p", "answer": ""}, "answer is empty"),
        ({"problem": "p", "answer": None}, "answer: expected a text"),
    ],
)
def test_rows_that_are_no_problems(row: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        MATH.items([row])


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}")
class TestShared:
    @pytest.mark.parametrize(("split", "rows"), [("math500", 354), ("other", 663)])
    def test_every_gold_answer_is_right_and_its_near_misses_are_not(
        self, split: str, rows: int
    ) -> None:
        file = SHARED / MATH.files[split]
        assert len(file.read_text(encoding="utf-8").splitlines()) == rows
        items = MATH.load(SHARED, split)
        assert max(len(item.gold) for item in items) < 200
        for item in items:
            for answer in (f"So we get \\boxed{{{item.gold}}}.", f"The answer is ${item.gold}$."):
                assert grade(answer, item.gold) is True, item
            assert grade("\\boxed{}", item.gold) is False, item
            if item.gold.isdigit():
                assert grade(f"\\boxed{{{int(item.gold) + 1}}}", item.gold) is False, item

    def test_a_solution_ends_in_its_answer(self) -> None:
        lines = (SHARED / MATH.files["math500"]).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        missed = [row["id"] for row in rows if grade(row["solution"], row["answer"]) is not True]
        assert missed == []
