"""How much the nano workers of a weight set are trained: shapes, steps, rows."""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from r2reasoner.nano.items import WeightSet


class Shape(NamedTuple):
    """Width and depth of a nano model."""

    width: int
    layers: int

    @property
    def name(self) -> str:
        """The name used in pool files, e.g. `48x2`."""
        return f"{self.width}x{self.layers}"


@dataclass(frozen=True, slots=True)
class Preset:
    """Steps of 2,048 tokens by shape, sizes of their data, and items to measure outcomes on.

    `searcher` is the worker that candidate plans run on, which sees `shifted_rows` only.
    """

    workers: dict[Shape, int]
    searcher: tuple[Shape, int]
    rows: int
    shifted_rows: int
    calibration: int


SHAPES: Final = tuple(
    Shape(width, layers)
    for width, layers in (
        (8, 1), (16, 1), (16, 2), (24, 2), (32, 2), (48, 2), (64, 2), (96, 3), (128, 4)
    )
)  # fmt: skip
FULL: Final = Preset(
    workers=dict(zip(SHAPES, (2000, 2000, 3000, 4000, 4000, 5000, 5000, 3500, 3200), strict=True)),
    searcher=(Shape(64, 2), 2500),
    rows=1_100_000,
    shifted_rows=400_000,
    calibration=4000,
)
SCAN_ONLY: Final = Preset(
    workers=dict(zip(SHAPES, (1200, 1200, 1500, 1500, 1500, 1500, 1500, 1500, 1200), strict=True)),
    searcher=(Shape(48, 2), 1000),
    rows=250_000,
    shifted_rows=100_000,
    calibration=900,
)
TINY: Final = Preset(
    workers={Shape(8, 1): 150, Shape(16, 1): 200, Shape(16, 2): 500},
    searcher=(Shape(16, 2), 500),
    rows=30_000,
    shifted_rows=30_000,
    calibration=40,
)


def preset_for(name: Literal["full", "tiny"], weights: WeightSet) -> Preset:
    """Return how much a weight set's workers are trained."""
    if name == "tiny":
        return TINY
    return FULL if weights.arithmetic else SCAN_ONLY
