"""CHAMP: short competition problems; answers are formulas, numbers, yes or no, words.

The gold answers are written for people ("C(10, 5), or equivalently 252", "No integer solutions"),
so each is first read as one of a few forms, and an answer is judged by its form. What a form does
not settle is unscored, which is neither right nor wrong. A file's rows have `problem` and
`answer`. Leaves out: judging by a model, as the published runs did.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from r2reasoner.benchmarks.answers import plain, prose, statement, undecided, value
from r2reasoner.benchmarks.base import Benchmark, text_of
from r2reasoner.benchmarks.equality import number, same, spelling
from r2reasoner.benchmarks.math import unit_less, words
from r2reasoner.benchmarks.notation import latex
from r2reasoner.types import Task

INSTRUCTION: Final = (
    "Solve the problem. End with a line of its own: the answer is, then the answer alone."
)
FACTORS: Final = "Factors: "
LONGEST: Final = 2_000

_ASIDE: Final = re.compile(r"\s*\((?:i\.e\.|no such|all )[^()]*(?:\([^()]*\)[^()]*)*\)")
_EQUIVALENT: Final = re.compile(r",? or (?:equivalently|an equivalent form such as) ")
_COUNTED: Final = re.compile(
    r"^(?:at (?:most|least) |exactly )?(\d+|one|two|three|n)"
    r"(?: (?:integer-valued )?(?:numbers?|zeros|roots|values|inequalities|sequences?|times))$",
    re.IGNORECASE,
)
_ONLY: Final = re.compile(r"^(\S+) is the only possible value$")
_STATED: Final = re.compile(r"^.*\b(?:is equal to|for the limit is|with a period of) (\S+)$")
_WORDS_OF_NUMBERS: Final = "zero one two three four five six seven eight nine ten"
_NUMBER_WORDS: Final = {word: str(n) for n, word in enumerate(_WORDS_OF_NUMBERS.split())}
_YES: Final = re.compile(r"\b(?:yes|true)\b", re.IGNORECASE)
_NO: Final = re.compile(
    r"\b(?:no|not|false|cannot|never|impossible|none|nobody)\b|n['’]t\b", re.IGNORECASE
)
_NOTHING: Final = re.compile(
    r"\bno\b[^.]{0,60}\b(?:solutions?|values?|such|integers?|exists?|selection|sequence)\b"
    r"|\b(?:none|impossible|no solutions?)\b|\bnot (?:possible|exist)|n['’]t exist"
    r"|\\emptyset|\\varnothing|∅|^\{\s*\}$|^\\\{\s*\\\}$",
    re.IGNORECASE,
)
_INFINITE: Final = re.compile(r"\binfinit|\\infty|∞", re.IGNORECASE)
_GAP: Final = re.compile(r"\.\.\.|\\[lc]?dots")
_DIGIT: Final = re.compile(r"\d")
_ASSIGNMENT: Final = re.compile(
    r"(?<![\w)])([a-z])\s*=\s*([^,;=()]+?)\s*(?=[,;)]|\band\b|\bor\b|$)"
)
_NO_WORDS: Final = re.compile(
    r"\b(?:and|sqrt|floor|sum|equivalently|an|or|form|such|as|equivalent)\b"
)
_TUPLE: Final = re.compile(r"\(([^()]*,[^()]*)\)")
_SEPARATOR: Final = re.compile(r"\s*(?:;|,|\band\b|\bor\b)\s*")
_NAMED: Final = re.compile(r"^(?:[a-z](?:\([a-z]\))?|[a-z]\s*\\in)\s*=\s*|^\s*\\\{|\\\}\s*$")

Form = Callable[[str], bool | None]


def read(row: Mapping[str, Any]) -> Task:
    """Return a row's task. Raises KeyError and ValueError."""
    problem, gold = text_of(row, "problem"), text_of(row, "answer")
    return Task(problem, FACTORS + gold if problem.startswith("Factorize") else gold)


def grade(answer: str, gold: str) -> bool | None:
    """Tell whether an answer is right; None where its form does not settle it. Never raises."""
    if not gold.strip():
        return None
    said = _ASIDE.sub("", plain(statement(answer))).strip()
    if not said:
        return False
    if len(said) > LONGEST:
        return None
    if spelling(said) == spelling(_ASIDE.sub("", gold.removeprefix(FACTORS))):
        return True
    return form(gold)(said)


def form(gold: str) -> Form:
    """Return the judge of a gold answer's form, of what an answer says last."""
    if gold.startswith(FACTORS):
        return lambda said: _factors(_found(said), gold.removeprefix(FACTORS))
    bare = _ASIDE.sub("", gold).strip()
    if re.match(r"(?:Yes|No)\b", bare) and not _NOTHING.search(bare):
        return lambda said: _polarity(said, bare)
    if _NOTHING.search(bare):
        return _nothing
    if _INFINITE.match(bare):
        return lambda said: True if _INFINITE.search(said) else _not_if(_DIGIT.search(said))
    if stated := (_ONLY.match(bare) or _STATED.match(bare)):
        return lambda said: _list(_found(said), stated[1])
    if counted := _COUNTED.match(bare):
        return lambda said: _list(_counted(said), _digits(counted[1]))
    if "..." in bare or "<" in bare or ">" in bare:
        return lambda said: _spelled(said, bare)
    if len(re.findall(r"[A-Za-z]{3,}", _NO_WORDS.sub("", bare))) > 1:
        return lambda said: _phrase(said, bare)
    if len({name for name, _ in _ASSIGNMENT.findall(bare)}) > 1:
        return lambda said: _assigned(_found(said), bare)
    return lambda said: _list(_found(said), bare)


def _found(said: str) -> str:
    """Return the value that an answer states, as digits where it is a number in words."""
    return _digits(unit_less(value(said)))


def _digits(text: str) -> str:
    return _NUMBER_WORDS.get(text.strip().lower(), text)


def _counted(said: str) -> str:
    """Return the number of an answer that counts something: "at least one number" is 1."""
    own = _COUNTED.match(said)
    return _digits(own[1]) if own else _found(said)


def _polarity(found: str, gold: str) -> bool | None:
    """Judge yes or no; where the gold answer says more than yes, a yes settles nothing."""
    first = re.match(r"\W*(yes|no)\b(?! \w)|\W*(yes)\b", found, re.IGNORECASE)
    yes, no = _YES.search(found), _NO.search(found)
    if first:
        said = (first[1] or first[2]).lower() == "yes"
    elif bool(yes) == bool(no):
        return None
    else:
        said = bool(yes)
    wanted = gold.startswith("Yes")
    if said != wanted:
        return False
    return True if gold in ("Yes", "No") else None


def _nothing(found: str) -> bool | None:
    if _NOTHING.search(found) or re.fullmatch(r"\W*(?:no|0)\W*", found, re.IGNORECASE):
        return True
    return _not_if(_DIGIT.search(found) or _YES.search(found))


def _not_if(sign: object) -> bool | None:
    """Return False on a sign of another answer, None without."""
    return False if sign else None


def _spelled(found: str, gold: str) -> bool | None:
    """Judge a statement that is no value: right as it is spelled, wrong with other relations."""
    if spelling(latex(found)) == spelling(latex(gold)):
        return True
    relations = [{sign for sign in "<>" if sign in text} for text in (found, gold)]
    return _not_if(relations[0] and relations[0] != relations[1])


def _phrase(found: str, gold: str) -> bool | None:
    """Judge words: right when all of the gold ones are there and nothing is denied."""
    wanted, said = set(words(gold).split()), set(words(found).split())
    return True if wanted <= said and bool(_NO.search(found)) == bool(_NO.search(gold)) else None


def _factors(found: str, gold: str) -> bool | None:
    """Judge a product: equal, and taken apart at least as far."""
    equal = same(latex(found), [latex(gold)])
    if equal and latex(found).count("(") < latex(gold).count("("):
        return False
    return equal


def _assigned(found: str, gold: str) -> bool | None:
    """Judge solutions in several unknowns, as a set of tuples."""
    wanted, said = _solutions(gold), _solutions(found)
    if not said:
        return None
    return said == wanted


def _solutions(text: str) -> frozenset[tuple[object, ...]]:
    """Return solutions, each in the order of its unknowns' names."""
    text = re.sub(r"\([a-z](?:\s*,\s*[a-z])+\)\s*=\s*", "", text)
    solutions: list[dict[str, str]] = []
    for name, told in _ASSIGNMENT.findall(text):
        if not solutions or name in solutions[-1]:
            solutions.append({})
        solutions[-1][name] = told
    tuples = [tuple(s[name] for name in sorted(s)) for s in solutions]
    if not tuples:
        tuples = [tuple(found.split(",")) for found in _TUPLE.findall(text)]
    return frozenset(tuple(_value(part) for part in parts) for parts in tuples)


def _value(text: str) -> object:
    spelled = spelling(text)
    figure = number(spelled)
    return spelled if figure is None else figure


def _list(found: str, gold: str) -> bool | None:
    """Judge one value or a list of them, in any order; equivalent spellings of the gold count."""
    golds = _EQUIVALENT.split(gold)
    if len(golds) > 1 or not _SEPARATOR.search(_outside(gold)):
        return _one(found, golds)
    wanted, said = _values(gold), _values(found)
    if len(wanted) != len(said):
        return False
    unsure = False
    for one in wanted:
        verdicts = [_one(own, [one]) for own in said]
        if True in verdicts:
            said.pop(verdicts.index(True))
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


def _one(found: str, golds: list[str]) -> bool | None:
    own = _NAMED.sub("", found).strip()
    if prose(own):
        # A sentence: some formula or number in it may be meant, but need not be.
        return None if undecided(own) else False
    verdict = same(latex(own), [latex(_NAMED.sub("", gold)) for gold in golds], integers=True)
    return None if verdict is False and _GAP.search(own) else verdict


def _values(text: str) -> list[str]:
    """Return the values of a list, with ± taken apart."""
    text = _NAMED.sub("", text.strip())
    outside = _outside(text)
    cuts = [(m.start(), m.end()) for m in _SEPARATOR.finditer(outside)]
    edges = [0, *(edge for cut in cuts for edge in cut), len(text)]
    parts = [text[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True)]
    parts = [_NAMED.sub("", part).strip() for part in parts if part]
    signed = [
        part.replace("±", sign).replace(r"\pm", sign)
        for part in parts
        for sign in ("+-" if "±" in part or r"\pm" in part else "+")
    ]
    return [part.removeprefix("+") for part in signed]


def _outside(text: str) -> str:
    """Return a text of the same length with blanks for what brackets hold."""
    depth, out = 0, []
    for char in text:
        depth += char in "([{"
        out.append(" " if depth > 0 else char)
        depth -= char in ")]}" and depth > 0
    # Blanks next to a comma would widen the separator into the brackets.
    return "".join(
        "_" if blank == " " and char != " " else blank
        for blank, char in zip(out, text, strict=True)
    )


CHAMP: Final = Benchmark(
    name="champ",
    columns=("problem", "answer"),
    read=read,
    grade=grade,
    blocking=True,
    repeats=True,
    default_split="test",
    files={"test": "champ.jsonl"},
    instruction=INSTRUCTION,
)
