"""Candidate plans for the nano tasks: where a prompted LLM stands for real tasks.

A proposer knows how texts can be cut (spans of the query, references, repetitions, joins), not
which cut is right: it proposes many, most of them wrong, and the run decides. Nothing here is
used after training.
"""

import re
from collections.abc import Iterator
from itertools import product
from typing import Final, NamedTuple

from r2reasoner.nano.scan import REPEATS
from r2reasoner.plan import direct, take_step, write_line
from r2reasoner.types import Plan, Subtask

MOST_CANDIDATES: Final = 40
_ATOM: Final = r"(?:#?\d+)"
_WINDOW: Final = re.compile(
    rf"\( {_ATOM} [-+*] {_ATOM} \)|(?=(?<![\d#])({_ATOM} [-+*] {_ATOM})(?!\d))"
)


class Candidate(NamedTuple):
    """A plan, and the (asked, written) lines by which a policy writes it."""

    plan: Plan
    lines: tuple[tuple[str, str], ...]


def propose(query: str) -> list[Candidate]:
    """Return candidate plans, always with the direct one first."""
    candidates = [Candidate(direct(query), ((query, "="),))]
    more = _steps(query) if any(c.isdigit() for c in query) else _cuts(query)
    for candidate in more:
        if len(candidates) == MOST_CANDIDATES:
            break
        if candidate.plan != candidates[0].plan:
            candidates.append(candidate)
    return candidates


def _steps(query: str) -> Iterator[Candidate]:
    """All orders of doing one operation of the text at a time, leftmost first."""

    def grow(
        rest: str, steps: tuple[str, ...], lines: tuple[tuple[str, str], ...]
    ) -> Iterator[Candidate]:
        spans = [span for span in _spans(rest) if span != rest]
        if not spans or len(steps) == 6:
            if steps and not Subtask(rest).is_join:
                plan = Plan(
                    (*(Subtask(s) for s in steps), Subtask(rest)), f"#{len(steps) + 1}"
                )
                yield Candidate(plan, (*lines, (rest, "=")))
            return
        for span in spans:
            after = take_step(rest, span, len(steps) + 1)
            yield from grow(after, (*steps, span), (*lines, (rest, f"{span} ...")))

    yield from grow(query, (), ())


def _spans(text: str) -> list[str]:
    """Spans that hold one operation, with their brackets where they have them, left to right."""
    spans = []
    for match in _WINDOW.finditer(text):
        span = match.group(1) or match.group(0)
        if span not in spans and not any(f"( {span} )" == other for other in spans):
            spans.append(span)
    return spans


def _cuts(query: str) -> Iterator[Candidate]:
    """Cut at conjunctions; take the last word of a part as a repetition in the template, or not."""
    for parts, order in _parts(query.split()):
        for repeats in product(*(_repeats(part) for part in parts)):
            texts: list[str] = []
            for text, _ in repeats:
                if text not in texts:
                    texts.append(text)
            references = [f"#{texts.index(text) + 1}" for text, _ in repeats]
            answer = " ".join(
                " ".join([references[i]] * repeats[i][1]) for i in order
            )
            plan = Plan(tuple(Subtask(text) for text in texts), answer)
            if plan.is_direct:
                continue
            yield Candidate(plan, ((query, write_line(plan)),))


def _parts(words: list[str]) -> Iterator[tuple[list[list[str]], list[int]]]:
    """The whole text, and its two sides at each place where it can be cut, in both orders."""
    yield [words], [0]
    for at in (i for i, word in enumerate(words) if word in ("and", "after") and 0 < i):
        sides = [words[:at], words[at + 1 :]]
        if all(sides):
            yield sides, [0, 1]
            yield sides, [1, 0]


def _repeats(part: list[str]) -> list[tuple[str, int]]:
    """A part without its last word, repeated up to three times; the part as it stands."""
    whole = [(" ".join(part), 1)]
    if len(part) > 1 and part[-1] in REPEATS:
        return [(" ".join(part[:-1]), n) for n in (2, 3)] + whole
    return whole
