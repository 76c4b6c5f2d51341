"""A plan laid out by layers: who stands where, and which way lines between them go.

The usual four steps (Sugiyama): layers by the longest path, a place held in each layer that a line
crosses, an order in each layer near its neighbours' (by their mean), and lines through the places
held. Numbers only; `graph.py` draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from r2reasoner.types import Plan

SWEEPS: Final = 8
MOST_HELD: Final = 1500
"""Most places held for lines: a plan that needs more makes no readable picture."""
ANSWER: Final = 0
"""The number under which the answer stands in a layout."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line from one node to another; `path` are (layer, slot) that it goes through."""

    start: int
    end: int
    path: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each node stands: (layer, slot). `slots` says of each layer's slots who is a node."""

    places: Mapping[int, tuple[int, int]]
    lines: tuple[Line, ...]
    slots: tuple[tuple[bool, ...], ...]


def lay_out(plan: Plan) -> Layout | None:
    """Return a plan's subtasks and its answer in layers; the answer stands alone in the last.

    None where too many lines cross too many layers.
    """
    before = _edges(plan)
    depth = _depths(before)
    spans = (depth[end] - depth[start] - 1 for end, starts in before.items() for start in starts)
    if sum(spans) > MOST_HELD:
        return None
    layers: list[list[object]] = [[] for _ in range(max(depth.values()) + 1)]
    for node, layer in depth.items():
        layers[layer].append(node)
    chains: dict[tuple[int, int], list[object]] = {}
    near: dict[object, list[object]] = {}
    for end, starts in before.items():
        for start in starts:
            held: list[object] = [(start, end, n) for n in range(depth[start] + 1, depth[end])]
            for layer, place in enumerate(held, depth[start] + 1):
                layers[layer].append(place)
            chain = [start, *held, end]
            chains[start, end] = chain
            for a, b in pairwise(chain):
                near.setdefault(a, []).append(b)
                near.setdefault(b, []).append(a)
    ordered = _ordered(layers, near)
    slot = {node: (n, i) for n, layer in enumerate(ordered) for i, node in enumerate(layer)}
    return Layout(
        {node: slot[node] for node in before},
        tuple(Line(a, b, tuple(slot[p] for p in chain)) for (a, b), chain in chains.items()),
        tuple(tuple(isinstance(node, int) for node in layer) for layer in ordered),
    )


def _edges(plan: Plan) -> dict[int, tuple[int, ...]]:
    """Return what each node waits for; what a plan names and does not have is left out."""
    numbers = range(1, len(plan.subtasks) + 1)
    before = {
        n: tuple(d for d in s.dependencies if d in numbers and d < n)
        for n, s in enumerate(plan.subtasks, 1)
    }
    ends = tuple(sorted(n for n in plan.used_by_answer if n in numbers))
    before[ANSWER] = ends or tuple(numbers)[-1:]
    return before


def _depths(before: Mapping[int, Sequence[int]]) -> dict[int, int]:
    depth: dict[int, int] = {}
    for node, starts in before.items():
        depth[node] = max((depth[s] + 1 for s in starts), default=0)
    depth[ANSWER] = 1 + max(layer for node, layer in depth.items() if node != ANSWER)
    return depth


def _ordered(
    layers: list[list[object]], near: Mapping[object, Sequence[object]]
) -> list[list[object]]:
    """Return the layers, each sorted by the mean place of its neighbours, swept to and fro."""
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        order = range(1, len(layers)) if forwards else range(len(layers) - 2, -1, -1)
        for n in order:
            beside = layers[n - 1 if forwards else n + 1]
            place = {node: (i + 0.5) / len(beside) for i, node in enumerate(beside)}
            means = {}
            for i, node in enumerate(layers[n]):
                known = [place[m] for m in near.get(node, ()) if m in place]
                means[node] = sum(known) / len(known) if known else (i + 0.5) / len(layers[n])
            layers[n] = sorted(layers[n], key=lambda node: means[node])
    return layers
