"""Scorers: is this answer right? Pure functions that never raise, whatever a model wrote.

True is right, False is wrong, None is "cannot be judged" (unscored), which is neither: it counts
in no accuracy. An answer without what is asked for (no number in it, say) is wrong.
Leaves out: mathematical equivalence of formulas, and answers that must be run.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, TypeAlias

Grade: TypeAlias = Callable[[str, str], bool | None]
"""(answer, gold) -> right, wrong, or None where it cannot be judged."""

_WHOLE: Final = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER: Final = re.compile(
    rf"(?:(?<![\w)])[-+−])?(?:{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}}(?![0-9]))?"
)
_MARKED: Final = (re.compile(r"\\boxed\{([^{}]*)\}"), re.compile(r"####([^\n]*)"))


def exact(answer: str, gold: str) -> bool:
    """Tell whether two texts are the same, white space around them aside."""
    return answer.strip() == gold.strip()


def sequence(answer: str, gold: str) -> bool:
    """Tell whether two texts are the same sequence of tokens, whatever white space parts them."""
    return answer.split() == gold.split()


def number(answer: str, gold: str) -> bool | None:
    r"""Tell whether an answer's number equals the gold one exactly (`1,000.0` equals `1000`).

    Its number is the last one in `\boxed{}`, after `####`, or else in the whole text. None where
    the gold text has no number.
    """
    wanted = read_number(gold)
    return None if wanted is None else read_number(answer) == wanted


def read_number(text: str) -> Decimal | None:
    """Return the number that a text ends in or marks as its answer, or None."""
    for marked in _MARKED:
        if found := marked.findall(text):
            text = found[-1]
            break
    numbers: list[str] = _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "").replace("−", "-")) if numbers else None


GRADES: Final[Mapping[str, Grade]] = {"exact": exact, "number": number, "sequence": sequence}
