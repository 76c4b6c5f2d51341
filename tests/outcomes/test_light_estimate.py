import sys
from pathlib import Path

import pytest

from measured_files import COST, measured, write
from pools import pool_at
from r2reasoner.errors import ConfigError
from r2reasoner.outcomes.measured import subtask_outcomes
from r2reasoner.outcomes.routers import ROUTERS
from r2reasoner.outcomes.routers.estimate import SMALLEST_P, light_estimate
from r2reasoner.outcomes.sets import OutcomeSet


@pytest.fixture
def records(tmp_path: Path) -> OutcomeSet:
    return subtask_outcomes(pool_at("http://mock/v1", outcomes=measured(tmp_path, "add", "prove")))


def test_the_mean_of_each_model_and_what_it_costs(records: OutcomeSet) -> None:
    estimate = light_estimate("best", records)
    assert estimate.p_right("whatever") == {"small": 0.5, "medium": 0.5, "large": 1 - SMALLEST_P}
    assert estimate.mean_cost == pytest.approx(COST)
    assert estimate.outcomes == 2 * 70 * 3


@pytest.mark.parametrize("name", [name for name in ROUTERS if name not in ("best", "group")])
def test_every_router_tells_what_small_can_do(name: str, records: OutcomeSet) -> None:
    estimate = light_estimate(name, records)
    easy, hard = (estimate.p_right(t) for t in ("add 91 and 3 apples", "prove lemma 5 of topology"))
    assert easy["small"] > 0.7 > 0.3 > hard["small"]
    assert hard["large"] > 0.9
    assert all(SMALLEST_P <= p <= 1 - SMALLEST_P for p in (*easy.values(), *hard.values()))


def test_it_is_fitted_once_for_all_who_open_it(records: OutcomeSet, tmp_path: Path) -> None:
    again = subtask_outcomes(pool_at("http://other/v1", outcomes=tmp_path / "outcomes.npz"))
    assert light_estimate("ridge", records) is light_estimate("ridge", again)


def test_a_price_that_nobody_knows_is_no_number(tmp_path: Path) -> None:
    line = {"text": "a", "model": "small", "right": True, "cost": None}
    write(tmp_path / "o.jsonl", [line, line | {"model": "large", "cost": 2}])
    records = subtask_outcomes(pool_at("http://mock/v1", outcomes=tmp_path / "o.npz"))
    cost = light_estimate("best", records).mean_cost
    assert str(cost["small"]) == "nan"
    assert cost["large"] == pytest.approx(2)


def test_an_unknown_router_and_a_missing_package(
    records: OutcomeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no light router 'rigde'; did you mean 'ridge'"):
        light_estimate("rigde", records)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r"pip install 'r2reasoner\[evaluation\]'"):
        light_estimate("mf", records)
