"""How likely each model is to get a text right, learned from measured outcomes.

One logistic regression per model over hashed features of the text alone: its words, its shape
(every digit the same, every word kept) and its length. Plain numpy; nothing here knows a task.
"""

import io
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from r2reasoner.errors import DataError
from r2reasoner.files import write_whole

BUCKETS: Final = 1 << 12
L2: Final = 0.3
STEPS: Final = 300
SMALLEST_P: Final = 0.002
MOST_PIECES: Final = 400
LONGEST_WHOLE: Final = 24

_PIECE: Final = re.compile(r"[A-Za-z_]+|\d|#\d+|\S")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measured answer: was this model right on this text, and what did it cost."""

    text: str
    model: str
    right: bool
    cost: int | None


def features(text: str) -> npt.NDArray[np.int64]:
    """Return the sorted numbers (0 to BUCKETS - 1) of a text's features.

    What stands in brackets behind a reference (see `plan.in_context`) is one feature, its shape.
    """
    pieces = _PIECE.findall(_without_context(text))[:MOST_PIECES]
    shape = _shape(pieces)
    names = {f"w:{p}" for p in pieces}
    names |= {f"b:{a} {b}" for a, b in pairwise(pieces)}
    for n in (1, 2, 3, 4):
        names |= {f"s{n}:{' '.join(shape[i : i + n])}" for i in range(len(shape) - n + 1)}
    for whole in (shape, _shape(_PIECE.findall(text)[:MOST_PIECES])):
        if len(whole) <= LONGEST_WHOLE:
            names.add(f"all:{' '.join(whole)}")
    names.add(f"len:{len(pieces).bit_length()}")
    names.add("bias")
    return np.unique([zlib.crc32(name.encode()) % BUCKETS for name in names])


def _shape(pieces: Sequence[str]) -> list[str]:
    """Return the pieces with every digit the same."""
    return ["9" if p.isdigit() else p.lower() for p in pieces]


def _without_context(text: str) -> str:
    """Drop what stands in (nested) square brackets behind a reference."""
    kept, depth = [], 0
    for part in re.split(r"(# \[|\])", text):
        if part == "# [":
            if depth == 0:
                kept.append("#")
            depth += 1
        elif part == "]" and depth:
            depth -= 1
        elif depth == 0:
            kept.append(part)
    return "".join(kept)


class OutcomeModel:
    """P(right | text, model) for the models that outcomes were measured for."""

    def __init__(self, models: Sequence[str], weights: Floats, mean_cost: Floats, n: int) -> None:
        self.models = tuple(models)
        self.mean_cost = dict(zip(models, mean_cost.tolist(), strict=True))
        self.outcomes = n
        self._weights = weights

    def p_right(self, text: str) -> dict[str, float]:
        """Return each model's probability of getting the text right."""
        index = features(text)
        logits = self._weights[:, index].sum(axis=1) / np.sqrt(len(index))
        p = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return dict(zip(self.models, np.clip(p, SMALLEST_P, 1 - SMALLEST_P).tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write the model as one .npz file, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            models=np.array(self.models),
            weights=self._weights.astype(np.float16),
            mean_cost=np.array([self.mean_cost[m] for m in self.models]),
            outcomes=np.array(self.outcomes),
        )
        write_whole(path, buffer.getvalue(), replace=True)

    @classmethod
    def load(cls, path: Path) -> "OutcomeModel":
        """Read a saved model. Raises DataError where the file is missing or foreign."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                models = [str(m) for m in saved["models"]]
                weights = saved["weights"].astype(np.float64)
                mean_cost = saved["mean_cost"].astype(np.float64)
                count = int(saved["outcomes"])
            if weights.shape != (len(models), BUCKETS) or mean_cost.shape != (len(models),):
                raise ValueError(f"weights of shape {weights.shape} for {len(models)} models")
            if not np.isfinite(weights).all():
                raise ValueError("weights that are no numbers")
        # numpy lets errors of zip, zlib and its own parsers through
        except Exception as error:
            raise DataError(
                f"{path}: expected measured outcomes, got {error};"
                " make them with `r2reasoner calibrate ITEMS.jsonl`"
            ) from error
        return cls(models, weights, mean_cost, count)

    @classmethod
    def fit(cls, outcomes: Iterable[Outcome]) -> "OutcomeModel":
        """Fit from outcomes; several of one text and model count as their mean.

        Raises DataError when there are none.
        """
        tally: dict[str, dict[str, list[bool]]] = {}
        costs: dict[str, list[int]] = {}
        count = 0
        for outcome in outcomes:
            count += 1
            tally.setdefault(outcome.text, {}).setdefault(outcome.model, []).append(outcome.right)
            if outcome.cost is not None:
                costs.setdefault(outcome.model, []).append(outcome.cost)
        models = sorted({m for by_model in tally.values() for m in by_model})
        if not models:
            raise DataError("no outcomes to learn from")
        texts = list(tally)
        matrix = _Rows([features(t) for t in texts])
        weights = np.zeros((len(models), BUCKETS))
        for i, model in enumerate(models):
            asked = [j for j, t in enumerate(texts) if model in tally[t]]
            right = np.array([np.mean(tally[texts[j]][model]) for j in asked])
            weights[i] = _logistic(matrix.take(asked), right, weights[i])
        mean = np.array([np.mean(costs[m]) if m in costs else np.nan for m in models])
        return cls(models, weights, mean, count)

    def with_model(self, outcomes: Sequence[Outcome], prior: Mapping[str, float]) -> "OutcomeModel":
        """Return the estimate with one more model; what it says of the others stays as it is.

        Until the outcomes say otherwise, the new model is taken for the mix `prior` of known ones
        (name -> weight): so a few dozen outcomes are enough. One that is known already is
        replaced. Raises DataError where the outcomes are not of exactly one model.
        """
        names = {outcome.model for outcome in outcomes}
        if len(names) != 1:
            raise DataError(f"expected outcomes of one new model, got those of {len(names)}")
        (name,) = names
        tally: dict[str, list[bool]] = {}
        for outcome in outcomes:
            tally.setdefault(outcome.text, []).append(outcome.right)
        right = np.array([np.mean(answers) for answers in tally.values()])
        rows = dict(zip(self.models, self._weights, strict=True))
        around = sum((w * rows[m] for m, w in prior.items()), np.zeros(BUCKETS))
        costs = [outcome.cost for outcome in outcomes if outcome.cost is not None]
        rows[name] = _logistic(_Rows([features(text) for text in tally]), right, around)
        mean_cost = self.mean_cost | {name: float(np.mean(costs)) if costs else float("nan")}
        models = sorted(rows)
        return OutcomeModel(
            models,
            np.array([rows[m] for m in models]),
            np.array([mean_cost[m] for m in models]),
            self.outcomes + len(outcomes),
        )


class _Rows:
    """Binary feature rows, each scaled to length 1: a sparse matrix without scipy."""

    def __init__(self, rows: Sequence[npt.NDArray[np.int64]]) -> None:
        self._rows = rows
        self.columns = np.concatenate(rows)
        self.row = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        self.value = np.repeat([len(r) ** -0.5 for r in rows], [len(r) for r in rows])
        self.count = len(rows)

    def take(self, index: Sequence[int]) -> "_Rows":
        return _Rows([self._rows[i] for i in index])

    def dot(self, weights: Floats) -> Floats:
        return _sums(self.row, self.value * weights[self.columns], self.count)

    def transposed_dot(self, values: Floats) -> Floats:
        return _sums(self.columns, self.value * values[self.row], BUCKETS)


def _sums(at: npt.NDArray[np.int64], values: Floats, size: int) -> Floats:
    """Sum values that belong to one place."""
    return np.bincount(at, values, size).astype(np.float64, copy=False)


def _logistic(rows: _Rows, right: Floats, around: Floats) -> Floats:
    """Fit by accelerated gradient descent (Nesterov), with an L2 penalty on leaving `around`."""
    weights = look = around
    step = 4.0 / (rows.count + 4 * L2)
    for t in range(STEPS):
        p = 1 / (1 + np.exp(-rows.dot(look)))
        gradient = rows.transposed_dot(p - right) + L2 * (look - around)
        new = look - step * gradient
        look = new + t / (t + 3) * (new - weights)
        weights = new
    return weights
