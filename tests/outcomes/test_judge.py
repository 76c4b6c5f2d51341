import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes.judge import (
    FIGURES,
    Report,
    Terms,
    folds_of,
    judge,
    normalised,
    pair_of,
)
from r2reasoner.outcomes.layouts import read_records, take_in
from r2reasoner.outcomes.layouts.routellm import STRONG, WEAK
from r2reasoner.outcomes.sets import Floats, OutcomeSet, outcome_sets
from r2reasoner.outcomes.store import OutcomeStore
from shared_rows import SHARED

TERMS = Terms(draws=200)


class Group:
    """The mean of each model in the item's group; a router that learns something real."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, train: OutcomeSet) -> None:
        self.texts = set(train.texts)
        groups = np.array(train.groups)
        self.means = {g: np.nanmean(train.scores[groups == g], axis=0) for g in set(train.groups)}

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        assert not self.texts & set(texts), "an item stands on both sides"
        return np.array([self.means[group] for group in groups])


class Constant:
    """Expects the same of every item and model."""

    def __init__(self, seed: int) -> None:
        self.models = 0

    def fit(self, train: OutcomeSet) -> None:
        self.models = len(train.models)

    def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
        return np.zeros((len(texts), self.models))


def a_set(items: int = 200, *, name: str = "toy", start: int = 0) -> OutcomeSet:
    """Half the items are hard: there only the dear model is right; it costs ten times as much."""
    hard = np.arange(items) % 2 == 1
    noise = np.arange(items) % 10 == 0
    scores = np.column_stack([~hard & ~noise, ~noise]).astype(float)
    return OutcomeSet(
        name,
        tuple(f"id {start + i}" for i in range(items)),
        tuple(f"text {start + i}" for i in range(items)),
        tuple("hard" if each else "easy" for each in hard),
        ("cheap", "dear"),
        scores,
        np.tile([1.0, 10.0], (items, 1)),
    )


def rows_of(report: Report) -> dict[str, dict[str, Any]]:
    return {row["router"]: row for row in report.rows}


def test_rows_by_hand() -> None:
    report = judge({"toy": a_set()}, None, {"group": Group}, TERMS)
    rows = rows_of(report)
    assert list(rows) == ["random", "best single", "oracle", "group"]
    names = ["set", "router", "n"]
    for figure in FIGURES:
        names += [figure, f"{figure}_ci95"]
    assert all(list(row) == names for row in report.rows)
    # easy: both .8 (a tenth of all items fail, all of them easy); hard: 0 and 1
    group = rows["group"]
    assert group["n"] == 200
    assert group["mean_score"] == pytest.approx(0.9)
    assert group["mean_price"] == pytest.approx(0.5 * 1 + 0.5 * 10)
    assert group["price_at_best_single_score"] == pytest.approx(5.5)
    assert group["oracle"] == pytest.approx(0.9)
    assert group["coverage"] == 1
    # all of the gap comes with the first half of the calls
    assert group["apgr"] == pytest.approx(0.75)
    assert group["cpt50"] == pytest.approx(0.25)
    assert group["cpt80"] == pytest.approx(0.4)
    # from .4 at 1 to .9 at 5.5, and .9 to 10
    assert group["aiq"] == pytest.approx((0.65 + 0.9) / 2)
    low, high = group["mean_score_ci95"]
    assert 0.8 < low < 0.9 < high < 1
    assert rows["random"]["apgr"] == pytest.approx(0.5)
    assert rows["random"]["mean_score"] == pytest.approx((0.4 + 0.9) / 2)
    assert rows["random"]["mean_price"] == pytest.approx(5.5)
    assert rows["best single"]["apgr"] == pytest.approx(0.5)
    assert rows["best single"]["mean_score"] == pytest.approx(0.9)
    assert rows["best single"]["mean_price"] == pytest.approx(10)
    assert rows["best single"]["price_at_best_single_score"] == pytest.approx(10)
    assert rows["oracle"]["apgr"] == pytest.approx(0.75)
    assert rows["oracle"]["mean_price"] == pytest.approx(5.5)
    json.dumps(report.rows, allow_nan=False)


def test_comparisons_are_on_the_same_draws() -> None:
    report = judge({"toy": a_set()}, None, {"knn": Group, "ridge": Constant, "x": Group}, TERMS)
    found = {(row["router"], row["against"]): row for row in report.comparisons}
    assert set(found) == {("knn", "ridge"), ("ridge", "knn"), ("x", "knn"), ("x", "ridge")}
    assert found["x", "knn"]["apgr_difference"] == 0
    assert found["x", "knn"]["apgr_difference_ci95"] == [0, 0]
    against = found["x", "ridge"]
    assert against["apgr_difference"] == pytest.approx(0.25)
    low, high = against["apgr_difference_ci95"]
    assert 0.2 < low <= high < 0.3
    # what expects the same of all takes the cheaper
    assert against["mean_price_difference"] == pytest.approx(4.5)


def test_test_rows_that_stand_in_training_are_dropped_and_counted() -> None:
    test = a_set(60, start=190)
    shouted = OutcomeSet(
        "toy",
        test.ids,
        tuple(text.upper().replace(" ", "\n ") for text in test.texts),
        test.groups,
        test.models,
        test.scores,
        test.prices,
    )
    report = judge({"toy": a_set()}, {"toy": shouted}, {"group": Group}, TERMS)
    (described,) = report.sets
    assert (described["dropped_test_items"], described["test_items"]) == (10, 50)
    assert rows_of(report)["group"]["n"] == 50
    with pytest.raises(DataError, match="toy: every test item stands in the training store too"):
        judge({"toy": a_set()}, {"toy": a_set(20)}, {"group": Group}, TERMS)


def test_holes_are_not_covered_and_never_guessed() -> None:
    made = a_set()
    made.scores[1::4, 1] = np.nan  # half of the hard items have no dear outcome
    made.prices[1::4, 1] = np.nan
    row = rows_of(judge({"toy": made}, None, {"group": Group}, TERMS))["group"]
    assert row["coverage"] == pytest.approx(0.75)
    assert row["mean_score"] == pytest.approx((80 + 50) / 150)


def test_without_prices_money_is_unknown_and_the_pair_is_by_score() -> None:
    made = a_set()
    made.prices[:] = np.nan
    pair = pair_of(made)
    assert pair is not None
    assert (pair.weak, pair.strong) == (0, 1)
    row = rows_of(judge({"toy": made}, None, {"group": Group}, TERMS))["group"]
    assert (row["mean_price"], row["aiq"], row["price_at_best_single_score"]) == (None, None, None)
    assert row["aiq_ci95"] is None
    assert row["apgr"] == pytest.approx(0.75)
    assert row["mean_score"] == pytest.approx(0.9)


def test_where_the_cheapest_is_the_best_there_is_no_gap() -> None:
    made = a_set()
    made.scores[:] = made.scores[:, ::-1].copy()
    row = rows_of(judge({"toy": made}, None, {"group": Group}, TERMS))["group"]
    assert (row["apgr"], row["cpt50"], row["apgr_ci95"]) == (None, None, None)
    assert row["mean_score"] == pytest.approx(0.9)
    assert row["mean_price"] == pytest.approx(1)


def test_sets_and_models_that_do_not_fit() -> None:
    toy = a_set()
    with pytest.raises(
        DataError, match="no outcome set that both stores have: train has toy, test"
    ):
        judge({"toy": toy}, {"other": toy}, {}, TERMS)
    one = a_set(20, start=500).with_models(["cheap"])
    with pytest.raises(DataError, match="toy: no outcomes of dear; it has cheap"):
        judge({"toy": toy}, {"toy": one}, {}, TERMS)
    with pytest.raises(DataError, match="8 different items are too few for 5 folds"):
        folds_of(a_set(8), 5, 0)
    with pytest.raises(ConfigError, match="oracle is always judged"):
        judge({"toy": toy}, None, {"oracle": Group}, TERMS)
    with pytest.raises(ConfigError, match="at least 2 folds"):
        Terms(folds=1)
    report = judge({"toy": toy, "lone": one}, {"toy": a_set(20, start=500)}, {}, TERMS)
    assert report.notes == ["lone: left out, for only one of the stores has it"]
    few = a_set()
    few.scores[19:, 0] = np.nan
    notes = judge({"toy": few}, None, {}, TERMS).notes
    assert notes == [
        "toy: cheap left out: 19 outcomes to learn from, not 20",
        "toy: left out, for it has fewer than two models",
    ]


def test_a_router_that_predicts_nonsense_is_named() -> None:
    class Short(Constant):
        def predict(self, texts: Sequence[str], groups: Sequence[str]) -> Floats:
            return np.zeros((1, 1))

    with pytest.raises(DataError, match="toy: router short: expected a finite score for each of"):
        judge({"toy": a_set()}, None, {"short": Short}, TERMS)


def test_folds_keep_a_text_together_and_repeat_by_seed() -> None:
    made = a_set(40)
    twins = OutcomeSet(
        "toy",
        made.ids,
        tuple(f"Text {i // 2}" if i % 2 else f"text  {i // 2}" for i in range(40)),
        made.groups,
        made.models,
        made.scores,
        made.prices,
    )
    folds = folds_of(twins, 5, 3)
    assert (folds[::2] == folds[1::2]).all()
    assert sorted(np.bincount(folds)) == [8] * 5
    assert (folds == folds_of(twins, 5, 3)).all()
    assert (folds != folds_of(twins, 5, 4)).any()
    assert normalised(" A\n b ") == "a b"


def test_one_seed_gives_the_same_figures() -> None:
    once, again = (judge({"t": a_set()}, None, {"group": Group}, TERMS).rows for _ in range(2))
    assert once == again
    more = judge({"t": a_set()}, None, {"group": Group}, Terms(draws=200, repeats=2, seed=9)).rows
    assert more[-1]["mean_score"] == pytest.approx(0.9)


def test_routellms_end_points_and_random_row(tmp_path: object) -> None:
    """Whole files give GSM8K 63.84 and 85.67; the shared part 63.57 and 86.49."""
    folder = SHARED / "routellm_gsm8k"
    if not folder.exists():
        pytest.skip(f"no shared data at {folder}")
    with OutcomeStore.open(f"{tmp_path}/store") as store:
        take_in(read_records(folder).records, store)
        whole = outcome_sets(store)["routellm_gsm8k"]
    assert whole.models == (WEAK, STRONG)
    assert whole.scores.mean(axis=0) == pytest.approx([0.6357, 0.8649], abs=5e-5)
    report = judge({whole.name: whole}, None, {}, Terms(draws=50))
    random = rows_of(report)["random"]
    assert (random["apgr"], random["cpt50"], random["cpt80"]) == pytest.approx((0.5, 0.5, 0.8))
    gain = whole.scores[:, 1] - whole.scores[:, 0]
    won, lost = (gain > 0).mean(), (gain < 0).mean()
    # up over the items that gain, level, then down over those that lose
    optimum = (won * (1 - won / 2) - lost**2 / 2) / (won - lost)
    assert rows_of(report)["oracle"]["apgr"] == pytest.approx(optimum)
