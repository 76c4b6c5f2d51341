from collections.abc import Sequence

import pytest

import pools
from r2reasoner.pool.cards import Card, Group, Pool
from r2reasoner.training.groups import Ladder

NOWHERE = "http://127.0.0.1:1/v1"


def cards(*groups: Group | None) -> list[Card]:
    return [pools.card_at(NOWHERE, f"m{n}", group=group) for n, group in enumerate(groups)]


def groups_of(workers: Sequence[Card], by: str = "cards") -> list[str]:
    ladder = Ladder(workers, "thirds" if by == "thirds" else "cards")
    return [str(group) for group in ladder.groups]


def test_the_nano_pool_has_three_of_each(nano: Pool) -> None:
    ladder = Ladder(nano.workers)
    assert groups_of(nano.workers) == ["small"] * 3 + ["medium"] * 3 + ["large"] * 3
    assert [ladder.middle(group) for group in Group] == [1, 4, 7]
    assert ladder.middle() == 4


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ["small"]),
        (2, ["small", "medium"]),
        (3, ["small", "medium", "large"]),
        (4, ["small", "small", "medium", "large"]),
        (7, ["small"] * 3 + ["medium"] * 2 + ["large"] * 2),
    ],
)
def test_without_groups_the_pool_is_cut_in_three(count: int, expected: list[str]) -> None:
    assert groups_of(cards(*[None] * count)) == expected


def test_one_card_without_a_group_is_enough_for_thirds() -> None:
    assert groups_of(cards(Group.LARGE, Group.LARGE, None)) == ["small", "medium", "large"]


def test_thirds_can_be_asked_for() -> None:
    workers = cards(Group.LARGE, Group.LARGE, Group.LARGE)
    assert groups_of(workers) == ["large"] * 3
    assert groups_of(workers, "thirds") == ["small", "medium", "large"]


def test_groups_stand_in_order_whatever_the_pools_is() -> None:
    ladder = Ladder(cards(Group.LARGE, Group.SMALL, Group.MEDIUM, Group.SMALL))
    assert [card.name for card in ladder.cards] == ["m1", "m3", "m2", "m0"]


def test_an_empty_group_is_stood_in_for_by_the_nearest() -> None:
    ladder = Ladder(cards(Group.SMALL, Group.SMALL, Group.LARGE))
    assert ladder.middle(Group.LARGE) == 2
    assert ladder.middle(Group.MEDIUM) in (0, 2)


@pytest.mark.parametrize(
    ("rung", "across", "far", "expected"),
    [
        (5, False, False, [4]),
        (5, False, True, [4, 3]),
        (5, True, False, [2]),
        (5, True, True, [2, 1, 0]),
        (3, False, True, []),
        (3, True, False, [2]),
        (8, True, True, [5, 4, 3, 2, 1, 0]),
        (0, False, True, []),
        (0, True, True, []),
    ],
)
def test_where_a_move_down_leads(
    nano: Pool, rung: int, across: bool, far: bool, expected: list[int]
) -> None:
    assert Ladder(nano.workers).below(rung, across=across, far=far) == expected


def test_joins_have_no_name(nano: Pool) -> None:
    assert Ladder(nano.workers).names((0, None, 8)) == ["8x1", None, "128x4"]
