from dataclasses import FrozenInstanceError, replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.types import (
    REFERENCE,
    Allocation,
    Answer,
    AnswerStatus,
    Call,
    CallOutcome,
    Plan,
    Query,
    Role,
    Subtask,
    Trace,
    Usage,
    to_dollars,
    to_pico,
)

USAGES = st.builds(Usage, *[st.integers(0, 10**9)] * 4)


@given(st.integers(-(10**18), 10**18))
def test_money_survives_the_way_to_dollars_and_back(pico: int) -> None:
    assert to_pico(to_dollars(pico)) == pico


@pytest.mark.parametrize(
    ("dollars", "pico"),
    [
        ("0.0000000000001", 1),
        ("1", 10**12),
        (2, 2 * 10**12),
        (Decimal("0.1") + Decimal("0.2"), 300_000_000_000),
        ("-0.0000000000001", 0),
    ],
)
def test_fractions_of_a_pico_dollar_are_rounded_up(dollars: Decimal | str | int, pico: int) -> None:
    assert to_pico(dollars) == pico


@given(USAGES, USAGES, USAGES)
def test_usages_add_up_field_by_field(a: Usage, b: Usage, c: Usage) -> None:
    assert a + Usage() == a
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert (a + b).reasoning_tokens == a.reasoning_tokens + b.reasoning_tokens


def test_a_subtask_knows_what_it_needs() -> None:
    subtask = Subtask("#2 + #1 * #2", needs=(1, 3))
    assert subtask.references == (2, 1)
    assert subtask.dependencies == (2, 1, 3)
    assert not subtask.is_join


@pytest.mark.parametrize(
    ("text", "join"), [("#1", True), (" #1 #2\n#1 ", True), ("#1 , #2", False), ("", False)]
)
def test_a_join_is_made_of_references_only(text: str, join: bool) -> None:
    assert Subtask(text).is_join is join


@given(st.text())
def test_references_of_any_text_are_numbers(text: str) -> None:
    assert all(0 <= n < 10**6 for n in Subtask(text).references)


def test_a_reference_of_absurd_length_is_no_crash() -> None:
    assert Subtask("#" + "9" * 10_000).references == (999_999,)
    assert REFERENCE.findall("#١") == []  # other scripts' digits are text


def test_what_a_plan_says_of_itself() -> None:
    plan = Plan((Subtask("a"), Subtask("b #1"), Subtask("c")), "#2 #3 #3 #1")
    assert plan.used_by_answer == {1, 2, 3}
    assert plan.last_nodes() == {2, 3}
    assert not plan.is_direct
    assert Plan((Subtask("a"),), "#1").is_direct
    assert not Plan((Subtask("a"),), "#1 #1").is_direct


def call(role: Role, cost: int | None) -> Call:
    return Call(
        id="c",
        role=role,
        model="m",
        subtask=None,
        attempt=1,
        outcome=CallOutcome.OK,
        usage=Usage(),
        cost=cost,
        bound=None,
        started_at=0,
        latency_s=0,
        ttft_s=None,
        finish_reason=None,
        error=None,
        note=None,
    )


def trace(*calls: Call) -> Trace:
    plan = Plan((Subtask("a"),), "#1")
    return Trace(
        id="t",
        query=Query("a", "t"),
        pool="p",
        trade_off=0.3,
        plan=plan,
        plan_notes=(),
        plan_failed=False,
        allocation=Allocation((None,), "none", calibrated=False),
        steps=(),
        answer=Answer("", AnswerStatus.FAILED),
        calls=calls,
        started_at=0,
        wall_s=0,
    )


def test_a_trace_sums_what_its_calls_cost_by_role() -> None:
    spent = trace(call(Role.DECOMPOSER, 1), call(Role.WORKER, 10), call(Role.FINAL, 100))
    assert spent.cost() == 111
    assert spent.cost(Role.DECOMPOSER) == 1
    assert spent.workers_cost == 110
    assert spent.cost(Role.ALLOCATOR) == 0


def test_an_unknown_cost_makes_the_sum_unknown_never_smaller() -> None:
    spent = trace(call(Role.DECOMPOSER, 1), call(Role.WORKER, None))
    assert spent.cost() is None
    assert spent.workers_cost is None
    assert spent.cost(Role.DECOMPOSER) == 1


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Subtask("a").text = "b"  # type: ignore[misc]
    assert replace(Subtask("a"), needs=(1,)) == Subtask("a", (1,))
