import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from r2reasoner.outcomes import metrics
from r2reasoner.outcomes.sets import Floats

RIGHT = st.sampled_from([0.0, 1.0])


@st.composite
def two_models(draw: st.DrawFn) -> tuple[Floats, Floats, Floats]:
    """Scores of a weak and a strong model, and a preference with ties."""
    items = draw(st.integers(2, 30))
    weak = draw(arrays(float, items, elements=RIGHT))
    strong = draw(arrays(float, items, elements=RIGHT))
    preference = draw(arrays(float, items, elements=st.integers(0, 5).map(float)))
    return weak, strong, preference


def by_hand(weak: Floats, strong: Floats, order: list[int]) -> Floats:
    """Mean score above weak's after each more item, in an order, goes to the strong model."""
    gained = [0.0]
    for item in order:
        gained.append(gained[-1] + (strong[item] - weak[item]) / len(order))
    return np.array(gained)


class TestGap:
    def test_by_hand(self) -> None:
        weak = np.array([0.0, 1.0, 0.0, 1.0])
        strong = np.array([1.0, 1.0, 1.0, 0.0])
        curve = metrics.gap_curve(weak, strong, np.array([4.0, 3.0, 2.0, 1.0]))
        assert curve.shares[0].tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert curve.gains[0].tolist() == [0, 0.25, 0.25, 0.5, 0.25]
        # areas .03125 + .0625 + .09375 + .09375 of a gap of .25
        assert curve.apgr() == pytest.approx([0.28125 / 0.25])
        assert curve.cpt(0.5) == pytest.approx([0.125])
        assert curve.cpt(0.8) == pytest.approx([0.2])

    def test_ties_are_a_lottery(self) -> None:
        weak, strong = np.array([0.0, 0.0, 1.0, 0.0]), np.array([1.0, 0.0, 1.0, 0.0])
        curve = metrics.gap_curve(weak, strong, np.zeros(4))
        assert curve.apgr() == pytest.approx([0.5])
        assert curve.cpt(0.8) == pytest.approx([0.8])

    @given(two_models())
    def test_against_a_plain_loop(self, made: tuple[Floats, Floats, Floats]) -> None:
        weak, strong, _ = made
        preference = np.arange(len(weak), 0, -1.0)
        curve = metrics.gap_curve(weak, strong, preference)
        assert curve.gains[0] == pytest.approx(by_hand(weak, strong, list(range(len(weak)))))

    @given(two_models())
    def test_oracle_order_is_the_best_and_the_reverse_the_worst(
        self, made: tuple[Floats, Floats, Floats]
    ) -> None:
        weak, strong, preference = made
        if strong.mean() <= weak.mean():
            return
        (found,) = metrics.gap_curve(weak, strong, preference).apgr()
        (best,) = metrics.gap_curve(weak, strong, strong - weak).apgr()
        (worst,) = metrics.gap_curve(weak, strong, weak - strong).apgr()
        assert worst - 1e-9 <= found <= best + 1e-9
        assert best + worst == pytest.approx(1)
        # one more than what the strong model loses, on the gap
        most = np.maximum(strong - weak, 0).mean() / (strong - weak).mean()
        assert best <= most + 1e-9
        assert best >= 0.5 - 1e-9

    def test_a_random_order_recovers_half_on_average(self) -> None:
        rng = np.random.default_rng(0)
        weak, strong = (rng.random(400) < 0.6).astype(float), (rng.random(400) < 0.8).astype(float)
        found = [metrics.gap_curve(weak, strong, rng.random(400)).apgr()[0] for _ in range(400)]
        assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / 20)

    @given(two_models(), st.integers(0, 9))
    def test_weights_are_items_so_often(
        self, made: tuple[Floats, Floats, Floats], seed: int
    ) -> None:
        weights = np.random.default_rng(seed).integers(0, 3, (4, len(made[0]))).astype(float)
        weights[:, 0] += 1
        curve = metrics.gap_curve(*made, weights)
        for i, row in enumerate(weights.astype(int)):
            often = metrics.gap_curve(*(np.repeat(each, row) for each in made))
            assert curve.apgr()[i] == pytest.approx(often.apgr()[0], nan_ok=True)
            assert curve.cpt(0.5)[i] == pytest.approx(often.cpt(0.5)[0], nan_ok=True)

    @given(two_models(), st.floats(0.05, 1))
    def test_cpt_is_the_first_share_that_does(
        self, made: tuple[Floats, Floats, Floats], level: float
    ) -> None:
        curve = metrics.gap_curve(*made)
        (share,) = curve.cpt(level)
        if curve.gap[0] <= 0:
            assert np.isnan(share)
            return
        assert 0 <= share <= 1
        wanted = level * curve.gap[0]
        assert np.interp(share, curve.shares[0], curve.gains[0]) >= wanted - 1e-9
        before = curve.gains[0][curve.shares[0] < share - 1e-9]
        assert (before < wanted).all()

    def test_without_a_gap_there_is_nothing_to_recover(self) -> None:
        same = np.array([0.0, 1.0])
        curve = metrics.gap_curve(same, same, same)
        assert np.isnan(curve.apgr()).all()
        assert np.isnan(curve.cpt(0.5)).all()

    def test_holes_are_left_out(self) -> None:
        weak, strong = np.array([0.0, np.nan, 1.0, 0.0]), np.array([1.0, 1.0, np.nan, 0.0])
        curve = metrics.gap_curve(weak, strong, np.array([2.0, 9.0, 9.0, 1.0]))
        assert curve.gap == pytest.approx([0.5])
        assert curve.apgr() == pytest.approx([0.75])


class TestWithin:
    def test_each_part_has_its_own_ranks(self) -> None:
        preference = np.array([5.0, 1.0, 0.2, 0.2, 0.9])
        parts = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
        assert metrics.within(preference, parts) == pytest.approx(
            [2 / 3, 1 / 3, 3 / 8, 3 / 8, 3 / 4]
        )

    def test_what_knows_nothing_ties_across_parts_of_any_size(self) -> None:
        parts = np.array([0.0, 0.0, 0.0, 1.0, 1.0])
        assert set(metrics.within(np.array([3.0, 3, 3, 7, 7]), parts)) == {0.5}


POINTS = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=12)


class TestHull:
    def test_by_hand(self) -> None:
        prices, scores = np.array([1.0, 2, 3, 4, 5]), np.array([0.2, 0.3, 0.8, 0.7, 0.9])
        found = metrics.hull(prices, scores)
        assert found.prices.tolist() == [1, 3, 5]
        assert found.scores.tolist() == [0.2, 0.8, 0.9]
        # .5 * 2 + .85 * 2 from 1 to 5, and .9 for one more
        assert metrics.aiq(found, 1, 5) == pytest.approx(2.7 / 4)
        assert metrics.aiq(found, 1, 6) == pytest.approx(3.6 / 5)
        assert metrics.price_at_score(found, 0.5) == pytest.approx(2)
        assert np.isnan(metrics.price_at_score(found, 0.95))

    def test_no_range_of_prices(self) -> None:
        assert np.isnan(metrics.aiq(metrics.hull(np.array([1.0]), np.array([0.5])), 1, 1))

    def test_below_the_cheapest_point_there_is_nothing(self) -> None:
        assert metrics.aiq(metrics.hull(np.array([2.0]), np.array([0.5])), 0, 4) == 0.25

    @given(POINTS)
    def test_every_point_is_under_it_and_it_only_rises(
        self, points: list[tuple[float, float]]
    ) -> None:
        prices, scores = (np.array(side) for side in zip(*points, strict=True))
        found = metrics.hull(prices, scores)
        assert (np.diff(found.prices) > 0).all()
        assert (np.diff(found.scores) > 0).all()
        assert found.scores[-1] == scores.max()
        heights = np.interp(prices, found.prices, found.scores)
        assert (heights >= scores - 1e-9).all()
        low, high = prices.min(), prices.max()
        if high > low:
            assert 0 <= metrics.aiq(found, low, high) <= scores.max() + 1e-9


class TestRest:
    def test_regret_and_best(self) -> None:
        scores = np.array([[0.0, 1.0], [np.nan, 0.5], [np.nan, np.nan]])
        assert metrics.best(scores) == pytest.approx([1, 0.5, np.nan], nan_ok=True)
        assert metrics.regret(scores, np.array([0.0, 0.5, np.nan])) == pytest.approx(0.5)

    @settings(max_examples=30)
    @given(arrays(float, (5, 8), elements=st.integers(0, 3).map(float)))
    def test_means_leave_holes_out(self, weights: Floats) -> None:
        values = np.array([1.0, np.nan, 3, 4, 5, np.nan, 7, 8])
        found = metrics.means(values, weights)
        for row, mean in zip(weights, found, strict=True):
            often = np.repeat(values, row.astype(int))
            often = often[~np.isnan(often)]
            assert mean == pytest.approx(often.mean() if len(often) else np.nan, nan_ok=True)
