"""Mathematical equality of two texts: by spelling and number here, else by math-verify in a jail.

Most answers are settled by their spelling or by being plain numbers. The others go to a service
in a sandbox, for reading a formula means running much code on a text that a model wrote. Where
there is no sandbox for it they are not judged. Leaves out: what an answer is (`answers.py`).
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final

from r2reasoner.errors import ConfigError
from r2reasoner.sandbox import MIB, Worker

LONGEST: Final = 2_000
REPLY_SECONDS: Final = 120.0
DISTRIBUTIONS: Final = (
    "math-verify",
    "latex2sympy2-extended",
    "sympy",
    "mpmath",
    "antlr4-python3-runtime",
)

_NOISE: Final = re.compile(
    r"\\(?:left|right|displaystyle|bigl?|bigr|Bigl?|Bigr|limits)(?![A-Za-z])"
    r"|\\[,;:! ]|\\(?:quad|qquad)\b|[\s$~]|\^\{?\\circ\}?|\\%|%"
)
_TEXT: Final = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_FRACTION: Final = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_SHORT_FRACTION: Final = re.compile(r"\\frac(\d)(\d)")
_SHORT_ROOT: Final = re.compile(r"\\sqrt(\w)")
_GROUPED: Final = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_RATIO: Final = re.compile(r"(-?)\\frac\{(-?\d+)\}\{(-?\d+)\}|(-?\d+)/(\d+)")


def same(answer: str, golds: Sequence[str], *, integers: bool = False) -> bool | None:
    """Tell whether an answer equals one of the gold texts; None where it cannot be told.

    `integers`: the letters of formulas stand for positive whole numbers, the first (in order of
    the alphabet) for the largest; formulas are then compared by value. Never raises.
    """
    spelled = spelling(answer) if len(answer) <= LONGEST else answer
    if not spelled:
        return False
    wanted = [spelling(gold) for gold in golds]
    if spelled in wanted:
        return True
    value, values = number(spelled), [number(gold) for gold in wanted]
    if value is not None and None not in values:
        # "10 %" is asked for as 10 and as 0.1.
        percent = "%" in answer or any("%" in gold for gold in golds)
        return value in values or (
            percent and any(v in (value / 100, value * 100) for v in values if v is not None)
        )
    if len(answer) > LONGEST:
        return None
    question = {"answer": answer, "golds": list(golds), "integers": integers}
    try:
        reply = _service().ask(question, seconds=REPLY_SECONDS)
    except ConfigError:
        return None
    verdict = reply.get("equal") if isinstance(reply, dict) else None
    return verdict if isinstance(verdict, bool) else None


def spelling(text: str) -> str:
    """Return a formula without what changes its look alone."""
    text = _FRACTION.sub(r"\\frac", _TEXT.sub(r" \1 ", text))
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text))
    return _GROUPED.sub("", _NOISE.sub("", text)).replace("−", "-").strip(".")


def number(spelled: str) -> Fraction | None:
    """Return the value of a spelling that is a plain number or a ratio of two, else None."""
    if len(spelled) > 100:
        return None
    try:
        if ratio := _RATIO.fullmatch(spelled):
            sign = -1 if ratio[1] else 1
            return sign * Fraction(int(ratio[2] or ratio[4]), int(ratio[3] or ratio[5]))
        if re.fullmatch(r"[-+]?(?:\d+\.?\d*|\.\d+)", spelled):
            return Fraction(Decimal(spelled))
    except (ZeroDivisionError, InvalidOperation):
        pass
    return None


@cache
def _service() -> Worker:
    source = Path(__file__).with_name("equality_service.py").read_text(encoding="utf-8")
    # Its own process, and the child in which it judges.
    return Worker(source, distributions=DISTRIBUTIONS, memory_bytes=1024 * MIB, processes=2)
