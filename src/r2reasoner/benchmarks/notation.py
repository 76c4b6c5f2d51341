r"""Formulas as people type them (`2^floor(n/2)*C(n, 2)`), rewritten as LaTeX, the form judged.

Text that is LaTeX already comes out as it went in, but for signs that have a LaTeX name. Linear
in the text. Leaves out: names of more than one letter other than the functions below.
"""

import re
from typing import Final

_SIGNS: Final = {
    "−": "-",
    "–": "-",
    "×": r"\cdot ",
    "·": r"\cdot ",
    "∗": r"\cdot ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "π": r"\pi ",
    "∞": r"\infty ",
    "±": r"\pm ",
    "√": r"\sqrt ",
    "∪": r"\cup ",
    "≠": r"\ne ",
    "∈": r"\in ",
}
_CALL: Final = re.compile(r"(?<![A-Za-z\\{])(sqrt|floor|ceil|C|binom|sum_)\s*(?=\()")
_LATEX_SIZE: Final = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[!,;:]")
_POWER: Final = re.compile(r"\^\s*\(")
_LONG_POWER: Final = re.compile(r"\^(-?(?:\d+|\d*[A-Za-z]))(?![\w{])")
_ENDS: Final = " \t\n.,;"
MOST_CALLS: Final = 50


def latex(text: str) -> str:
    """Return a typed formula as LaTeX."""
    text = _LATEX_SIZE.sub("", text.replace("**", "^")).strip(_ENDS)
    text = re.sub(r"choose\((\w+),\s*(\w+)\)", r"C(\1, \2)", text)
    for _ in range(MOST_CALLS):
        call = _CALL.search(text) or _POWER.search(text)
        if call is None:
            break
        start = text.index("(", call.start())
        end = _closing(text, start)
        if end is None:
            break
        inside = text[start + 1 : end]
        name = call[1] if call.re is _CALL else "^"
        text = text[: call.start()] + _written(name, inside) + text[end + 1 :]
    text = _LONG_POWER.sub(r"^{\1}", text)
    return signs(text.replace("*", r"\cdot "))


def signs(text: str) -> str:
    """Return a text with the LaTeX names of its signs."""
    for sign, name in _SIGNS.items():
        text = text.replace(sign, name)
    return text


def _written(name: str, inside: str) -> str:
    if name == "sqrt":
        return rf"\sqrt{{{inside}}}"
    if name == "^":
        return rf"^{{{inside}}}"
    if name in ("floor", "ceil"):
        return rf"{{\l{name} {inside} \r{name} }}"
    if name == "sum_":
        return rf"\sum_{{{inside}}}"
    upper, _, lower = inside.partition(",")
    return rf"\binom{{{upper.strip()}}}{{{lower.strip()}}}"


def _closing(text: str, start: int) -> int | None:
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return None
