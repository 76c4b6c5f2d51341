"""Plan text and JSON to Plan, and the rules of a valid plan; nothing else decides validity.

Two codecs. The *line format* is what trained policies write:

    walk left ; run ; = #1 #1 #2      subtasks, then the answer as a template over answers
    34 * 5 ; 12 + #1                  without a template the last subtask's answer is the answer
    34 * 5 ...                        one step: the rest of the query is planned by asking again
    =                                 no decomposition: answer the query directly

JSON by `PLAN_SCHEMA` is what prompted models write; `read_prose` also takes the numbered lists
that they write when nothing makes them write JSON. A plan that breaks a rule is a PlanError.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, NamedTuple

from r2reasoner.errors import PlanError, PlanFault
from r2reasoner.types import REFERENCE, Plan, Subtask

MAX_SUBTASKS: Final = 16
MAX_BYTES: Final = 65_536
MAX_ANSWER_REFERENCES: Final = 64
MAX_CONTEXT: Final = 2000
MAX_EXPANDED: Final = 1 << 20

PLAN_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "subtasks": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "needs": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["text", "needs"],
                "additionalProperties": False,
            },
        },
        "answer": {"type": "string"},
    },
    "required": ["subtasks", "answer"],
    "additionalProperties": False,
}


def _in_conversation(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of plans whose subtasks also say whether they need the conversation."""
    schema = deepcopy(schema)
    subtask = schema["properties"]["subtasks"]["items"]
    subtask["properties"]["needs_conversation"] = {"type": "boolean"}
    subtask["required"].append("needs_conversation")
    return schema


CONVERSATION_SCHEMA: Final = _in_conversation(PLAN_SCHEMA)

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# No two neighbouring repetitions of these match the same character: linear on any text.
_FENCE: Final = re.compile(r"```(.*?)```", re.DOTALL)
_NUMBERED: Final = re.compile(
    r"[-*#\s]*(?:(?:sub-?task|step|question)\s*)?([0-9]{1,3})\s*(?:\*\*\s*)?[.):]+\s*(.*)",
    re.IGNORECASE,
)
_STEP_WORDS: Final = re.compile(r"\b(?:step|sub-?task|question)s?\s+(\d{1,3})\b", re.IGNORECASE)


class Written(NamedTuple):
    """What a policy wrote in the line format. `more`: the rest of the query is still to plan."""

    subtasks: tuple[str, ...]
    answer: str | None
    more: bool


def direct(query: str) -> Plan:
    """Return the plan that answers the query by one call."""
    return Plan((Subtask(without_references(query)),), "#1")


def without_references(query: str) -> str:
    """Return a query with its own `#1` as plain text: it is no plan, so nothing in it refers."""
    return REFERENCE.sub(r"no. \1", query)


def validate(plan: Plan, *, max_subtasks: int = MAX_SUBTASKS, max_bytes: int = MAX_BYTES) -> Plan:
    """Return the plan if it keeps every rule, else raise PlanError naming the broken one."""
    count = len(plan.subtasks)
    if count == 0:
        raise PlanError(PlanFault.EMPTY, "expected at least one subtask")
    if count > max_subtasks:
        raise PlanError(PlanFault.TOO_MANY, f"{count} subtasks; at most {max_subtasks} are run")
    texts = (*(s.text for s in plan.subtasks), plan.answer)
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if size > max_bytes:
        raise PlanError(PlanFault.TOO_LARGE, f"{size} bytes; at most {max_bytes}")
    for number, subtask in enumerate(plan.subtasks, 1):
        _check_subtask(number, subtask, count)
    _check_order(plan)
    if len(set(plan.subtasks)) < count:
        twice = next(s for s in plan.subtasks if plan.subtasks.count(s) > 1)
        raise PlanError(PlanFault.DUPLICATE, f"the subtask {_cut(twice.text)} stands twice")
    _check_answer(plan.answer, count)
    return plan


def _check_subtask(number: int, subtask: Subtask, count: int) -> None:
    if not subtask.text.strip():
        raise PlanError(PlanFault.BLANK, f"subtask {number} has no text")
    if _CONTROL.search(subtask.text):
        raise PlanError(PlanFault.CONTROL, f"subtask {number} has control characters")
    for other in subtask.dependencies:
        if not 1 <= other <= count:
            raise PlanError(
                PlanFault.DANGLING, f"subtask {number} refers to #{other}; there are {count}"
            )


def _check_order(plan: Plan) -> None:
    graph = {n: s.dependencies for n, s in enumerate(plan.subtasks, 1)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        ring = " -> ".join(f"#{n}" for n in error.args[1][:8])
        raise PlanError(PlanFault.CYCLE, f"subtasks wait for each other: {ring}") from None
    for number, others in graph.items():
        if any(other >= number for other in others):
            raise PlanError(
                PlanFault.FORWARD, f"subtask {number} refers to a later one: #{max(others)}"
            )


def _check_answer(answer: str, count: int) -> None:
    references = [int(n) for n in REFERENCE.findall(answer)]
    if not references or len(references) > MAX_ANSWER_REFERENCES:
        raise PlanError(
            PlanFault.ANSWER,
            f"the answer template names {len(references)} answers;"
            f" expected 1 to {MAX_ANSWER_REFERENCES}",
        )
    if any(not 1 <= n <= count for n in references):
        raise PlanError(PlanFault.DANGLING, f"the answer refers to #{max(references)} of {count}")
    if any(c.isalnum() or _CONTROL.match(c) for c in REFERENCE.sub("", answer)):
        raise PlanError(
            PlanFault.ANSWER,
            f"the answer template {_cut(answer)} may hold references and separators only",
        )


def expand(template: str, answers: Mapping[int, str]) -> str:
    """Put answers in the place of references, once: what an answer contains is not expanded.

    Raises PlanError(TOO_LARGE) where references to references would blow the text up.
    """
    size = sum(len(answers[int(n)]) for n in REFERENCE.findall(template))
    if size > MAX_EXPANDED:
        raise PlanError(
            PlanFault.TOO_LARGE,
            f"{_cut(template)} with answers put in has {size} characters; at most {MAX_EXPANDED}",
        )
    return REFERENCE.sub(lambda match: answers[int(match.group(1))], template)


def read_line(text: str) -> Written:
    """Read the line format. Raises PlanError(UNREADABLE, EMPTY or TOO_LARGE)."""
    _check_size(text)
    text = text.strip()
    if not text:
        raise PlanError(PlanFault.EMPTY, "nothing was written")
    if text == "=":
        return Written((), None, more=False)
    more = text.endswith("...")
    parts = [part.strip() for part in text.removesuffix("...").split(";")]
    answer = None
    if parts[-1].startswith("="):
        answer = parts.pop()[1:].strip()
    if more and answer is not None:
        raise PlanError(PlanFault.UNREADABLE, "a step that goes on has no answer template")
    if any("=" in part for part in parts):
        raise PlanError(PlanFault.UNREADABLE, f"an answer template before the end: {_cut(text)}")
    return Written(tuple(parts), answer, more)


def write_line(plan: Plan) -> str:
    """Write a whole plan in the line format; `needs` beyond references cannot be written."""
    if plan.is_direct:
        return "="
    texts = " ; ".join(s.text for s in plan.subtasks)
    return texts if plan.answer == f"#{len(plan.subtasks)}" else f"{texts} ; = {plan.answer}"


def whole(written: Written) -> Plan:
    """Return the (unvalidated) plan of a line that has no step to go on from.

    A text that is written twice is one subtask: the same model would be asked the same.
    """
    answer = written.answer if written.answer is not None else f"#{len(written.subtasks)}"
    numbers: dict[Subtask, int] = {}
    new: dict[int, str] = {}
    for number, text in enumerate(written.subtasks, 1):
        place = numbers.setdefault(Subtask(_renumber(text, new)), len(numbers) + 1)
        new[number] = f"#{place}"
    return Plan(tuple(numbers), _renumber(answer, new))


def _renumber(text: str, new: Mapping[int, str]) -> str:
    """Rename references; one that `new` lacks stays, for `validate` to name."""
    return REFERENCE.sub(lambda match: new.get(int(match.group(1)), match.group(0)), text)


def take_step(query: str, step: str, number: int) -> str:
    """Return the query with the first occurrence of a step replaced by `#number`.

    Raises PlanError(UNREADABLE) where the step is no span of the query.
    """
    there = step != "" and step in query
    span = re.search(rf"(?<![\w#]){re.escape(step)}(?!\w)", query) if there else None
    if span is None:
        raise PlanError(PlanFault.UNREADABLE, f"the step {_cut(step)} is no part of {_cut(query)}")
    return f"{query[: span.start()]}#{number}{query[span.end() :]}"


def in_context(plan: Plan, number: int) -> str:
    """Return a subtask's text, each reference followed by the text that it stands for.

    `#1 + 58` becomes `# [ 27 + 64 ] + 58`: what is known of a subtask before anything has run.
    What is longer than MAX_CONTEXT characters is cut at every level, so that it cannot explode.
    """
    known: dict[int, str] = {}

    def unfold(match: re.Match[str]) -> str:
        return f"# [ {known[int(match.group(1))]} ]"

    for n, subtask in enumerate(plan.subtasks[:number], 1):
        known[n] = REFERENCE.sub(unfold, subtask.text[:MAX_CONTEXT])[:MAX_CONTEXT]
    return known[number]


def read_json(text: str) -> Plan:
    """Read the JSON of PLAN_SCHEMA (bare, in a code fence or among prose) into an unvalidated plan.

    Raises PlanError(UNREADABLE, ANSWER or TOO_LARGE).
    """
    _check_size(text)
    fenced = _FENCE.search(text)
    # a fence after the first brace stands inside the JSON, in some subtask's text
    body = fenced.group(1) if fenced and "{" not in text[: fenced.start()] else text
    body = body[body.find("{") : body.rfind("}") + 1]
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise PlanError(PlanFault.UNREADABLE, f"expected JSON, got {_cut(text)}") from None
    if not isinstance(document, dict) or not isinstance(document.get("subtasks"), list):
        raise PlanError(PlanFault.UNREADABLE, 'expected {"subtasks": [...], "answer": "..."}')
    subtasks = tuple(_read_subtask(item) for item in document["subtasks"])
    answer = document.get("answer") or f"#{len(subtasks)}"
    if not isinstance(answer, str):
        raise PlanError(PlanFault.ANSWER, "expected the answer template as text")
    return Plan(subtasks, answer)


def _read_subtask(item: Any) -> Subtask:
    match item:
        case str():
            return Subtask(item)
        case {"text": str(text), "needs": list(needs)} if all(type(n) is int for n in needs):
            # only a plain no spares the conversation: what is unclear is sent
            return Subtask(text, tuple(needs), item.get("needs_conversation") is not False)
        case {"text": str(text)} if item.keys() == {"text"}:
            return Subtask(text)
    raise PlanError(PlanFault.UNREADABLE, 'expected each subtask as {"text": "...", "needs": []}')


def read_prose(text: str) -> Plan:
    """Read a numbered list ("1. ...", "Step 2: ...") into an unvalidated plan.

    "step 3" in a text makes it need subtask 3; a list that says nothing of the kind is a chain,
    as the paper reads it. Raises PlanError(UNREADABLE or TOO_LARGE).
    """
    _check_size(text)
    found: list[list[str]] = []
    for line in text.splitlines():
        match = _NUMBERED.match(line)
        if match and int(match.group(1)) == len(found) + 1:
            found.append([match.group(2).strip()])
        elif found and line.strip():
            found[-1].append(line.strip())
    steps = [" ".join(lines) for lines in found]
    if not steps:
        raise PlanError(PlanFault.UNREADABLE, f"expected numbered steps, got {_cut(text)}")
    named = [_named_steps(step, number) for number, step in enumerate(steps, 1)]
    if not any(named):
        named = [(number - 1,) if number > 1 else () for number in range(1, len(steps) + 1)]
    return Plan(
        tuple(Subtask(_clean(s), needs) for s, needs in zip(steps, named, strict=True)),
        f"#{len(steps)}",
    )


def _named_steps(step: str, number: int) -> tuple[int, ...]:
    named = {int(n) for n in _STEP_WORDS.findall(step)}
    return tuple(sorted(n for n in named if n != number))


def read_graph(steps: Sequence[str], edges: Iterable[tuple[int, int]]) -> Plan:
    """Return the (unvalidated) plan of steps and edges (from, to), numbered from 1.

    Steps are renumbered where an edge points backwards, so only real cycles remain faults. The
    answer is the last of the steps that nothing else needs.
    """
    needs: dict[int, set[int]] = {n: set() for n in range(1, len(steps) + 1)}
    for before, after in edges:
        if before not in needs or after not in needs:
            raise PlanError(
                PlanFault.DANGLING, f"an edge {before} -> {after} of {len(steps)} steps"
            )
        needs[after].add(before)
    if not steps:
        raise PlanError(PlanFault.EMPTY, "expected at least one step")
    if not all(isinstance(step, str) for step in steps):
        raise PlanError(PlanFault.UNREADABLE, "expected every step as text")
    order = _stable_order(needs)
    new = {old: i for i, old in enumerate(order, 1)}
    subtasks = tuple(
        Subtask(_clean(steps[old - 1]), tuple(sorted(new[n] for n in needs[old]))) for old in order
    )
    inner = {n for s in subtasks for n in s.needs}
    return Plan(subtasks, f"#{max(set(new.values()) - inner)}")


def _stable_order(needs: Mapping[int, set[int]]) -> list[int]:
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError as error:
        ring = " -> ".join(str(n) for n in error.args[1][:8])
        raise PlanError(PlanFault.CYCLE, f"steps wait for each other: {ring}") from None
    order: list[int] = []
    ready: set[int] = set()
    while sorter.is_active():
        ready.update(sorter.get_ready())
        first = min(ready)
        ready.remove(first)
        order.append(first)
        sorter.done(first)
    return order


def _clean(step: str) -> str:
    """Drop the quotes and marks around a step, and take the `#1` of prose as text."""
    return without_references(step.strip().strip("*").strip().strip('"').strip())


def _check_size(text: str) -> None:
    if len(text) > 4 * MAX_BYTES:
        raise PlanError(PlanFault.TOO_LARGE, f"{len(text)} characters; at most {4 * MAX_BYTES}")


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
