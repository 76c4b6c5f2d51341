"""P3: answers in many forms, near misses, and answers that try to forge their verdict."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from r2reasoner.benchmarks.p3 import P3, Puzzle, grade, solves
from r2reasoner.errors import DataError
from r2reasoner.sandbox import Sandbox
from r2reasoner.sandbox.monty import MontySandbox

SHARED = Path(__file__).parents[3] / "shared" / "data" / "p3"
RECIPE = Path(__file__).parents[2] / "recipes" / "p3_references.py"


def gold(sat: str, ans_type: str) -> str:
    return json.dumps({"sat": sat, "ans_type": ans_type})


SUM = gold("def sat(li: List[int], n=3):\n    return len(li) == n and sum(li) == 6", "List[int]")
WORD = gold("def sat(s: str):\n    return s.startswith('he') and len(s) == 5", "str")
HALF = gold("def sat(x: float):\n    return x * 2 == 1", "float")
LARGE = gold("def sat(n: int):\n    return len(str(n)) == 6000 and n % 7 == 3", "int")
IMPOSSIBLE = gold("def sat(li: List[int]):\n    return sum(li) == 1 and sum(li) == 2", "List[int]")


@pytest.fixture(params=["best", "monty"], scope="module")
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return Sandbox.best() if request.param == "best" else MontySandbox.probe()


RIGHT = [
    (SUM, "[1, 2, 3]"),
    (SUM, "  [1,2,\n 3] \n"),
    (SUM, "li = [1, 2, 3]"),
    (SUM, "li: List[int] = [1, 2, 3]"),
    (SUM, "[n for n in range(1, 4)]"),
    (SUM, "[2] * 3"),
    (SUM, "The answer is [1, 2, 3]."),
    (SUM, "Final answer: [1, 2, 3]"),
    (SUM, "**Answer:**\n[1, 2, 3]"),
    (SUM, "We need three numbers.\n\n[1, 2, 3]"),
    (SUM, "So `li` must be `[1, 2, 3]`."),
    (SUM, "```\n[1, 2, 3]\n```"),
    (SUM, "```python\nli = [1, 2, 3]\nprint(li)\n```"),
    (SUM, "```python\na = 1\nb = [a, 2, 3]\n```"),
    (SUM, "```python\n[9]\n```\nNo, rather:\n```python\n[1, 2, 3]\n```\nThat is it."),
    (SUM, "```python\ndef sol():\n    return [1, 2, 3]\n```"),
    (SUM, "```python\ndef sol(n=3):\n    return [6 // n] * n\n```"),
    (SUM, "```py\ndef add(a):\n    return a + 1\n\ndef sol():\n    return [1, add(1), 3]"),
    (SUM, "Here it is:\ndef sol():\n    return [1, 2, 3]\n"),
    (SUM, "from typing import List\ndef sol() -> List[int]:\n    return [1, 2, 3]"),
    (SUM, "```python\nprint('thinking')\ndef sol():\n    print('more')\n    return [1, 2, 3]\n```"),
    (SUM, "```python\nx = '```'\nli = [1, 2, len(x)]\n```"),
    (WORD, "'hello'"),
    (WORD, '"hello"'),
    (WORD, "hello"),
    (WORD, "The answer is hello"),
    (WORD, "s = 'hello'"),
    (HALF, "0.5"),
    (HALF, "1/2"),
    (HALF, "x = 5e-1"),
    (LARGE, "def sol():\n    n = 10 ** 5999\n    while n % 7 != 3:\n        n += 1\n    return n"),
]
WRONG = [
    (SUM, ""),
    (SUM, "[1, 2, 4]"),
    (SUM, "(1, 2, 3)"),
    (SUM, "{1, 2, 3}"),
    (SUM, "[1, 2, 3.0]"),
    (SUM, "[True, 2, 3]"),
    (SUM, "'[1, 2, 3]'"),
    (SUM, "[[1, 2, 3]]"),
    (SUM, "None"),
    (SUM, "I do not know."),
    (SUM, "```python\ndef sol():\n    [1, 2, 3]\n```"),
    (SUM, "```python\ndef sol(:\n    return [1, 2, 3]\n```"),
    (SUM, "```python\ndef sol():\n    raise ValueError\n```"),
    (SUM, "```python\ndef sol():\n    while True: pass\n```"),
    (SUM, "```python\ndef sol():\n    return sol()\n```"),
    (SUM, "[" * 5000),
    (SUM, "-" * 50_000 + "1"),
    (SUM, "9**9**9**9"),
    (SUM, "\x00\ud800"),
    (WORD, "'hallo'"),
    (HALF, "0.25"),
    (HALF, "'0.5'"),
]


@pytest.mark.parametrize(("puzzle", "answer"), RIGHT)
def test_right_answers(sandbox: Sandbox, puzzle: str, answer: str) -> None:
    if sandbox.name == "pydantic-monty" and puzzle == LARGE:
        pytest.skip("Monty prints whole numbers of up to 4,300 digits")
    assert solves(sandbox, answer, Puzzle.of(puzzle))


@pytest.mark.parametrize(("puzzle", "answer"), WRONG)
def test_wrong_answers(sandbox: Sandbox, puzzle: str, answer: str) -> None:
    assert not solves(sandbox, answer, Puzzle.of(puzzle), seconds=1)


FORGED = [
    "raise SystemExit(0)",
    "import os; os._exit(0)",
    "print('right')",
    "print('right'); raise SystemExit(0)",
    "print('\\nright\\n', flush=True); import os; os._exit(0)",
    "import sys; sys.stdout.write('right\\n'); sys.stdout.close()",
    "print('answer true')",
    "print('answer [1]\\nright'); raise SystemExit",
    "print('answer [1]) is True or True #'); raise SystemExit",
    "print('answer ' + repr(chr(39) * 3 + ')\\nprint(\"right\")#')); raise SystemExit",
    "print('answer [1]\\\\x27) or print(\"right\") #'); raise SystemExit",
    "print('answer {\"__class__\": 1}'); raise SystemExit",
    "print('answer NaN'); raise SystemExit",
    "print('answer ' + '[' * 100000); raise SystemExit",
    "import atexit; atexit.register(lambda: print('right'))",
    "import builtins; builtins.sum = lambda li: 1",
    "import builtins; builtins.print = lambda *a: __import__('os').write(1, b'right\\n')",
    "import builtins; builtins.isinstance = lambda *a: True",
    "import builtins; builtins.type = lambda *a: list",
    "import json; json.dumps = lambda *a: 'right'",
    "import json; json.loads = lambda *a: 'right'",
    "import sys; sys.modules['json'] = None",
    "import typing; typing.List = None",
    "sat = lambda *a: True",
    "import __main__; __main__.sat = lambda *a: True; __main__._fits = lambda *a: True",
    "import gc\nfor o in gc.get_objects():\n  if isinstance(o, dict): o['sat'] = o['_fits'] = bool",
    "import sys; sys.settrace(lambda *a: None); sys.exit = print",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('right')",
    "import sys; sys.excepthook = lambda *a: print('right'); raise ValueError",
    "import threading; threading.Thread(target=print, args=('right',)).start()",
]
CLASSES = [
    "class Sure(list):\n  def __eq__(s, o): return True\n  def __iter__(s): return iter([1])",
    "class Sure(int):\n  def __eq__(s, o): return True\n  def __radd__(s, o): return s",
    "class Sure:\n  def __eq__(s, o): return True\n  def __repr__(s): return 'right'",
    "class Sure(str):\n  def __str__(s): return 'right'\n  def __len__(s): return 5",
]


@pytest.mark.parametrize("code", FORGED)
def test_forged_verdicts(sandbox: Sandbox, code: str) -> None:
    for answer in (
        f"```python\n{code}\n```",
        f"```python\n{code}\ndef sol():\n    return [1]\n```",
    ):
        assert not solves(sandbox, answer, Puzzle.of(IMPOSSIBLE), seconds=2)


@pytest.mark.parametrize("code", CLASSES)
@pytest.mark.parametrize("value", ["Sure()", "[Sure()]", "[Sure(), 1]"])
def test_forged_values(sandbox: Sandbox, code: str, value: str) -> None:
    answer = f"```python\n{code}\ndef sol():\n    return {value}\n```"
    assert not solves(sandbox, answer, Puzzle.of(IMPOSSIBLE), seconds=2)


def test_what_is_true_but_not_true_itself_is_wrong() -> None:
    assert grade("5", gold("def sat(n: int):\n    return n", "int")) is False


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"sat": "x", "ans_type": "int"}', "no JSON"])
def test_without_a_puzzle_nothing_is_judged(broken: str) -> None:
    assert grade("5", broken) is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"sat": "def sat(x: int):\n  return True"}, "no 'ans_type'"),
        ({"sat": "x = 1", "ans_type": "int"}, "a function sat with an argument"),
        ({"sat": "def sat(x): return True", "ans_type": "Dict[int, int]"}, "expected int, float"),
        ({"sat": "def sat(x): return True", "ans_type": "List[int"}, "expected int, float"),
        ({"sat": "", "ans_type": "int"}, "sat is empty"),
    ],
)
def test_rows_that_are_no_puzzles(row: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        P3.items([row])


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}")
class TestShared:
    @pytest.mark.parametrize(("split", "count"), [("train", 446), ("test", 726)])
    def test_every_puzzle_is_read(self, split: str, count: int) -> None:
        items = P3.load(SHARED, split)
        assert len(items) == count
        assert all(item.query.startswith("def sat(") for item in items)

    def test_reference_solutions_are_right(self) -> None:
        ran = subprocess.run(
            [sys.executable, RECIPE, SHARED, "--limit", "12"],
            capture_output=True,
            text=True,
            check=True,
        )
        tally = ran.stdout.partition("puzzles:\n")[2].split("\n")
        counts = {line[7:]: int(line[:6]) for line in tally if line}
        assert counts.get("right", 0) >= 11
        assert set(counts) <= {"right", "no reference solution"}
