"""Light routers by name: learned from recorded outcomes, free of tokens, fitted in seconds."""

from collections.abc import Callable, Mapping
from typing import Final

from r2reasoner.outcomes.routers.base import LightRouter
from r2reasoner.outcomes.routers.blend import Blend
from r2reasoner.outcomes.routers.embed import Embedded
from r2reasoner.outcomes.routers.linear import (
    LogisticRegressions,
    MatrixFactorisation,
    RidgeRegression,
)
from r2reasoner.outcomes.routers.nearest import NearestNeighbours
from r2reasoner.outcomes.routers.simple import BestSingle, GroupMeans

__all__ = ["ROUTERS", "LightRouter"]

ROUTERS: Final[Mapping[str, Callable[[int], LightRouter]]] = {
    "best": BestSingle,
    "group": GroupMeans,
    "knn": NearestNeighbours,
    "ridge": RidgeRegression,
    "logistic": LogisticRegressions,
    "mf": MatrixFactorisation,
    "blend": Blend,
    "embed": Embedded,
}
"""What makes each router, from a seed."""
