"""A plan as a picture: a box for each subtask, lines for what waits for what.

Wide pages read it from left to right, narrow ones from top to bottom. Each box leads to its subtask
on the page; a script may light it up by its class (`waits`, `runs`, `done`, `failed`).
"""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Final, NamedTuple

from r2reasoner.gateway.dashboard.layers import ANSWER, Layout, lay_out
from r2reasoner.report.chart import GLYPH, svg, text
from r2reasoner.types import Plan

MOST_SUBTASKS: Final = 120
"""A plan with more is listed and not drawn."""


class Node(NamedTuple):
    """What a box says. `state` is its class; `beside` stands at its right upper corner."""

    title: str
    words: str
    beside: str
    state: str


class _Shape(NamedTuple):
    """Sizes in pixels. `across`: layers go from left to right."""

    wide: float
    high: float
    between: float
    apart: float
    across: bool
    kind: str
    font: float


WIDE: Final = _Shape(176, 50, 54, 16, True, "wide", 12)
PAGE: Final = 1040.0
LEAST_WIDE: Final = 118.0
LEAST_BETWEEN: Final = 30.0
NARROW: Final = _Shape(158, 50, 34, 10, False, "narrow", 11.5)
SMALL_PAGE: Final = 358.0
LEAST_NARROW: Final = 104.0
HELD: Final = 8.0
"""Room aside for a line that passes a layer."""
PAD: Final = 2.0


def draw_graph(plan: Plan, nodes: Sequence[Node], answer: str) -> str:
    """Return the plan as SVG, for wide and for narrow pages; empty where it is too large.

    `nodes` are the subtasks in order.
    """
    if not plan.subtasks or len(plan.subtasks) > MOST_SUBTASKS:
        return ""
    layout = lay_out(plan)
    if layout is None:
        return ""
    boxes = dict(enumerate(nodes, 1)) | {ANSWER: Node("answer", answer, "", "answer")}
    shapes = (_fitted_along(WIDE, len(layout.slots)), _fitted_aside(NARROW, layout))
    return "".join(_draw(layout, boxes, plan, shape) for shape in shapes)


def _fitted_along(shape: _Shape, layers: int) -> _Shape:
    """Return a shape whose boxes are narrower where else the layers would not fit a page."""
    room = PAGE - 2 * PAD
    if layers * (shape.wide + shape.between) - shape.between <= room:
        return shape
    wide = (room - (layers - 1) * LEAST_BETWEEN) / layers
    return shape._replace(wide=max(LEAST_WIDE, wide), between=LEAST_BETWEEN)


def _fitted_aside(shape: _Shape, layout: Layout) -> _Shape:
    """Return a shape whose boxes are narrower where else a layer would not fit a small page."""
    nodes = max(sum(layer) for layer in layout.slots)
    held = max(len(layer) - sum(layer) for layer in layout.slots)
    room = SMALL_PAGE - 2 * PAD - held * (HELD + shape.apart) - (nodes - 1) * shape.apart
    return shape._replace(wide=min(shape.wide, max(LEAST_NARROW, room / nodes)))


def _draw(layout: Layout, boxes: Mapping[int, Node], plan: Plan, shape: _Shape) -> str:
    along, side = (shape.wide, shape.high) if shape.across else (shape.high, shape.wide)
    sizes = [[side if is_node else HELD for is_node in layer] for layer in layout.slots]
    broads = [sum(layer) + shape.apart * (len(layer) - 1) for layer in sizes]
    broad = max(broads)
    length = len(sizes) * (along + shape.between) - shape.between

    def middle(layer: int, slot: int) -> tuple[float, float]:
        """Return where the middle of a place is, along and aside."""
        before = sum(sizes[layer][:slot]) + shape.apart * slot
        return (
            layer * (along + shape.between) + along / 2 + PAD,
            (broad - broads[layer]) / 2 + before + sizes[layer][slot] / 2 + PAD,
        )

    parts = [
        _line([middle(*place) for place in line.path], along, shape, _ends(line.start, line.end))
        for line in layout.lines
    ]
    for number, place in layout.places.items():
        x, y = _turned(middle(*place), shape)
        parts.append(_box(number, boxes[number], x - shape.wide / 2, y - shape.high / 2, shape))
    size = _turned((length + 2 * PAD, broad + 2 * PAD), shape)
    says = f"plan of {len(plan.subtasks)} subtasks in {len(layout.slots) - 1} layers; " + "; ".join(
        f"{n} waits for {', '.join(map(str, s.dependencies)) or 'nothing'}"
        for n, s in enumerate(plan.subtasks, 1)
    )
    drawn = svg(round(size[0]), round(size[1]), parts, says[:2000], f"plan {shape.kind}")
    # what leads somewhere is no picture: a reader must reach its links
    return drawn.replace('role="img"', 'role="group"', 1)


def _ends(start: int, end: int) -> str:
    return f' data-from="{start}" data-to="{end or "answer"}"'


def _turned(point: tuple[float, float], shape: _Shape) -> tuple[float, float]:
    return point if shape.across else (point[1], point[0])


def _line(middles: Sequence[tuple[float, float]], along: float, shape: _Shape, extra: str) -> str:
    """Return a smooth line from the end of the first box to the beginning of the last."""
    points: list[tuple[float, float]] = []
    for i, (x, y) in enumerate(middles):
        if i > 0:
            points.append((x - along / 2, y))
        if i < len(middles) - 1:
            points.append((x + along / 2, y))
    path = "M" + _at(points[0], shape)
    for a, b in pairwise(points):
        half = (a[0] + b[0]) / 2
        path += f" C{_at((half, a[1]), shape)} {_at((half, b[1]), shape)} {_at(b, shape)}"
    return f'<path d="{path}" class="edge"{extra}/>'


def _at(point: tuple[float, float], shape: _Shape) -> str:
    x, y = _turned(point, shape)
    return f"{x:.1f},{y:.1f}"


def _box(number: int, node: Node, x: float, y: float, shape: _Shape) -> str:
    room = int((shape.wide - 20) / (GLYPH * shape.font))
    fits = len(node.title) + len(node.beside) + 2 <= room
    beside = node.beside if fits else ""
    inside = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{shape.wide:.1f}" height="{shape.high:g}" rx="5"/>'
        + text(x + 10, y + 20, _cut(node.title, room), "node-title")
        + text(x + shape.wide - 10, y + 20, beside, "node-beside", "end")
        + text(x + 10, y + 38, _cut(" ".join(node.words[:400].split()), room), "node-words")
        + f"<title>{escape(node.words[:400])}</title>"
    )
    name = "answer" if number == ANSWER else f"subtask-{number}"
    return f'<a href="#{name}" class="node {node.state}" data-node="{name}">{inside}</a>'


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: max(1, most - 1)]}…"
