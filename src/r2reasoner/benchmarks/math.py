r"""MATH: competition problems whose answer is a number or a formula (Hendrycks et al. 2021).

Right when the answer equals the gold one as mathematics: the last `\boxed{}`, else what follows
"the answer is", else the last line. Words among the gold answers (a name, a day) are compared as
words. A file's rows have `problem` and `answer` or `solution`; of a text with boxes the last one
is the answer.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from r2reasoner.benchmarks.answers import final_answer, prose, undecided
from r2reasoner.benchmarks.base import Benchmark, text_of
from r2reasoner.benchmarks.equality import same
from r2reasoner.benchmarks.hub import Hub
from r2reasoner.benchmarks.notation import signs
from r2reasoner.types import Task

INSTRUCTION: Final = r"Solve the problem. End with the final answer alone, as \boxed{answer}."
_TEXT: Final = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{([^{}]*)\}")
_UNIT: Final = re.compile(
    r"(?:\\(?:text|mbox|mathrm)\s*\{[^{}]*[A-Za-z][^{}]*\}|(?<=[\d} ])(?:degrees?|dollars?|cents?"
    r"|units?|inch(?:es)?|feet|foot|cm|hours?|minutes?|seconds?|days?|miles?|square units))"
    r"(?:\s*(?:squared|\^\{?\d\}?))?\.?$"
)

_COUNTED: Final = re.compile(
    r"(\\?\$?-?\d[\d,]*(?:\.\d+)?(?:/\d+)?)(?: (?!and\b|or\b|to\b)[A-Za-z]{2,20}){1,4}\.?"
)
"""A number of things: "1,152 cups of flour"."""


def read(row: Mapping[str, Any]) -> Task:
    """Return a row's task. Raises KeyError and ValueError."""
    told = text_of(row, "answer" if "answer" in row else "solution")
    if "answer" not in row and "boxed" not in told:
        raise ValueError("solution: expected a \\boxed{answer} in it")
    gold = final_answer(told) if "boxed" in told else told
    return Task(text_of(row, "problem"), gold)


def grade(answer: str, gold: str) -> bool | None:
    """Tell whether an answer equals the gold one; None where it cannot be told. Never raises."""
    if not gold.strip():
        return None
    found = final_answer(answer)
    if is_words(gold):
        said, wanted = words(found), words(gold)
        if said != wanted and prose(found) and wanted in said:
            return None
        return said == wanted
    found = signs(unit_less(found))
    verdict = same(found, [unit_less(gold)])
    return None if verdict is False and undecided(found) else verdict


def is_words(gold: str) -> bool:
    r"""Tell whether a gold answer is words: letters without a formula, as `\text{Evelyn}`."""
    bare = _TEXT.sub(r" \1 ", gold).replace(r"\ ", " ")
    if re.search(r"[^A-Za-z\s,.'()-]", bare):
        return False
    found = re.findall(r"[A-Za-z]+", bare)
    letter = re.fullmatch(r"\s*\(?[A-Z]\)?\s*", bare)
    return bool(found) and (bool(letter) or all(len(word) > 1 for word in found))


def words(text: str) -> str:
    """Return a text's words in small letters, whatever stands around them."""
    return " ".join(re.findall(r"[a-z0-9]+", _TEXT.sub(r" \1 ", text).lower()))


def unit_less(text: str) -> str:
    """Return an answer without a unit behind it and a dollar sign before it."""
    if counted := _COUNTED.fullmatch(text.strip()):
        return counted[1]
    shorter = _UNIT.sub("", text.replace(r"\$", "").strip()).strip()
    return shorter or text


MATH: Final = Benchmark(
    name="math",
    columns=("problem",),
    read=read,
    grade=grade,
    blocking=True,
    repeats=True,
    default_split="math500",
    files={"math500": "math500_test.jsonl", "other": "math_other_760.jsonl"},
    hub=Hub(
        dataset="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        splits={"math500": "test"},
    ),
    instruction=INSTRUCTION,
)
