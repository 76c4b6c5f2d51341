"""MuSiQue: a question of two to four hops over twenty paragraphs (Trivedi et al. 2022).

A file's rows have `question`, `paragraphs` and `answer`, and may have `answer_aliases`. Scored as
by the published script: SQuAD's normalisation, the most over the answer and its aliases; exact
match is right, F1 the score. The script is given bare answers; here, where a model writes a line
"Answer: ...", what stands after the last such mark is its answer, else all that it wrote. The gold
answer is JSON text. Leaves out: supporting paragraphs, and questions without an answer.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from r2reasoner.benchmarks.base import Benchmark, text_of
from r2reasoner.benchmarks.hub import Hub
from r2reasoner.types import Task

INSTRUCTION: Final = """\
Answer the question from the paragraphs. Reply with the answer alone, in as few words as can be."""

_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_MARK: Final = re.compile(
    r"^[ \t*_#>]*(?:final |the )?answer(?:[*_ ]*:[*_ ]*| is:? )(.*)$", re.IGNORECASE | re.MULTILINE
)


def read(row: Mapping[str, Any]) -> Task:
    """Return a row's task; the paragraphs stand in the query, as ordered there.

    Raises KeyError and ValueError, the latter also for a question that cannot be answered.
    """
    question, answer = text_of(row, "question"), text_of(row, "answer")
    if row.get("answerable", True) is not True:
        raise ValueError("answerable: expected true; questions without an answer are not scored")
    aliases = row.get("answer_aliases") or []
    if not isinstance(aliases, list) or not all(isinstance(a, str) for a in aliases):
        raise ValueError("answer_aliases: expected a list of texts")
    if not normalise(answer):
        raise ValueError(f"answer {answer[:60]!r} is nothing to score against")
    paragraphs = _paragraphs(row["paragraphs"])
    query = "\n\n".join((*paragraphs, f"Question: {question.strip()}"))
    return Task(query, json.dumps({"answer": answer, "aliases": aliases}))


def grade(answer: str, gold: str) -> bool | None:
    """Tell whether an answer is the gold one or an alias, normalised; None without a gold one."""
    golds = _golds(gold)
    if golds is None:
        return None
    given = normalise(answer_of(answer))
    return any(given == normalise(each) for each in golds)


def score(answer: str, gold: str) -> float | None:
    """Return the F1 of an answer's words, the most over the gold answer and its aliases."""
    golds = _golds(gold)
    if golds is None:
        return None
    given = normalise(answer_of(answer)).split()
    return max(_f1(given, normalise(each).split()) for each in golds)


def answer_of(text: str) -> str:
    """Return what a text marks as its answer, or all of it."""
    marked: list[str] = _MARK.findall(text)
    return marked[-1] if marked and marked[-1].strip() else text


def normalise(text: str) -> str:
    """Return a text as SQuAD compares it: lower case, without punctuation and articles."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(given: list[str], gold: list[str]) -> float:
    if not given or not gold:
        return float(given == gold)
    same = (Counter(given) & Counter(gold)).total()
    return 2 * same / (len(given) + len(gold))


def _golds(gold: str) -> list[str] | None:
    try:
        parsed = json.loads(gold)
        golds = [parsed["answer"], *parsed["aliases"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return golds if all(isinstance(each, str) for each in golds) else None


def _paragraphs(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError("paragraphs: expected a list of them")
    made = []
    for number, paragraph in enumerate(value, 1):
        if not isinstance(paragraph, dict):
            raise ValueError(f"paragraphs: {number}: expected an object")
        try:
            title, text = text_of(paragraph, "title"), text_of(paragraph, "paragraph_text")
        except KeyError as error:
            raise ValueError(f"paragraphs: {number}: no {error}") from None
        except ValueError as error:
            raise ValueError(f"paragraphs: {number}: {error}") from None
        made.append(f"{title.strip()}\n{text.strip()}")
    return made


MUSIQUE: Final = Benchmark(
    name="musique",
    columns=("question", "paragraphs", "answer"),
    read=read,
    grade=grade,
    score=score,
    default_split="dev",
    files={"dev": "musique_ans_dev200.jsonl"},
    hub=Hub(
        dataset="bdsaglam/musique",
        config="answerable",
        revision="22873a405dd809893b22ada0b499299fb612d2df",
        splits={"dev": "validation", "train": "train"},
    ),
    instruction=INSTRUCTION,
)
