"""Candidate plans for the nano tasks: where a prompted LLM stands for real tasks.

A proposer knows how texts can be cut (spans of the query, references, repetitions, joins), not
which cut is right: it proposes many, most of them wrong, and the run decides. Nothing here is
used after training.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Final, NamedTuple

from r2reasoner.nano.scan import REPEATS
from r2reasoner.plan import direct, expand, take_step, write_line
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


def propose(
    query: str, *, known: Mapping[str, Plan] | None = None, primitives: bool = False
) -> list[Candidate]:
    """Return candidate plans, always with the direct one first.

    `known` are plans already found for parts of commands. With `primitives`, parts may be made of
    a turn and a verb, done once each and joined.
    """
    candidates = [Candidate(direct(query), ((query, "="),))]
    if any(c.isdigit() for c in query):
        more = _steps(query)
    else:
        more = _cuts(query, known or {}, primitives=primitives)
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
                plan = Plan((*(Subtask(s) for s in steps), Subtask(rest)), f"#{len(steps) + 1}")
                yield Candidate(plan, (*lines, (rest, "=")))
            return
        for span in spans:
            after = take_step(rest, span, len(steps) + 1)
            yield from grow(after, (*steps, span), (*lines, (rest, f"{span} ...")))

    yield from grow(query, (), ())


def _spans(text: str) -> list[str]:
    """Spans that hold one operation, with their brackets where they have them, left to right."""
    spans: list[str] = []
    for match in _WINDOW.finditer(text):
        span = match.group(1) or match.group(0)
        if span not in spans and not any(f"( {span} )" == other for other in spans):
            spans.append(span)
    return spans


def _cuts(query: str, known: Mapping[str, Plan], *, primitives: bool) -> Iterator[Candidate]:
    """Cut at conjunctions, plan each part, and put the parts' plans together in either order."""
    for parts, order in _parts(query.split()):
        options = [_part_plans(part, known, primitives=primitives) for part in parts]
        for plans in product(*options):
            plan = _merge(plans, order)
            if not plan.is_direct:
                yield Candidate(plan, ((query, write_line(plan)),))


def _parts(words: list[str]) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Yield the whole text, and its two sides at each place where it can be cut, in both orders."""
    yield [words], [0]
    for at in (i for i, word in enumerate(words) if word in ("and", "after") and i > 0):
        sides = [words[:at], words[at + 1 :]]
        if all(sides):
            yield sides, [0, 1]
            yield sides, [1, 0]


def _part_plans(part: list[str], known: Mapping[str, Plan], *, primitives: bool) -> list[Plan]:
    """Plans of a part: what was found for it before, else guesses; and the part as it stands."""
    text = " ".join(part)
    as_it_stands = Plan((Subtask(text),), "#1")
    if text in known:
        return [known[text], as_it_stands]
    guesses: list[Plan] = []
    if len(part) > 1 and part[-1] in REPEATS:
        guesses += [p for n in (2, 3) for p in _repeated(part[:-1], n, primitives=primitives)]
    if primitives:
        guesses += _repeated(part, 1, primitives=True)
    return [*guesses, as_it_stands]


def _repeated(words: list[str], times: int, *, primitives: bool) -> list[Plan]:
    """Plans that do some words once and repeat the answer; with primitives, in two pieces too."""
    plans = [Plan((Subtask(" ".join(words)),), " ".join(["#1"] * times))]
    if primitives and len(words) > 1:
        pieces = (Subtask(f"turn {words[-1]}"), Subtask(words[0]))
        for firsts, pairs in product((1, 2), (1, 2, 4)):
            join = Subtask(" ".join([*["#1"] * firsts, "#2"] * pairs))
            plans.append(Plan((*pieces, join), " ".join(["#3"] * times)))
    return plans


def _merge(plans: Sequence[Plan], order: Sequence[int]) -> Plan:
    """Put plans side by side, equal subtasks once; the answers follow each other in `order`."""
    subtasks: list[Subtask] = []
    answers: list[str] = []
    for plan in plans:
        new: dict[int, str] = {}
        for number, subtask in enumerate(plan.subtasks, 1):
            moved = Subtask(expand(subtask.text, new))
            if moved not in subtasks:
                subtasks.append(moved)
            new[number] = f"#{subtasks.index(moved) + 1}"
        answers.append(expand(plan.answer, new))
    return Plan(tuple(subtasks), " ".join(answers[i] for i in order))
