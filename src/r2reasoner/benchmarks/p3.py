"""P3: a Python function `sat`; find an x for which it returns True (Schuster et al. 2021).

An answer is a Python literal or expression, `x = ...`, or a function `sol()` that returns x, bare
or in a code block; of several code blocks the last. It runs in a sandbox, and what it leaves is
plain JSON; `sat` is judged in a second sandbox that gets that JSON as data, so that an answer's
code never shares a process with its verdict. x must have exactly the stated type. Running out of
time or memory is wrong, as published. Leaves out: the English descriptions of the puzzles.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from r2reasoner.benchmarks.base import Benchmark, text_of
from r2reasoner.errors import ConfigError
from r2reasoner.sandbox import MIB, Ran, Sandbox
from r2reasoner.types import Task

INSTRUCTION: Final = """\
Find a value for the first argument of this Python function that makes it return True, its other \
arguments being as they are by default. Answer with the value as a Python literal of the stated \
type, alone; or, where it is long, with a Python function sol() in a code block that takes no \
arguments and returns the value."""
SECONDS: Final = 10.0
MOST_READ: Final = 200_000
MOST_PRINTED: Final = 16 * MIB
MARK: Final = "answer "
RIGHT: Final = "right\n"

_TYPE: Final = re.compile(r"(?:List\[)*(?:int|float|str|bool)\]*")
_FIRST_ARGUMENT: Final = re.compile(r"def\s+sat\s*\(\s*(\w+)")
_BLOCK: Final = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_CODE_LINE: Final = re.compile(r"^(?:def|import|from|class|@)\b", re.MULTILINE)
_SOL: Final = re.compile(r"^def\s+sol\s*\(", re.MULTILINE)
_ASSIGNED: Final = re.compile(r"^([A-Za-z_]\w*)[ \t]*(?::[^=\n]+)?=(?!=)", re.MULTILINE)
_MARKED: Final = re.compile(r"\banswer\b[^\n:=]{0,40}?(?:\bis\b|[:=])[ \t:]*\n?", re.IGNORECASE)
_PLAIN: Final = """\
def _plain(value):
    if type(value) is list:
        return [_plain(part) for part in value]
    if type(value) in (int, float, str, bool):
        return value
    raise TypeError("not a plain value")
"""
_ANSWERING: Final = """\
import json
from typing import List
{plain}
for _code, _expression in json.loads({tries!r}):
    _space = {{"List": List, "__name__": "answer"}}
    try:
        exec(_code, _space)
        _found = json.dumps(_plain(eval(_expression, _space)))
    except Exception:
        continue
    print()
    print("{mark}" + _found)
    break
"""
_JUDGING: Final = """\
import json
from typing import List
{sat}
def _fits(value, kind):
    if kind.startswith("List["):
        return type(value) is list and all(_fits(part, kind[5:-1]) for part in value)
    return type(value) is {{"int": int, "float": float, "str": str, "bool": bool}}[kind]
_x = json.loads({found!r})
print("right" if _fits(_x, {ans_type!r}) and sat(_x) is True else "wrong")
"""


class Puzzle(NamedTuple):
    """A puzzle's text, the type of its answer and the name of its first argument."""

    sat: str
    ans_type: str
    argument: str

    @classmethod
    def of(cls, gold: str) -> "Puzzle":
        """Return the puzzle of a gold text. Raises ValueError and KeyError."""
        row = json.loads(gold)
        if not isinstance(row, dict):
            raise ValueError("expected an object with 'sat' and 'ans_type'")
        sat, ans_type = text_of(row, "sat"), text_of(row, "ans_type")
        if not _TYPE.fullmatch(ans_type) or ans_type.count("[") != ans_type.count("]"):
            raise ValueError(f"ans_type {ans_type[:40]!r}: expected int, float, str, bool or List")
        argument = _FIRST_ARGUMENT.search(sat)
        if argument is None:
            raise ValueError("sat: expected the text of a function sat with an argument")
        return cls(sat, ans_type, argument[1])


def read(row: Mapping[str, Any]) -> Task:
    """Return a row's task. Raises KeyError, ValueError, and ConfigError without any sandbox."""
    Sandbox.best()
    gold = json.dumps({"sat": text_of(row, "sat"), "ans_type": text_of(row, "ans_type")})
    return Task(Puzzle.of(gold).sat, gold)


def grade(answer: str, gold: str) -> bool | None:
    """Tell whether an answer solves a puzzle; None where there is no puzzle or no sandbox."""
    try:
        return solves(Sandbox.best(), answer, Puzzle.of(gold))
    except (ConfigError, ValueError, KeyError, RecursionError):
        return None


def solves(sandbox: Sandbox, answer: str, puzzle: Puzzle, *, seconds: float = SECONDS) -> bool:
    """Tell whether an answer solves a puzzle in this sandbox, with so much time for each half.

    Raises ConfigError where nothing can be started.
    """
    found = value_of(sandbox, answer, puzzle, seconds=seconds)
    if found is None:
        return False
    return judge(sandbox, found, puzzle, seconds=seconds).stdout.endswith(RIGHT)


def value_of(sandbox: Sandbox, answer: str, puzzle: Puzzle, *, seconds: float) -> str | None:
    """Return the value that an answer comes to, as JSON text; None where it comes to none."""
    tries = forms(answer, puzzle)
    source = _ANSWERING.format(plain=_PLAIN, tries=json.dumps(tries), mark=MARK)
    ran = sandbox.run(source, seconds=seconds, output_bytes=MOST_PRINTED)
    last = ran.stdout.rstrip("\n").rpartition("\n")[2]
    return last.removeprefix(MARK) if last.startswith(MARK) else None


def judge(sandbox: Sandbox, found: str, puzzle: Puzzle, *, seconds: float) -> Ran:
    """Run a puzzle on a value, given as JSON text, in a sandbox of its own."""
    source = _JUDGING.format(sat=puzzle.sat, found=found, ans_type=puzzle.ans_type)
    return sandbox.run(source, seconds=seconds)


def forms(answer: str, puzzle: Puzzle) -> list[tuple[str, str]]:
    """Return what an answer may mean, the likeliest first: code to run, then an expression."""
    text = answer[-MOST_READ:].strip()
    blocks = _BLOCK.findall(text)
    if blocks:
        return [*_code(blocks[-1].strip("\n"), puzzle), ("", blocks[-1].strip())]
    tries = []
    if (start := _CODE_LINE.search(text)) and _SOL.search(text):
        tries += _code(text[start.start() :], puzzle)
    tries += [*_code(text, puzzle), ("", text)]
    marks = list(_MARKED.finditer(text))
    tail = text[marks[-1].end() :] if marks else text
    tries += [("", part) for part in _parts(tail)]
    if puzzle.ans_type == "str":
        tries.append(("", repr(tail.strip())))
    return tries


def _code(text: str, puzzle: Puzzle) -> list[tuple[str, str]]:
    if _SOL.search(text):
        return [(text, "sol()")]
    names: list[str] = _ASSIGNED.findall(text)
    if not names:
        return []
    return [(text, puzzle.argument if puzzle.argument in names else names[-1])]


def _parts(tail: str) -> list[str]:
    """Return the texts that may be a value after "the answer is", or at an answer's end."""
    lines = [line.strip() for line in tail.strip().splitlines() if line.strip()] or [""]
    parts = [tail.strip(), lines[0], lines[-1]]
    parts += re.findall(r"`([^`\n]+)`", lines[-1])[-1:]
    return [shorter for part in parts for shorter in (part, part.rstrip(". "))]


P3: Final = Benchmark(
    name="p3",
    columns=("sat", "ans_type"),
    read=read,
    grade=grade,
    blocking=True,
    default_split="test",
    files={"train": "puzzles_train.jsonl", "test": "puzzles_test.jsonl"},
    instruction=INSTRUCTION,
)
