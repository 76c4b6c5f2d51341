"""CHAMP: the forms of gold answers, and what settles each."""

from pathlib import Path

import pytest

from r2reasoner.benchmarks.champ import CHAMP, FACTORS, grade, read
from r2reasoner.benchmarks.notation import latex
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.sandbox.bubblewrap import Bubblewrap

SHARED = Path(__file__).parents[3] / "shared" / "data" / "champ"
VALUES = "x=0, y=2 and x=9, y=11"
PAIRS = "(x=8, y=2), (x=2, y=8)"
FACTORED = FACTORS + "(x^2+x+1)(x^2-x+1)(x^4-x^2+1)"

WITHOUT_SERVICE = [
    ("Yes", "Yes, it is.", True),
    ("Yes", "The answer is yes.", True),
    ("No", "No", True),
    ("No", r"\boxed{\text{No}}", True),
    ("No", "Yes", False),
    ("Yes", "It is not possible.", False),
    ("No", "It cannot be prime.", True),
    ("Yes", "It depends.", None),
    ("Yes", "", False),
    ("Yes, and the sequence is 1/2^3, 1/2^6, ...", "No", False),
    ("Yes, and the sequence is 1/2^3, 1/2^6, ...", "Yes", None),
    ("No integer solutions", "There are no integer solutions.", True),
    ("No integer solutions", "None", True),
    ("No integer solutions", "The equation has no solutions in integers", True),
    ("No integer solutions", r"\boxed{\emptyset}", True),
    ("No integer solutions", "x=1, y=2", False),
    ("No integer solutions", "see above", None),
    ("Such a sequence is not possible", "No such sequence exists.", True),
    ("Infinitely many solutions", "infinitely many", True),
    ("Infinitely many solutions", "4", False),
    ("Infinitely many solutions", "many", None),
    ("At least 1 number", "1", True),
    ("At least 1 number", "At least one number", True),
    ("At least 1 number", "2", False),
    ("2 inequalities", "2", True),
    ("2 inequalities", "Two.", True),
    ("2 inequalities", "The most that can be true at once is two.", True),
    ("2 inequalities", "3", False),
    ("0", r"The smallest value is 0, achieved when \(a = b\).", True),
    ("11", r"The smallest value of \(|36^m - 5^n|\) for \(m > 0\) is 12.", False),
    ("No integer solutions", r"There are no integer solutions \((x, y)\) to \(x^2 = 17\).", True),
    ("239", "I get 239 or so, if the list of them is right", None),
    ("At most 0 integer-valued zeros (i.e., no integer zeros)", "0", True),
    ("Exactly one sequence", "1", True),
    ("100 (i.e., all values)", "100", True),
    ("0 is the only possible value", "0", True),
    ("0 is the only possible value", "0 and 1", False),
    ("The limit exists and is equal to 2/3", r"\frac{2}{3}", True),
    ("The function is periodic, with a period of 8", "8", True),
    ("1 and 19", "19, 1", True),
    ("1 and 19", "1", False),
    ("1, 4 and 9", r"\{1, 4, 9\}", True),
    ("1, 4 and 9", "1, 4, 8", False),
    ("C(10, 5), or equivalently 252", "252", True),
    (VALUES, "(0, 2) and (9, 11)", True),
    (VALUES, "x=9, y=11; x=0, y=2", True),
    (VALUES, "(x, y) = (0, 2), (9, 11)", True),
    (VALUES, "x=0, y=2", False),
    (PAIRS, "(8, 2), (2, 8)", True),
    (PAIRS, "(8, 2)", False),
    ("a=3, b=-4", "a = 3, b = -4", True),
    ("a=3, b=-4", "a = -4, b = 3", False),
    ("x=±1", r"x = \pm 1", True),
    ("x=±1", "x = 1, -1", True),
    ("x=±1", "x = 1", False),
    ("Always greater than 20", "w_200 is always greater than 20", True),
    ("Always greater than 20", "not always greater than 20", None),
    ("x(n)<y(n-1) for all n≥3", "x(n) < y(n-1) for all n ≥ 3", True),
    ("x(n)<y(n-1) for all n≥3", "the second", None),
    ("x(n)<y(n-1) for all n≥3", "x(n) > y(n-1) for all n≥3", False),
    ("f(x)=0 or f(x)=1", r"\[f(x) = 0 \text{ or } f(x) = 1 \text{ for all } x \neq 0.\]", True),
    ("f(x)=0 or f(x)=1", "f(x) = 0", False),
]
WITH_SERVICE = [
    ("2^floor(n/2)*floor(n/2)!", r"2^{\lfloor n/2 \rfloor} \cdot \lfloor n/2 \rfloor!", True),
    ("C(n+1, 2m+1)", r"\binom{n+1}{2m+1}", True),
    ("C(n+1, 2m+1)", r"\binom{n+1}{2m}", False),
    ("(n+1)^(n-1)", "The answer is (n + 1)^{n - 1}.", True),
    ("(n+1)^(n-1)", "n^(n-1)", False),
    ("n!", "n!", True),
    ("4^n", "2^(2n)", True),
    ("sqrt(3)", r"3^{1/2}", True),
    ("(n+1)/(r+1)", r"\frac{n+1}{r+1}", True),
    ("C(n, 4), or an equivalent form such as n(n-1)(n-2)(n-3)/4!", "n(n-1)(n-2)(n-3)/24", True),
    ("sum_(i=1)^n i^3, or equivalently (n(n+1)/2)^2", "n^2(n+1)^2/4", True),
    ("-2x+2", "2 - 2x", True),
    ("[-1, 1]", r"[-1, 1]", True),
    ("[-1, 1]", r"(-1, 1)", False),
    (FACTORED, "(x^4-x^2+1)(x^2-x+1)(x^2+x+1)", True),
    (FACTORED, "x^8+x^4+1", False),
    (FACTORED, "(x^4+x^2+1)(x^4-x^2+1)", False),
    ("1-1/2^(1/n)", r"1 - 2^{-1/n}", True),
    ("n times", "n", True),
]


@pytest.mark.parametrize(("gold", "answer", "verdict"), WITHOUT_SERVICE)
def test_forms(gold: str, answer: str, verdict: bool | None) -> None:
    assert grade(answer, gold) is verdict


@pytest.mark.parametrize(("gold", "answer", "verdict"), WITH_SERVICE)
def test_formulas(gold: str, answer: str, verdict: bool) -> None:
    pytest.importorskip("math_verify")
    try:
        Bubblewrap.probe()
    except ConfigError as error:
        pytest.skip(f"no bubblewrap here: {error}")
    assert grade(answer, gold) is verdict


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("2^floor(n/2)", r"2^{\lfloor n/2 \rfloor }"),
        ("C(n+1, 2m)", r"\binom{n+1}{2m}"),
        ("sqrt(x^(n-1))", r"\sqrt{x^{n-1}}"),
        ("2^10*x", r"2^{10}\cdot x"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("sqrt(", "sqrt("),
    ],
)
def test_notation(typed: str, written: str) -> None:
    assert latex(typed) == written


def test_a_factorisation_is_marked_by_its_problem() -> None:
    task = read({"problem": "Factorize x^2-1.", "answer": "(x+1)(x-1)"})
    assert task.gold == FACTORS + "(x+1)(x-1)"


@pytest.mark.parametrize("row", [{"problem": "p"}, {"answer": "1"}, {"problem": "", "answer": "1"}])
def test_rows_that_are_no_problems(row: dict[str, str]) -> None:
    with pytest.raises(DataError):
        CHAMP.items([row])


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}")
def test_every_gold_answer_is_right() -> None:
    items = CHAMP.load(SHARED)
    assert len(items) >= 170
    for item in items:
        answer = item.gold.removeprefix(FACTORS)
        assert grade(f"\\boxed{{{answer}}}", item.gold) is True, item
        assert grade("\\boxed{}", item.gold) is False, item
