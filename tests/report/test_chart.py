from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.report.chart import (
    GLYPH,
    Box,
    Dot,
    Linear,
    Log,
    Placed,
    place_labels,
    svg,
    text,
    tick_money,
)

FRAME = Box(0, 0, 1000, 400)
SIZE = 12.0


def box_of(place: Placed) -> Box:
    wide = GLYPH * SIZE * len(place.text)
    left = {"start": place.x, "end": place.x - wide, "middle": place.x - wide / 2}[place.anchor]
    middle = place.y - SIZE * 0.35
    return Box(left, middle - SIZE * 0.54, left + wide, middle + SIZE * 0.54)


@given(
    st.lists(
        st.tuples(st.integers(20, 980), st.integers(20, 380), st.text("abc:@", min_size=1)),
        min_size=1,
        max_size=25,
    )
)
def test_labels_keep_clear_of_each_other_and_inside(
    spots: list[tuple[int, int, str]],
) -> None:
    dots = [Dot(x, y, label, "other", "", i) for i, (x, y, label) in enumerate(spots)]
    places = [(p, box_of(p)) for p in place_labels(dots, FRAME, SIZE)]
    assert all(box.within(Box(-1, -1, 1001, 401)) for _, box in places)
    assert not any(a.meets(b) for (_, a), (_, b) in combinations(places, 2))


def test_the_first_in_rank_is_labelled_and_dots_on_one_spot_share() -> None:
    crowd = [Dot(500, 200, f"name{i}", "other", "", i) for i in range(3)]
    (place,) = place_labels(crowd, FRAME, SIZE)
    assert place.text == "name0, name1, name2"
    assert place.dot.rank == 0


def test_ticks_are_few_and_readable() -> None:
    ticks = Log.over([1.75e-8, 4.4e-5], 0, 900).ticks(9)
    assert [words for _, words in ticks][:3] == ["30 n$", "100 n$", "300 n$"]
    assert len(ticks) <= 9
    assert len(Log.over([1e-8, 1e2], 0, 300).ticks(4)) <= 4
    assert [round(v, 3) for v in Linear(0, 1, 0, 1).ticks(5)] == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert tick_money(0.5) == "500 m$"
    assert tick_money(20) == "$20"


@given(st.floats(1e-9, 1e3), st.floats(1e-9, 1e3))
def test_a_log_scale_keeps_order_and_stays_inside(a: float, b: float) -> None:
    scale = Log.over([a, b], 10, 500)
    assert 10 <= scale(min(a, b)) <= scale(max(a, b)) <= 500


def test_foreign_names_cannot_leave_the_drawing() -> None:
    drawn = svg(10, 10, [text(0, 0, "<script>&", "label")], 'a "quoted" <b>', "wide")
    root = ElementTree.fromstring(drawn)
    assert root.attrib["aria-label"] == 'a "quoted" <b>'
    assert "<script>" not in drawn
    assert [child.text for child in root] == ["<script>&"]


def test_a_scale_of_one_value_does_not_divide_by_nothing() -> None:
    scale = Log.over([1e-6], 0, 100)
    assert scale(1e-6) == pytest.approx(50)
    assert Linear(1, 1, 0, 10)(1) == 0
    assert Linear(1, 1, 0, 10).ticks() == [1]
