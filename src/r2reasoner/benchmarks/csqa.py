"""CommonsenseQA: a question and five choices; right is the letter (Talmor et al. 2019).

A file's rows have `stem`, `choices` (letter -> text) and `answer` (a letter). The letter is looked
for in what models write: alone, marked as the answer, before a line, or as the only one named; a
choice's text, alone or marked, counts as its letter. An answer that names none, or several of
which none is marked, is wrong. The gold answer is JSON text, for the choices belong to it; a
letter alone will do where they are not known. Leaves out: choices named in passing, in prose.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from r2reasoner.benchmarks.base import Benchmark, text_of
from r2reasoner.benchmarks.hub import Hub
from r2reasoner.types import Task

INSTRUCTION: Final = "Choose the best answer to the question. Reply with its letter alone."
LETTERS: Final = "ABCDE"
MOST_READ: Final = 5_000
"""Characters of an answer that are read, from its end: models say last what they chose."""

Choices: TypeAlias = Mapping[str, str]

_OPEN: Final = r"[\s*_\"'`(\[{$:]*"
_FILLER: Final = (
    r"(?:(?:option|choice|letter|answer|most likely|probably|likely|clearly|definitely"
    rf"|\\boxed|\\text)\b{_OPEN}){{0,3}}"
)
_MARK: Final = re.compile(
    r"(?:"
    r"\b(?:answer|(?:correct|best|right|final) (?:option|choice|letter))\b"
    r"[^.\n:=?!]{0,60}?(?:\b(?:is|be)\b|[:=])"
    r"|\bI(?:'d| would| will|'ll)? (?:choose|chose|pick|select|go with)\b"
    rf"|\\boxed|\#{{4}}){_OPEN}{_FILLER}",
    re.IGNORECASE,
)
_CALLED_RIGHT: Final = re.compile(
    r"(?<![\w'’])([A-Z])[)\]*\"'`]*(?:[.:] [^.\n]{1,60})? (?:is|seems|would be|must be) "
    r"(?:clearly |probably |likely )?(?:the )?(?:most \w+ |best |correct |right |only )*"
    r"(?:answer|choice|option|correct|right|best)\b"
)
_IT_IS: Final = re.compile(r"\b[Ii]t(?:['’]s| is| must be) \(?([A-Z])(?![\w'’])")
_TOLD: Final = (_CALLED_RIGHT, _IT_IS)
_LETTER: Final = re.compile(r"([A-Z])(?![\w'’])|([a-z])(?=[)\]}*\"'`$.,;]*\s*(?:$|\n))")
_ANOTHER: Final = re.compile(r"[)\]*\s]*(?:,|/|&|\bor\b|\band\b)[\s(\[*]*([A-Z])(?![\w'’])")
_LINE: Final = re.compile(r"^[^\w\n]*([A-Z])[*_`]*[).:\]]", re.MULTILINE)
_NAMED: Final = re.compile(r"(?<![\w'’])([A-Z])(?![\w'’])")
_ARTICLE: Final = re.compile(r"(?:^|[.!?:\n]\s*)A(?= [a-z])(?! (?:or|and) )")
_DENIED: Final = re.compile(
    r"\b(?:not|wrong|incorrect|except|neither|nor|rule[sd]? out)\b|n['’]t\b"
)
_TEXT_ENDS: Final = re.compile(r"[.,;:\n(!?]|\b(?:because|since|as|which|where)\b")


def read(row: Mapping[str, Any]) -> Task:
    """Return a row's task; the choices stand in the query. Raises KeyError and ValueError."""
    choices = row["choices"]
    if not isinstance(choices, dict) or len(choices) < 2:
        raise ValueError("choices: expected an object of letters and texts, at least two")
    for letter, text in choices.items():
        if not re.fullmatch("[A-Z]", letter):
            raise ValueError(f"choices: expected capital letters, got {letter[:20]!r}")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"choices: {letter}: expected a text")
    answer = text_of(row, "answer").strip()
    if answer not in choices:
        raise ValueError(f"answer {answer[:20]!r} is none of the choices {', '.join(choices)}")
    lines = (f"{letter}. {text.strip()}" for letter, text in choices.items())
    query = "\n".join((text_of(row, "stem").strip(), *lines))
    return Task(query, json.dumps({"answer": answer, "choices": choices}))


def grade(answer: str, gold: str) -> bool | None:
    """Tell whether an answer names the right letter; None where the gold text has none."""
    wanted = _gold(gold)
    if wanted is None:
        return None
    letter, choices = wanted
    return letter_of(answer, choices) == letter


def letter_of(answer: str, choices: Choices) -> str | None:
    """Return the letter that an answer names; None where it is none of the choices, or several."""
    text = answer[-MOST_READ:].strip()
    lines = text.splitlines() or [""]
    looks: tuple[Callable[[], set[str]], ...] = (
        lambda: _alone(text, choices),
        lambda: _marked(text, choices),
        lambda: _alone(lines[-1], choices),
        lambda: _alone(lines[0], choices),
        lambda: set(_LINE.findall(text)),
        lambda: _named(text),
    )
    found = next((letters for look in looks if (letters := look())), set())
    letter = found.pop() if len(found) == 1 else None
    return letter if letter in choices else None


def _alone(text: str, choices: Choices) -> set[str]:
    """Return the letter that a text is nothing but, a choice's text beside it or in its place."""
    if bare := re.fullmatch(r"\W*([A-Za-z])\W*", text):
        return {bare[1].upper()}
    with_text = re.fullmatch(r"\W*([A-Za-z])[).:\]\-–— ]+(.*)", text)
    if with_text and (letter := with_text[1].upper()) in choices:
        own = _plain(choices[letter])
        if own and _plain(with_text[2]) == own:
            return {letter}
    return _with_text(text, choices)


def _marked(text: str, choices: Choices) -> set[str]:
    """Return what the last mark of an answer marks; several letters where it marks several."""
    called = [(m.start(), {m[1]}) for told in _TOLD for m in told.finditer(text)]
    marks = [(m.start(), _after(text, m.end(), choices)) for m in _MARK.finditer(text)]
    return next((letters for _, letters in sorted(called + marks, reverse=True) if letters), set())


def _after(text: str, start: int, choices: Choices) -> set[str]:
    """Return what stands right after a mark: a letter, or the text of a choice."""
    rest = text[start : start + 200]
    if _DENIED.match(rest):
        return set()
    by_text = _with_text(_TEXT_ENDS.split(rest, maxsplit=1)[0], choices)
    if by_text or not (letter := _LETTER.match(rest)):
        return by_text
    letters = {letter[0].upper()}
    if other := _ANOTHER.match(rest, letter.end()):
        letters.add(other[1])
    return letters


def _named(text: str) -> set[str]:
    """Return the letters named anywhere, "A" as an article aside; none where something is denied.

    "It is not B" names B alone, and means another.
    """
    if _DENIED.search(text):
        return set()
    return set(_NAMED.findall(_ARTICLE.sub(" ", text))) - {"I"}


def _with_text(text: str, choices: Choices) -> set[str]:
    plain = _plain(text)
    return {letter for letter, own in choices.items() if plain and _plain(own) == plain}


def _plain(text: str) -> str:
    """Return a text's words, without case, marks and a first article."""
    words = re.sub(r"[^\w\s]", "", text.casefold().replace("_", " ")).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def _gold(gold: str) -> tuple[str, Choices] | None:
    if gold.strip() in LETTERS and len(gold.strip()) == 1:
        return gold.strip(), dict.fromkeys(LETTERS, "")
    try:
        parsed = json.loads(gold)
        letter, choices = parsed["answer"], parsed["choices"]
        return (letter, choices) if all(map(str.strip, choices.values())) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def from_hub(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row of the hub's dataset as the files have it."""
    choices = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
    return {
        "id": row["id"],
        "concept": row["question_concept"],
        "stem": row["question"],
        "choices": choices,
        "answer": row["answerKey"],
    }


CSQA: Final = Benchmark(
    name="csqa",
    columns=("stem", "choices", "answer"),
    read=read,
    grade=grade,
    default_split="dev",
    files={"dev": "dev.jsonl", "train": "train.jsonl"},
    hub=Hub(
        dataset="tau/commonsense_qa",
        revision="94630fe30dad47192a8546eb75f094926d47e155",
        splits={"dev": "validation", "train": "train"},
        row=from_hub,
    ),
    instruction=INSTRUCTION,
)
