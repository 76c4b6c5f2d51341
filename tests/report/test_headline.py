from pathlib import Path

import pytest

from r2reasoner.report.groups import group
from r2reasoner.report.headline import claims, standings, title
from r2reasoner.report.results import Evaluated, read_result
from results_on_disk import evaluated, write


def read(file: Path, **more: object) -> Evaluated:
    result = read_result(write(file, evaluated(**more)))  # type: ignore[arg-type]
    assert isinstance(result, Evaluated)
    return result


def test_the_first_words_say_what_is_saved_at_what_accuracy(tmp_path: Path) -> None:
    found = standings(group([read(tmp_path / "a.json")]))
    assert title(found) == "r2 costs 90 % less than CoT, at 2.0 points less accuracy"
    cot, single, best = claims(found)
    assert (cot.saving, cot.saving_range) == ("90.0 % less", "89.0 to 91.0 %")
    assert (cot.difference, cot.difference_range) == ("−2.0 points", "−3.0 to −1.0")
    assert single.over == "toy all, 100 items (single:large)"
    assert best.saves


def test_a_loss_is_called_a_loss(tmp_path: Path) -> None:
    document = evaluated()
    document["comparisons"][0] |= {"net_cost_ratio": 1.5, "net_cost_ratio_ci95": [1.4, 1.6]}
    document["comparisons"][0]["accuracy_difference"] = 0.01
    result = read_result(write(tmp_path / "a.json", document))
    assert isinstance(result, Evaluated)
    found = standings(group([result]))
    assert title(found) == "r2 costs 1.50 times as much as CoT, and is 1.0 point more accurate"
    assert claims(found)[0].saves is False
    assert claims(found)[0].saving_range == "1.40 to 1.60 times"


def test_ratios_of_several_benchmarks_make_a_geometric_mean(tmp_path: Path) -> None:
    document = evaluated("b")
    document["comparisons"][0] |= {"net_cost_ratio": 0.4, "net_cost_ratio_ci95": [0.36, 0.44]}
    second = read_result(write(tmp_path / "b.json", document))
    assert isinstance(second, Evaluated)
    found = standings(group([read(tmp_path / "a.json", split="a"), second]))
    assert found[0].ratio.value == pytest.approx(0.2)
    ends = found[0].ratio.ends
    assert ends is not None
    assert ends[0] < 0.2 < ends[1]
    assert "dearest on toy b: 60.0 % less" in claims(found)[0].over


def test_without_a_rival_nothing_is_claimed() -> None:
    assert standings([]) == []
    assert title([]) == "Route-and-Reason: results"
