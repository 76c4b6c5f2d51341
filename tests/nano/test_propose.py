"""The proposer: plans that are valid and can be written, and a right one among them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.propose import MOST_CANDIDATES, Candidate, propose
from r2reasoner.plan import direct, expand, read_line, take_step, validate, whole
from r2reasoner.types import Plan, Subtask

ALL_SIDES: frozenset[arithmetic.Side] = frozenset({"train", "dev", "test", "values"})
COMMANDS = st.sampled_from(scan.commands())
EXPRESSIONS = st.builds(
    lambda operands, seed: arithmetic.sample(operands, ALL_SIDES, random.Random(seed)),
    st.integers(2, 4),
    st.integers(0, 10**6),
)


def perfect(text: str) -> str:
    """Answer as a worker would that is never wrong."""
    if any(c.isdigit() for c in text):
        return str(arithmetic.value_of(arithmetic.parse(text)))
    return scan.interpret(text)


def run(plan: Plan) -> str | None:
    """Return the plan's answer with perfect workers, None where a subtask means nothing."""
    answers: dict[int, str] = {}
    for number, subtask in enumerate(plan.subtasks, 1):
        text = expand(subtask.text, answers)
        try:
            answers[number] = text if subtask.is_join else perfect(text)
        except ValueError:
            return None
    return expand(plan.answer, answers)


def written_by(candidate: Candidate) -> Plan:
    """Return the plan that a policy writes which answers each question with its line."""
    steps: list[Subtask] = []
    rest = candidate.lines[0][0]
    for asked, line in candidate.lines:
        assert asked == rest
        written = read_line(line)
        if not written.more:
            if written.subtasks:
                assert not steps
                return whole(written)
            return Plan((*steps, Subtask(rest)), f"#{len(steps) + 1}")
        (text,) = written.subtasks
        rest = take_step(rest, text, len(steps) + 1)
        steps.append(Subtask(text))
    raise AssertionError("the last line goes on")


@given(COMMANDS)
def test_a_command_has_valid_plans_with_a_right_one_among_them(command: str) -> None:
    candidates = propose(command)
    assert candidates[0].plan == direct(command)
    assert 1 <= len(candidates) <= MOST_CANDIDATES
    for candidate in candidates:
        assert written_by(candidate) == validate(candidate.plan)
    right = [c for c in candidates if run(c.plan) == scan.interpret(command)]
    assert right
    if {"and", "after"} & set(command.split()):
        assert any(len(c.plan.subtasks) > 1 or c.plan.answer != "#1" for c in right)


@given(EXPRESSIONS)
def test_an_expression_has_valid_plans_with_one_operation_at_a_time(node: arithmetic.Node) -> None:
    query = arithmetic.render(node)
    candidates = propose(query)
    assert candidates[0].plan == direct(query)
    assert len(candidates) <= MOST_CANDIDATES
    for candidate in candidates:
        assert written_by(candidate) == validate(candidate.plan)
    stepped = [c for c in candidates if run(c.plan) == str(node.value)]
    operations = len(list(arithmetic.operations(node)))
    assert any(len(c.plan.subtasks) == operations for c in stepped)


def test_the_proposer_does_not_know_which_plan_is_right() -> None:
    wrong = [c for c in propose("walk left twice after run") if run(c.plan) is None]
    other = [run(c.plan) for c in propose("walk left twice after run")]
    assert wrong or len(set(other)) > 1
    assert {run(c.plan) for c in propose("12 - 3 * 2")} == {"6", "18"}


@given(st.sampled_from([p for p in scan.phrases() if len(p.split()) > 1]))
def test_primitives_are_offered_where_they_are_asked_for(phrase: str) -> None:
    plain, more = propose(phrase), propose(phrase, primitives=True)
    assert {c.plan for c in plain} <= {c.plan for c in more}
    assert any(s.is_join for c in more for s in c.plan.subtasks)
    for candidate in more:
        assert written_by(candidate) == validate(candidate.plan)


def test_known_plans_of_parts_are_put_together() -> None:
    known = {"jump twice": Plan((Subtask("jump"),), "#1 #1")}
    plans = [c.plan for c in propose("jump twice and jump", known=known)]
    assert Plan((Subtask("jump"),), "#1 #1 #1") in plans
    assert all(len(set(plan.subtasks)) == len(plan.subtasks) for plan in plans)


@pytest.mark.parametrize("text", ["walk", "7", "#1 + 2", "", "and", "+", "twice"])
def test_what_cannot_be_cut_is_planned_directly(text: str) -> None:
    assert [c.plan for c in propose(text)] == [direct(text)]
