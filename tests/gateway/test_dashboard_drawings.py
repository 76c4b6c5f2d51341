from dataclasses import replace
from datetime import date, timedelta
from itertools import combinations
from typing import ClassVar
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st
from traces_to_show import HOSTILE, hostile, rich

from r2reasoner.gateway.dashboard.days import DaySpent, draw_days
from r2reasoner.gateway.dashboard.graph import Node, draw_graph
from r2reasoner.gateway.dashboard.layers import ANSWER, lay_out
from r2reasoner.gateway.dashboard.waterfall import draw_waterfall, overlap, rows_of
from r2reasoner.types import Plan, Subtask

HARMLESS = {"svg", "g", "a", "rect", "path", "text", "title", "line", "polyline", "circle"}


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 14))
    subtasks = []
    for n in range(1, count + 1):
        needs = draw(st.lists(st.integers(1, n - 1), unique=True, max_size=4)) if n > 1 else []
        subtasks.append(Subtask(f"subtask {n}", tuple(needs)))
    used = draw(st.lists(st.integers(1, count), min_size=1, max_size=3))
    return Plan(tuple(subtasks), " ".join(f"#{n}" for n in used))


def nodes(plan: Plan) -> list[Node]:
    return [Node(f"#{n} small", s.text, "1 µ$", "done") for n, s in enumerate(plan.subtasks, 1)]


def drawings(markup: str) -> list[ElementTree.Element]:
    """The drawings in a piece of HTML, each parsed as XML: what is not escaped cannot be."""
    return list(ElementTree.fromstring(f"<all>{markup}</all>"))


def harmless(markup: str) -> None:
    for element in ElementTree.fromstring(f"<all>{markup}</all>").iter():
        assert element.tag in HARMLESS | {"all"}
        assert not any(name.startswith("on") or name == "style" for name in element.attrib)
        assert element.get("href", "#").startswith("#")


class TestLayers:
    @given(plans())
    def test_lines_go_forward_through_every_layer_between(self, plan: Plan) -> None:
        layout = lay_out(plan)
        assert layout is not None
        assert layout.places[ANSWER] == (len(layout.slots) - 1, 0)
        for line in layout.lines:
            assert line.path[0] == layout.places[line.start]
            assert line.path[-1] == layout.places[line.end]
            layers = [layer for layer, _ in line.path]
            assert layers == list(range(layers[0], layers[-1] + 1))

    @given(plans())
    def test_each_place_is_taken_once_and_none_is_empty(self, plan: Plan) -> None:
        layout = lay_out(plan)
        assert layout is not None
        held = [place for line in layout.lines for place in line.path[1:-1]]
        taken = [*layout.places.values(), *held]
        assert len(set(taken)) == len(taken)
        assert len(taken) == sum(map(len, layout.slots))

    @given(plans())
    def test_every_dependency_has_its_line(self, plan: Plan) -> None:
        layout = lay_out(plan)
        assert layout is not None
        lines = {(line.start, line.end) for line in layout.lines}
        wanted = {(d, n) for n, s in enumerate(plan.subtasks, 1) for d in s.dependencies}
        assert lines == wanted | {(n, ANSWER) for n in plan.used_by_answer}

    def test_order_avoids_crossings_that_need_not_be(self) -> None:
        a, b = Subtask("a"), Subtask("b")
        plan = Plan((a, b, Subtask("c", (2,)), Subtask("d", (1,))), "#3 #4")
        layout = lay_out(plan)
        assert layout is not None
        ends = sorted((layout.places[s][1], layout.places[e][1]) for s, e in ((1, 4), (2, 3)))
        assert ends == [(0, 0), (1, 1)]

    def test_what_no_page_can_show_is_not_laid_out(self) -> None:
        plan = Plan(tuple(Subtask(f"{n}", tuple(range(1, n))) for n in range(1, 61)), "#60")
        assert lay_out(plan) is None
        assert draw_graph(plan, nodes(plan), "") == ""


class TestGraph:
    @given(plans())
    def test_boxes_lie_inside_and_apart(self, plan: Plan) -> None:
        for drawn in drawings(draw_graph(plan, nodes(plan), "answer")):
            width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
            boxes = [
                tuple(float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
                for rect in drawn.iter("rect")
            ]
            assert len(boxes) == len(plan.subtasks) + 1
            for x, y, w, h in boxes:
                assert x >= 0
                assert y >= 0
                assert x + w <= width + 1
                assert y + h <= height + 1
            for (x1, y1, w1, h1), (x2, y2, w2, h2) in combinations(boxes, 2):
                assert x1 + w1 <= x2 or x2 + w2 <= x1 or y1 + h1 <= y2 or y2 + h2 <= y1

    def test_each_box_leads_to_its_subtask(self) -> None:
        plan = rich().plan
        for drawn in drawings(draw_graph(plan, nodes(plan), "")):
            links = [a.attrib["href"] for a in drawn.iter("a")]
            assert sorted(links) == sorted(
                ["#answer", *(f"#subtask-{n}" for n in range(1, len(plan.subtasks) + 1))]
            )

    def test_hostile_texts_stay_texts(self) -> None:
        plan = hostile().plan
        drawn = draw_graph(plan, [Node(HOSTILE, HOSTILE, HOSTILE, "done")] * 5, HOSTILE)
        harmless(drawn)
        assert any(HOSTILE in (t.text or "") for d in drawings(drawn) for t in d.iter("title"))


class TestWaterfall:
    def test_one_line_for_each_thing_done_and_bars_in_their_time(self) -> None:
        trace = rich()
        rows = rows_of(trace)
        assert [row.name for row in rows] == ["plan", "allocate", *(f"#{n}" for n in range(1, 9))]
        assert [len(row.bars) for row in rows] == [1, 1, 1, 1, 2, 1, 1, 0, 1, 1]
        assert [bar.kind for bar in rows[4].bars] == ["lost", "work"]
        for row in rows:
            for bar in (*row.bars, *filter(None, [row.whole])):
                assert 0 <= bar.start <= bar.end <= trace.wall_s

    def test_what_ran_at_once(self) -> None:
        found = overlap(rich())
        assert found.most_at_once == 3
        assert found.with_calls_s < found.in_calls_s
        assert abs(found.in_calls_s - sum(call.latency_s for call in rich().calls)) < 1e-6

    def test_calls_one_after_the_other_do_not_overlap(self) -> None:
        trace = rich()
        alone = [c for c in trace.calls if c.subtask in (None, 8)]
        found = overlap(replace(trace, calls=tuple(alone)))
        assert found.most_at_once == 1
        assert abs(found.with_calls_s - found.in_calls_s) < 1e-6

    def test_hostile_texts_stay_texts(self) -> None:
        trace = hostile()
        drawn = draw_waterfall(rows_of(trace), trace.wall_s)
        harmless(drawn)
        assert len(drawings(drawn)) == 2

    def test_nothing_and_no_time_can_be_drawn(self) -> None:
        harmless(draw_waterfall([], 0.0))


class TestDays:
    DAYS: ClassVar = [
        DaySpent(date(2026, 11, 1) + timedelta(days=n), paid, saved)
        for n, (paid, saved) in enumerate([(0, 0), (5_000_000, 5_000_000), (8_000_000, -1_000_000)])
    ]

    def test_bars_are_as_high_as_what_they_say(self) -> None:
        for drawn in drawings(draw_days(self.DAYS, "large")):
            high = {
                kind: [
                    float(r.attrib["height"]) for r in drawn.iter("rect") if r.get("class") == kind
                ]
                for kind in ("paid", "instead")
            }
            nothing, five, eight = high["paid"]
            assert nothing == 0
            assert abs(eight / five - 8 / 5) < 0.02
            assert abs(high["instead"][0] / five - 2) < 0.02  # only where something was saved
            assert len(high["instead"]) == 1

    def test_nothing_spent_can_be_drawn(self) -> None:
        harmless(draw_days([DaySpent(date(2026, 1, 1), 0, 0)], "large"))
        harmless(draw_days([], HOSTILE))
        harmless(draw_days(self.DAYS, HOSTILE))
