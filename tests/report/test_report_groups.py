from pathlib import Path
from typing import Any

import pytest

from r2reasoner.report.groups import Span, average, averaged, group
from r2reasoner.report.results import Evaluated, read_result
from results_on_disk import evaluated, strategy, write


def results(folder: Path, *documents: dict[str, Any]) -> list[Evaluated]:
    found = []
    for number, document in enumerate(documents):
        result = read_result(write(folder / f"{number}.json", document))
        assert isinstance(result, Evaluated)
        found.append(result)
    return found


def test_a_curve_of_the_dial_joins_its_baselines(tmp_path: Path) -> None:
    dial = evaluated() | {
        "rows": [strategy("r2@0", 0.95, 4e-6), strategy("r2@1", 0.8, 1.5e-6)],
        "comparisons": [],
    }
    (one,) = group(results(tmp_path, evaluated(), dial))
    assert [row.strategy for row in one.rows][-2:] == ["r2@0", "r2@1"]
    assert one.sources == (1, 2)
    assert one.front == {"single:small", "r2@1", "r2", "r2@0"}


def test_other_items_stay_apart_and_names_tell_them_apart(tmp_path: Path) -> None:
    other = evaluated()
    other["provenance"]["command"] += " --items blind.jsonl"
    apart = group(results(tmp_path, evaluated(), other))
    assert [one.name for one in apart] == ["toy all (0)", "toy all (1)"]


def test_a_strategy_that_stands_twice_is_not_mixed(tmp_path: Path) -> None:
    assert len(group(results(tmp_path, evaluated(), evaluated()))) == 2


def test_seeds_are_averaged_and_their_spread_is_kept(tmp_path: Path) -> None:
    second = evaluated(seed=1)
    second["rows"][0]["accuracy"] = 0.8
    (one,) = group(results(tmp_path, evaluated(), second))
    ours = one.ours
    assert ours is not None
    assert ours.accuracy == pytest.approx(0.85)
    assert ours.n == 200
    assert one.seeds == (0, 1)
    assert one.spread["r2"] == (0.8, 0.9)


def test_means_over_seeds_inside_one_file_are_told(tmp_path: Path) -> None:
    document = evaluated()
    document["rows"][0] |= {"seeds": [0, 1, 2], "accuracy_by_seed": [0.88, 0.9, 0.92]}
    (one,) = group(results(tmp_path, document))
    assert one.seeds == (0, 1, 2)
    assert one.spread == {"r2": (0.88, 0.92)}


def test_an_unknown_cost_makes_a_mean_unknown_and_is_on_no_front(tmp_path: Path) -> None:
    second = evaluated(seed=1)
    second["rows"][0]["net_cost"] = None
    (one,) = group(results(tmp_path, evaluated(), second))
    assert one.ours is not None
    assert one.ours.net_cost is None
    assert "r2" not in one.front


def test_averages_are_over_what_all_have(tmp_path: Path) -> None:
    small = evaluated("c")
    small["rows"] = small["rows"][:2]
    groups = group(results(tmp_path, evaluated("a"), evaluated("b"), small))
    over, names = averaged(groups)
    assert [one.name for one in over] == ["toy a", "toy b"]
    assert names == ("r2", "cot", "single:small", "single:large")
    assert averaged(groups[:1]) == ((), ())


def test_independent_errors_add_as_squares() -> None:
    one = Span(0.5, (0.4, 0.7))
    mean = average([one, one])
    assert mean.value == 0.5
    assert mean.ends == pytest.approx((0.5 - 0.1 / 2**0.5, 0.5 + 0.2 / 2**0.5))
    assert average([one, Span(0.1, None)]).ends is None
