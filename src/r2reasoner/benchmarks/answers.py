"""Which part of what a model wrote is its answer, for mathematics: a formula, a number, a word.

`statement` is the last box, else what follows the last "answer is", else the last line; `value`
is what a statement says something to be. Their time is linear in the text.
"""

import re
from typing import Final

MOST_READ: Final = 20_000
_BOX: Final = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE: Final = re.compile(r"(?<!\\)[{}]")
_MARK: Final = re.compile(
    r"(?:\banswer\b[^\n.:=?]{0,40}?(?:\bis\b|[:=])|####)[*\s]*:?[ \t]*", re.IGNORECASE
)
_DISPLAY: Final = re.compile(
    r"\\\[((?:(?!\\\]).){1,2000})\\\]|(?<!\\)\$\$([^$]{1,2000})(?<!\\)\$\$", re.DOTALL
)
_FORMULA: Final = re.compile(
    r"(?<!\\)\$((?:[^$\\\n]|\\[^\n]){1,2000})\$|\\\(((?:(?!\\\)).){1,2000})\\\)"
)
_VALUE: Final = (
    r"(?P<value>[$({\[]|\\[(\[\\a-z{]|[-−+±]?[\d.]|[a-zA-Z](?![a-zA-Z])"
    r"|(?:one|two|three|four|five|six|seven|eight|nine|ten|zero)\b)"
)
_SAYS: Final = re.compile(
    r"(?:\b(?:is|are|be|equals|equal to|by|at most|at least|exactly|namely)\b[:\s]*|:\s+)"
    rf"(?:\*\*|[`\"'])?(?={_VALUE})",
    re.IGNORECASE,
)
_GOES_ON: Final = re.compile(
    r"[\s,.]+(?:when|which|where|for|if|such|since|because|achieved|attained|as|with|in|of|that"
    r"|subsets?|ways|solutions?|strings?|integers?|numbers?|values?|and it|given)\b|\.(?=\s|$)",
    re.IGNORECASE,
)
_SO: Final = re.compile(
    r"\s*(?:(?:hence|thus|so|therefore|then|we (?:get|have|find))\b[\s,:]*)+", re.IGNORECASE
)
_WORD: Final = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
_TEXT: Final = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{([^{}]*)\}|\\q?quad\b")
_ENDS: Final = " \t\n*`\"'"
_FEW: Final = 3


def final_answer(text: str) -> str:
    """Return the value that a text ends in, without what sets it apart; "" where there is none."""
    return value(statement(text))


def statement(text: str) -> str:
    """Return what a text says last: its last whole box, the rest of a line, or its last line."""
    text = text[-MOST_READ:]
    if (boxed := _boxed(text)) is not None:
        return boxed.strip()
    text = _DISPLAY.sub(lambda m: f"${' '.join((m[1] or m[2]).split())}$", text)
    marks = list(_MARK.finditer(text))
    rest = text[marks[-1].end() :] if marks else ""
    # Nothing behind the last mark: it was none.
    lines = [line for line in (rest.strip() or text.strip()).splitlines() if line.strip(_ENDS)]
    if not lines:
        return ""
    return (lines[0] if rest.strip() else lines[-1]).strip(_ENDS).removesuffix(".").strip(_ENDS)


def value(said: str) -> str:
    """Return what a sentence says something to be; a statement without words is one itself."""
    if (whole := _FORMULA.fullmatch(said.strip())) is not None:
        said = whole[1] or whole[2]
    if prose(said):
        says = list(_SAYS.finditer(said))
        if says:
            said = said[says[-1].end() :]
            if ends := _GOES_ON.search(said):
                said = said[: ends.start()]
        elif len(formulas := _FORMULA.findall(said)) == 1:
            return str(formulas[0][0] or formulas[0][1]).strip()
        elif (ends := _GOES_ON.search(said)) and not prose(said[: ends.start()]):
            said = said[: ends.start()]
    said = said[so.end() :] if (so := _SO.match(said)) else said
    return _FORMULA.sub(lambda m: f" {m[1] or m[2]} ", said).strip(_ENDS).removesuffix(".")


def prose(said: str) -> bool:
    """Tell whether a statement is a sentence: some words outside its formulas."""
    return len(_WORD.findall(_FORMULA.sub(" ", said))) >= _FEW


def undecided(said: str) -> bool:
    """Tell whether a text that matches nothing may hold an answer all the same, in a sentence."""
    return prose(said) and any(char.isdigit() or char in "$=^" for char in said)


def plain(text: str) -> str:
    r"""Return a text with the words of `\text{}` in the open."""
    return _TEXT.sub(r" \1 ", text)


def _boxed(text: str) -> str | None:
    """Return what the last whole box holds."""
    whole = None
    for box in list(_BOX.finditer(text))[-8:]:
        depth, start = 1, box.end()
        for brace in _BRACE.finditer(text, start):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                whole = text[start : brace.start()]
                break
    return whole
