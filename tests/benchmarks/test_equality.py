"""Mathematical equality: equal in many forms, near misses, and hostile texts."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.benchmarks import equality, equality_service
from r2reasoner.benchmarks.equality import number, same, spelling
from r2reasoner.errors import ConfigError
from r2reasoner.sandbox.bubblewrap import Bubblewrap


@pytest.fixture(scope="module")
def service() -> None:
    pytest.importorskip("math_verify")
    try:
        Bubblewrap.probe()
    except ConfigError as error:
        pytest.skip(f"no bubblewrap here: {error}")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("42", "42.0"),
        ("1,234", "1234"),
        (r"10,\!080", "10080"),
        (r"\frac{1}{2}", "0.5"),
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"-\frac{3}{6}", "-1/2"),
        (r"\left( 3, 4 \right)", "(3,4)"),
        (r"90^\circ", "90"),
        (r"10\%", "10"),
        ("0.1", r"10\%"),
        ("$7$", "7"),
        ("−3", "-3"),
    ],
)
def test_spelling_and_numbers_need_no_service(answer: str, gold: str) -> None:
    starts = equality._service().starts
    assert same(answer, [gold]) is True
    assert equality._service().starts == starts


@pytest.mark.parametrize(
    ("answer", "gold"), [("42", "43"), ("", "1"), ("1/0", "1"), ("0.33", "1/3")]
)
def test_other_numbers_are_wrong(answer: str, gold: str) -> None:
    assert same(answer, [gold]) is not True


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_ratios_are_exact(above: int, below: int) -> None:
    value = Fraction(above, below)
    assert number(f"{above}/{below}") == value
    assert number(spelling(rf"\frac{{{above}}}{{{below}}}")) == value


@given(st.text(max_size=200))
def test_any_text_has_a_spelling_that_is_its_own(text: str) -> None:
    once = spelling(text)
    number(once)
    assert " " not in once


EQUAL = [
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    ("x+1", "1+x"),
    ("x = 5", "5"),
    ("p-q", "-q+p"),
    (r"(3, \pi/2)", r"\left( 3, \frac{\pi}{2} \right)"),
    ("1, 2", r"\{2, 1\}"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"(x+1)^2", "x^2+2x+1"),
]
DIFFERENT = [
    ("(2,1)", "(1,2)"),
    ("x+2", "x+1"),
    (r"2\sqrt{2}", r"\sqrt{12}"),
    ("[-2,7)", "[-2,7]"),
    ("1,2,3", "1,2"),
    ("I do not know", "x+1"),
]
FORMULAS = [
    (r"\frac{(n+1)!}{(2m+1)!(n-2m)!}", r"\binom{n+1}{2m+1}", True),
    ("n^2+n", "n(n+1)", True),
    (r"\frac{n}{2}", r"\lfloor n/2 \rfloor", False),
    ("2^n", "2^{n-1}", False),
    ("2^m", "2^n", False),
]


@pytest.mark.usefixtures("service")
class TestService:
    @pytest.mark.parametrize(("answer", "gold"), EQUAL)
    def test_equal(self, answer: str, gold: str) -> None:
        assert same(answer, [gold]) is True

    @pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
    def test_different(self, answer: str, gold: str) -> None:
        assert same(answer, [gold]) is False

    @pytest.mark.parametrize(("answer", "gold", "verdict"), FORMULAS)
    def test_formulas_of_whole_numbers(self, answer: str, gold: str, verdict: bool) -> None:
        assert same(answer, [gold], integers=True) is verdict

    def test_any_of_several_golds(self) -> None:
        assert same("1+x", ["y", "x+1"]) is True

    def test_too_long_is_not_judged(self) -> None:
        assert same("x+" * 2000 + "1", ["x"]) is None

    def test_what_takes_too_long_is_not_judged_and_costs_no_start(self) -> None:
        assert same("x+1", ["1+x"]) is True
        starts = equality._service().starts
        assert same("9^{9^{9^{9}}}", ["x"]) is not True
        assert same("x+1", ["1+x"]) is True
        assert equality._service().starts == starts


CODE = (
    "__import__('os').system('touch {canary}')",
    "open('{canary}', 'w')",
    'exec(\'open("{canary}", "w")\')',
    "().__class__.__base__.__subclasses__()[0]('{canary}')",
    "print(open('{canary}', 'w'))",
    "(lambda: open('{canary}', 'w'))()",
    "[open('{canary}', 'w') for x in (1,)]",
    "sympify(\"open('{canary}', 'w')\")",
    "Symbol('x').__class__.__init__.__globals__['sys'].modules['os'].mknod('{canary}')",
    "import os; os.mknod('{canary}')",
)
FRAMES = (
    "{}",
    r"\boxed{{{}}}",
    r"\frac{{{}}}{{2}}",
    r"\text{{{}}}",
    "1 + {}",
    "x = {}",
    "({}, 1)",
    r"\sqrt{{{}}}",
    "f({})",
    r"\operatorname{{{}}}",
    r"\begin{{pmatrix}} {} \\ 1 \end{{pmatrix}}",
    "{}!",
    r"\left[ {} \right]",
    "`{}`",
    r"\int_0^1 {} dx",
    r"\begin{{cases}} {} \end{{cases}}",
    r"\write18{{{}}}",
    r"\input{{{}}}",
)
HEAVY = (
    "9^{9^{9^{9}}}",
    "(" * 400,
    "{" * 500,
    r"\sqrt{" * 200 + "2" + "}" * 200,
    "9" * 1900 + "!",
    r"\frac{" * 150,
    "(x+1)^{100000}",
    r"\sum_{k=1}^{10^{12}} k^{k}",
    "1e" + "9" * 1000,
    "+".join("x" * 900),
    "x" + "^x" * 300,
    "-" * 1900 + "1",
    r"\int \frac{\sin(x^x)}{\log(x)^{x}} dx",
    "100000!!!",
    r"\prod_{i=1}^{100000000} i",
    "\x00\ud800￿",
    "$" * 1000,
    "\\" * 1000,
    r"\binom{10^9}{5\cdot 10^8}",
    r"\lim_{x \to 0} x^{x^{x^{x}}}",
)


@pytest.mark.usefixtures("service")
def test_hostile_texts_run_nothing(tmp_path: Path) -> None:
    """The service itself, out of its jail, where code that ran would leave a file."""
    canary = tmp_path / "canary"
    texts = [frame.format(code.format(canary=canary)) for code in CODE for frame in FRAMES]
    texts += HEAVY
    assert len(texts) == 200
    questions = "".join(
        json.dumps({"answer": text, "golds": ["x+1"], "integers": bool(n % 2)}) + "\n"
        for n, text in enumerate(texts)
    )
    ran = subprocess.run(
        [sys.executable, "-P", equality_service.__file__],
        input=questions,
        capture_output=True,
        text=True,
        check=True,
    )
    ready, *told = map(json.loads, ran.stdout.splitlines())
    replies = [reply["equal"] for reply in told]
    assert ready == "ready"
    assert len(replies) == len(texts)
    assert True not in replies
    assert not canary.exists()


@pytest.mark.usefixtures("service")
def test_hostile_texts_do_not_end_the_service() -> None:
    assert same("x+1", ["1+x"]) is True
    starts = equality._service().starts
    for text in HEAVY[:3] + CODE[:3]:
        assert same(text, ["x+1"]) is not True
    assert equality._service().starts == starts
