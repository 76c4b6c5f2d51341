import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.errors import DataError, PlanError
from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.propose import propose
from r2reasoner.plan import direct
from r2reasoner.training.rows import item_of, item_row, plan_text, read_plan
from r2reasoner.types import Plan, Subtask, Task

DEV: frozenset[arithmetic.Side] = frozenset({"dev"})
TEXTS = st.text(
    st.sampled_from("ab1#;={}. \n") | st.characters(exclude_categories=["Cc", "Cs"]), min_size=1
).filter(lambda text: text.strip() != "" and "#" not in text)


def plans() -> st.SearchStrategy[Plan]:
    """Valid plans of one to four subtasks, each of which may need earlier ones."""

    @st.composite
    def draw(draw: st.DrawFn) -> Plan:
        count = draw(st.integers(1, 4))
        subtasks: list[Subtask] = []
        for number in range(1, count + 1):
            earlier = st.sets(st.integers(1, number - 1)) if number > 1 else st.just(set())
            text = f"{number} {draw(TEXTS)}"
            named = draw(earlier)
            needs = tuple(sorted(draw(earlier)))
            subtasks.append(Subtask(" ".join([text, *(f"#{n}" for n in sorted(named))]), needs))
        return Plan(tuple(subtasks), " ".join(f"#{n}" for n in range(1, count + 1)))

    return draw()


@given(plans(), st.text())
def test_any_plan_is_read_as_it_was_written(plan: Plan, query: str) -> None:
    assert read_plan(plan_text(plan, query), query) == plan


@pytest.mark.parametrize(
    "query", ["12 + 3 * 4", "( 1 + 2 ) * ( 3 + 4 )", "walk left twice and run"]
)
def test_what_a_policy_can_write_stands_as_a_policy_writes_it(query: str) -> None:
    for candidate in propose(query, primitives=True):
        text = plan_text(candidate.plan, query)
        assert not text.startswith("{")
        assert read_plan(text, query) == candidate.plan


def test_the_direct_plan_is_short() -> None:
    assert plan_text(direct("what is #1?"), "what is #1?") == "="
    assert read_plan("=", "what is #1?") == direct("what is #1?")


def test_another_text_for_the_whole_query_is_kept() -> None:
    plan = Plan((Subtask("the same in other words"),), "#1")
    assert plan_text(plan, "query").startswith("{")
    assert read_plan(plan_text(plan, "query"), "query") == plan


@pytest.mark.parametrize("text", ["", "a ; a #5", "{", '{"subtasks": []}', "a ; = #7"])
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(PlanError):
        read_plan(text, "query")


def test_an_items_id_is_that_of_its_query() -> None:
    first = item_row(Task("1 + 2", "3"), "arithmetic")
    assert first == item_row(Task("1 + 2", "3"), "arithmetic")
    assert first["item"] != item_row(Task("1 + 3", "4"), "arithmetic")["item"]
    assert len(first["item"]) == 24


def test_what_else_stands_in_a_row_is_left() -> None:
    row = item_row(Task("1 + 2", "3"), "arithmetic")
    assert item_of({**row, "plan": "=", "score": 1.0}) == row


@pytest.mark.parametrize("change", [{"gold": 3}, {"query": " "}, {"item": None}, {"family": 1}])
def test_a_row_that_is_no_item(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="item, query, gold, family"):
        item_of(item_row(Task("1 + 2", "3"), "arithmetic") | change)


def test_all_nano_plans_come_back() -> None:
    rng = random.Random(3)
    queries = [arithmetic.render(arithmetic.sample(4, DEV, rng)) for _ in range(20)]
    queries += rng.sample(scan.commands(), 20)
    for query in queries:
        for candidate in propose(query):
            assert read_plan(plan_text(candidate.plan, query), query) == candidate.plan
