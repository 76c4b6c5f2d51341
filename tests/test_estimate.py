import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.errors import DataError
from r2reasoner.estimate import BUCKETS, SMALLEST_P, Outcome, OutcomeModel, features


def measured(*rules: tuple[str, str, bool]) -> list[Outcome]:
    """Outcomes over many numbers: (sign, model, right) of `left sign right`."""
    return [
        Outcome(f"{left} {sign} {right}", model, is_right, cost=10 * (model == "large") + 1)
        for left in range(10, 30, 3)
        for right in range(11, 40, 4)
        for sign, model, is_right in rules
    ]


ADDER = measured(
    ("+", "small", True), ("*", "small", False), ("+", "large", True), ("*", "large", True)
)


class TestFeatures:
    @given(st.text(max_size=200))
    def test_they_are_numbers_of_buckets_the_same_every_time(self, text: str) -> None:
        index = features(text)
        assert index.size > 0
        assert index.min() >= 0
        assert index.max() < BUCKETS
        assert list(index) == sorted(set(index.tolist())) == list(features(text))

    def test_texts_of_one_shape_share_most_of_them(self) -> None:
        one, same_shape, other = (set(features(t)) for t in ("12 + 34", "56 + 78", "walk left"))
        assert len(one & same_shape) > 4 * len(one & other)

    def test_a_long_text_costs_no_more_than_its_beginning(self) -> None:
        assert len(features("word " * 100_000)) == len(features("word " * 401))


class TestFit:
    def test_it_learns_who_can_do_what_from_the_text_alone(self) -> None:
        model = OutcomeModel.fit(ADDER)
        plus, times = model.p_right("17 + 12"), model.p_right("17 * 12")
        assert plus["small"] > 0.8
        assert times["small"] < 0.2
        assert min(plus["large"], times["large"]) > 0.8

    def test_it_knows_what_was_measured(self) -> None:
        model = OutcomeModel.fit(ADDER)
        assert model.models == ("large", "small")
        assert model.outcomes == len(ADDER)
        assert model.mean_cost == {"large": 11.0, "small": 1.0}

    def test_answers_to_one_text_count_as_their_share(self) -> None:
        mixed = [Outcome("the same", "m", n < 30, None) for n in range(40)]
        assert 0.6 < OutcomeModel.fit(mixed).p_right("the same")["m"] < 0.8

    def test_an_unknown_cost_is_not_a_number_rather_than_0(self) -> None:
        model = OutcomeModel.fit([Outcome("a", "m", True, None)])
        assert np.isnan(model.mean_cost["m"])

    def test_models_asked_different_texts(self) -> None:
        model = OutcomeModel.fit([Outcome("a", "x", True, 1), Outcome("b", "y", False, 1)])
        p = model.p_right("a")
        assert p["x"] > 0.5 > p["y"]

    def test_nothing_to_learn_from(self) -> None:
        with pytest.raises(DataError, match="no outcomes"):
            OutcomeModel.fit([])

    @given(st.text(max_size=100), st.sampled_from([-1e9, -1.0, 0.0, 1e9]))
    def test_no_text_is_certain_either_way(self, text: str, weight: float) -> None:
        model = OutcomeModel(["m"], np.full((1, BUCKETS), weight), np.ones(1), 1)
        assert SMALLEST_P <= model.p_right(text)["m"] <= 1 - SMALLEST_P


class TestWithModel:
    """ADDER knows `small`, which can add, and `large`, which can multiply too."""

    MODEL = OutcomeModel.fit(ADDER)

    def outcomes(self, *rules: tuple[str, bool], count: int = 5) -> list[Outcome]:
        return [
            Outcome(f"{40 + n} {sign} {17 + n}", "new", is_right, 5)
            for n in range(count)
            for sign, is_right in rules
        ]

    def test_the_others_stay_as_they_are(self) -> None:
        more = self.MODEL.with_model(self.outcomes(("+", True)), {"small": 1.0})
        assert more.models == ("large", "new", "small")
        assert more.outcomes == self.MODEL.outcomes + 5
        assert more.mean_cost == {"large": 11.0, "new": 5.0, "small": 1.0}
        for text in ("17 + 12", "17 * 12", "walk"):
            p = more.p_right(text)
            assert {name: p[name] for name in ("small", "large")} == self.MODEL.p_right(text)
        assert self.MODEL.models == ("large", "small")

    def test_what_was_not_asked_is_as_by_the_mix_it_is_taken_for(self) -> None:
        asked = self.outcomes(("+", True))
        like_small = self.MODEL.with_model(asked, {"small": 1.0}).p_right("17 * 12")["new"]
        like_large = self.MODEL.with_model(asked, {"large": 1.0}).p_right("17 * 12")["new"]
        between = self.MODEL.with_model(asked, {"small": 0.5, "large": 0.5}).p_right("17 * 12")
        assert like_small < between["new"] < like_large
        assert like_large - like_small > 0.4

    def test_a_few_outcomes_outweigh_the_mix(self) -> None:
        better = self.MODEL.with_model(self.outcomes(("*", True), count=8), {"small": 1.0})
        assert better.p_right("17 * 12")["new"] > 0.5 > better.p_right("17 * 12")["small"]
        worse = self.MODEL.with_model(self.outcomes(("*", False), count=8), {"large": 1.0})
        assert worse.p_right("17 * 12")["new"] < 0.5 < worse.p_right("17 * 12")["large"]

    def test_without_a_mix_it_is_fitted_as_any_other(self) -> None:
        alone = [o for o in ADDER if o.model == "small"]
        others = OutcomeModel.fit([o for o in ADDER if o.model != "small"])
        again, whole = others.with_model(alone, {}), OutcomeModel.fit(ADDER)
        for text in ("17 + 12", "17 * 12", "walk"):
            assert again.p_right(text) == pytest.approx(whole.p_right(text))

    def test_one_that_is_known_is_measured_anew(self) -> None:
        worse = [Outcome(o.text, "large", False, None) for o in ADDER]
        again = self.MODEL.with_model(worse, {"small": 1.0})
        assert again.models == self.MODEL.models
        assert again.p_right("17 + 12")["large"] < 0.2
        assert np.isnan(again.mean_cost["large"])

    def test_it_survives_the_file(self, tmp_path: Path) -> None:
        more = self.MODEL.with_model(self.outcomes(("+", True)), {"small": 1.0})
        more.save(tmp_path / "outcomes.npz")
        loaded = OutcomeModel.load(tmp_path / "outcomes.npz")
        assert loaded.p_right("17 + 12") == pytest.approx(more.p_right("17 + 12"), abs=0.01)

    def test_outcomes_of_none_or_of_two(self) -> None:
        with pytest.raises(DataError, match="those of 0"):
            self.MODEL.with_model([], {"small": 1.0})
        with pytest.raises(DataError, match="those of 2"):
            self.MODEL.with_model(ADDER, {"small": 1.0})


class TestFile:
    def test_what_is_saved_is_loaded(self, tmp_path: Path) -> None:
        model = OutcomeModel.fit([*ADDER, Outcome("free", "extra", True, None)])
        model.save(tmp_path / "outcomes.npz")
        loaded = OutcomeModel.load(tmp_path / "outcomes.npz")
        assert loaded.models == model.models
        assert loaded.outcomes == model.outcomes
        np.testing.assert_equal(loaded.mean_cost, model.mean_cost)
        for text in ("17 + 12", "17 * 12", "walk"):
            for name, p in model.p_right(text).items():
                assert loaded.p_right(text)[name] == pytest.approx(p, abs=0.01)
        assert [f.name for f in tmp_path.iterdir()] == ["outcomes.npz"]

    @pytest.mark.parametrize("cut", [0, 1, 4, 100, -1, -200])
    def test_a_cut_file(self, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "outcomes.npz"
        OutcomeModel.fit(ADDER).save(path)
        path.write_bytes(path.read_bytes()[:cut])
        self.refused(path)

    def test_flipped_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "outcomes.npz"
        OutcomeModel.fit(ADDER).save(path)
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(raw)
        self.refused(path)

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        path = tmp_path / "outcomes.npz"
        self.refused(path)  # not there
        for content in (b"", b"[pool]", pickle.dumps({"weights": 1}), b"PK\x03\x04nothing"):
            path.write_bytes(content)
            self.refused(path)
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").replace(path)
        self.refused(path)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("models.npy", b"no array")
        self.refused(path)
        self.refused(tmp_path)

    def test_arrays_that_do_not_belong_together(self, tmp_path: Path) -> None:
        right: dict[str, Any] = {
            "models": np.array(["a", "b"]),
            "weights": np.zeros((2, BUCKETS)),
            "mean_cost": np.ones(2),
            "outcomes": np.array(1),
        }
        path = tmp_path / "outcomes.npz"
        np.savez(path, **right)
        assert OutcomeModel.load(path).models == ("a", "b")
        wrong: dict[str, Any] = {
            "weights": np.zeros((2, 7)),
            "mean_cost": np.ones(3),
            "models": np.array(["a"]),
            "outcomes": np.array([1, 2]),
        }
        for name, value in wrong.items():
            np.savez(path, **(right | {name: value}))
            self.refused(path)
        np.savez(path, **(right | {"weights": np.full((2, BUCKETS), np.nan)}))
        self.refused(path)
        np.savez(path, **(right | {"models": np.array([{"a": 1}, "b"], dtype=object)}))
        self.refused(path)  # nothing pickled is ever run

    def refused(self, path: Path) -> None:
        with pytest.raises(DataError, match="r2reasoner calibrate") as caught:
            OutcomeModel.load(path)
        assert str(path) in str(caught.value)
