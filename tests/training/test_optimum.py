import json

import pytest

from r2reasoner.errors import DataError
from r2reasoner.training.optimum import Compared, Found, Gap, gap


def item(mine: int | None, best: int | None, trials: int = 5, calls: int = 6) -> Compared:
    return Compared(Found(mine, trials, calls), Found(best, 81, 20))


def test_figures_are_of_solvable_items() -> None:
    found = gap([item(10, 10), item(30, 10), item(None, 10), item(None, None, 15, 16)])
    assert (found.items, found.solvable) == (4, 3)
    assert found.optimal == pytest.approx(1 / 3)
    assert found.missed == pytest.approx(1 / 3)
    assert found.cost_ratio == pytest.approx(2)
    assert found.total_ratio == pytest.approx(40 / 20)
    assert (found.trials, found.all_trials) == (7.5, 81)
    assert (found.calls, found.all_calls) == (8.5, 20)


def test_the_ratio_of_sums_weighs_dear_items_more() -> None:
    found = gap([item(100, 100), item(4, 1)])
    assert found.total_ratio == pytest.approx(104 / 101)
    assert found.cost_ratio == pytest.approx(2.5)


def test_it_is_told_in_one_line() -> None:
    told = str(gap([item(10, 10), item(30, 10)]))
    assert "the optimum for 50.0%" in told
    assert "93.8% saved" in told
    assert "70.0% saved" in told
    assert "\n" not in told


def test_it_comes_back_from_the_figures_of_a_run() -> None:
    found = gap([item(10, 10), item(30, 10)])
    figures = {"stage": "allocations", "plans": 7, **json.loads(json.dumps(found.figures()))}
    assert Gap.of(figures) == found
    assert Gap.of({"stage": "allocations", "plans": 7}) is None


@pytest.mark.parametrize("items", [[], [item(None, None)], [item(None, 10)]])
def test_where_nothing_was_solved_there_is_nothing_to_compare(items: list[Compared]) -> None:
    with pytest.raises(DataError, match="no item has a right allocation"):
        gap(items)
