from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.benchmarks.grading import GRADES, exact, number, read_number, sequence

HOSTILE = (
    "9" * 50_000,
    "1," * 20_000,
    "\\boxed{" * 20_000,
    "-" * 20_000 + "1",
    "__import__('os').system('true')",
    "1e999999999",
    "٣ \ud800 \x00 NaN Infinity",
)


@given(st.text(), st.text(), st.sampled_from(sorted(GRADES)))
def test_no_text_makes_a_scorer_raise(answer: str, gold: str, name: str) -> None:
    assert GRADES[name](answer, gold) in (True, False, None)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_wrong_and_nothing_more(text: str) -> None:
    assert [GRADES[name](text, "12") for name in sorted(GRADES)] == [False] * 3


@given(st.integers(), st.integers())
def test_numbers_are_equal_exactly_when_they_are(a: int, b: int) -> None:
    assert number(f"The answer is {a}.", str(b)) is (a == b)


@given(st.decimals(-(10**12), 10**12, places=3, allow_nan=False, allow_infinity=False))
def test_a_number_is_read_whatever_its_thousands_and_zeros(value: Decimal) -> None:
    assert read_number(f"{value:,f}00 dollars") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", "7"),
        ("first 3, then 12", "12"),
        ("\\boxed{42} since 41 + 1", "42"),
        ("#### 18\nchecked 2 times", "18"),
        ("-5", "-5"),
        ("−5", "-5"),
        ("8 -5", "-5"),
        ("8-5", "5"),
        (".5", "0.5"),
        ("1,234,567", "1234567"),
        ("1.5e3", "1500"),
        ("no idea", None),
        ("", None),
    ],
)
def test_the_number_of_an_answer(text: str, value: str | None) -> None:
    assert read_number(text) == (None if value is None else Decimal(value))


def test_a_gold_text_without_a_number_cannot_be_scored() -> None:
    assert number("7", "seven") is None


@given(st.lists(st.text("abcXYZ_", min_size=1)))
def test_a_sequence_is_its_tokens(tokens: list[str]) -> None:
    gold = " ".join(tokens)
    assert sequence(f"\n{'  '.join(tokens)}\t", gold)
    assert not sequence(f"{gold} more", gold)
    assert sequence(" ".join(reversed(tokens)), gold) is (tokens[::-1] == tokens)


@given(st.text(), st.text())
def test_exact_forgives_outer_white_space_alone(a: str, b: str) -> None:
    assert exact(f" {a}\n", a)
    assert exact(a, b) is (a.strip() == b.strip())
