"""Which part of a text is its answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.benchmarks.answers import final_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{42}.", "42"),
        (r"\boxed{1} or rather \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{5} and then \boxed{cut", "5"),
        (r"\fbox{7}", "7"),
        ("The final answer is 144.", "144"),
        ("The answer is: $x+1$.", "x+1"),
        ("**Answer:** 12", "12"),
        ("Final answer:\n\n$\\frac{3}{4}$", r"\frac{3}{4}"),
        ("Final answer:\n\\[\n7\n\\]", "7"),
        ("The answer is 3. No: the answer is 4.", "4"),
        ("#### 18", "18"),
        ("We add.\n\n2 + 2 = 4\n", "2 + 2 = 4"),
        (r"Hence \(n = 7\).", "n = 7"),
        ("Thus the value of $b$ is $2$ when $a=1$.", "2"),
        ("There are 1006 subsets of {1, 2} that do.", "1006"),
        ("The solutions to \\(x=y\\) are \\((1, 1)\\) and \\((3, 2)\\).", "(1, 1)  and  (3, 2)"),
        ("The number is given by\n\\[\n\\frac{n!}{2}\n\\]", r"\frac{n!}{2}"),
        ("The most is two.", "two"),
        ("12", "12"),
        ("", ""),
        (" \n\n ", ""),
        ("The answer is", "The answer is"),
        ("Yes, the answer is 1, 4 and 9", "1, 4 and 9"),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@given(st.text(st.sampled_from("\\boxed{}$ answer is:\n.*#=([)]7x")))
def test_any_text_has_one(text: str) -> None:
    assert final_answer(text) == final_answer(text).strip()


@pytest.mark.parametrize(
    "piece", [r"\boxed{", "{", "}", "$", "the answer is ", r"\(", "#### ", "a ", "\n", "answer "]
)
def test_long_texts_are_read_to_their_end(piece: str) -> None:
    assert final_answer(piece * 50_000 + "\nThe answer is 5").endswith("5")
