import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from r2reasoner.evaluation.bootstrap import Ratio, intervals

rows = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def mean(values: list[bool]) -> Ratio:
    return Ratio(np.array(values, float), np.ones(len(values)))


@settings(max_examples=20, deadline=None)
@given(rows, st.integers(0, 9))
def test_a_mean_lies_in_its_interval_and_a_seed_gives_it_again(
    pairs: list[tuple[bool, bool]], seed: int
) -> None:
    a, b = ([p[i] for p in pairs] for i in (0, 1))
    (ci95,) = intervals([mean(a)], seed, draws=100)
    assert ci95 is not None
    low, high = ci95
    assert 0 <= low <= sum(a) / len(a) <= high <= 1
    assert intervals([mean(a), mean(b)], seed, draws=100)[0] == ci95


def test_a_strategy_against_itself_has_no_spread_however_hard_the_items_vary() -> None:
    right = np.array([1.0, 0.0] * 50)
    cost = np.arange(1.0, 101.0)
    difference, ratio = intervals([Ratio(right - right, np.ones(100)), Ratio(cost, cost)], 0)
    assert (difference, ratio) == ([0.0, 0.0], [1.0, 1.0])


def test_the_width_is_that_of_the_binomial_distribution() -> None:
    (ci95,) = intervals([mean([True] * 400 + [False] * 600)], seed=3)
    assert ci95 is not None
    assert abs(ci95[0] - 0.3696) < 0.006
    assert abs(ci95[1] - 0.4304) < 0.006


def test_nothing_in_the_denominator_gives_no_interval() -> None:
    nothing, rare = np.zeros(50), np.array([1.0] + [0.0] * 49)
    assert intervals([Ratio(nothing, nothing), Ratio(rare, rare)], 0) == [None, None]


def test_more_items_than_one_chunk_holds_give_the_same_kind_of_interval() -> None:
    (ci95,) = intervals([mean([True, False] * 20_000)], seed=0, draws=60)
    assert ci95 is not None
    assert 0.49 < ci95[0] < 0.5 < ci95[1] < 0.51
