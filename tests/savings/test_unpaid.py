from dataclasses import replace
from pathlib import Path

import pytest

import toy_pool
from logged_requests import openai, write_lines
from r2reasoner.estimate import Outcome, OutcomeModel
from r2reasoner.pool.cards import Pool
from r2reasoner.savings.logs import Logged, read_logs
from r2reasoner.savings.unpaid import PLAN_TOKENS, outlook
from r2reasoner.types import Usage

POOL = toy_pool.pool("http://127.0.0.1:1")


@pytest.fixture
def requests(tmp_path: Path) -> list[Logged]:
    rows = [openai("red", "RED"), openai("blue and white", "BLUE WHITE")]
    return read_logs([write_lines(tmp_path / "l.jsonl", *rows)]).requests


def worker_cost(pool: Pool, name: str) -> int:
    price = pool.card(name).price
    assert price is not None
    return 2 * price.cost(Usage(100, 10))


def planning(pool: Pool) -> int:
    price = pool.card("planner").price
    assert price is not None
    limit = pool.card("planner").max_tokens
    return sum(price.cost(Usage(100, min(limit, n + PLAN_TOKENS))) for n in (1, 4))


def test_every_worker_and_the_ladders_choice(requests: list[Logged]) -> None:
    found = outlook(requests, POOL, 0.0)
    assert [e.cost for e in found.workers] == [
        worker_cost(POOL, name) for name in ("small", "middle", "large")
    ]
    assert found.router.cost == worker_cost(POOL, "large") + planning(POOL)
    assert any("not calibrated" in text for text in found.assumptions)
    assert found.p_right is None


def test_measured_outcomes_choose(requests: list[Logged], tmp_path: Path) -> None:
    texts = ("red", "blue and white", "pink", "green")
    measured = [
        Outcome(text, model, True, cost)
        for text in texts
        for model, cost in (("small", 1), ("large", 100))
    ]
    OutcomeModel.fit(measured).save(tmp_path / "o.npz")
    pool = replace(POOL, allocator="calibrated", outcomes=tmp_path / "o.npz")
    found = outlook(requests, pool, 0.9)
    assert found.router.cost == worker_cost(pool, "small") + planning(pool)
    assert found.p_right is not None
    assert found.p_right > 0.5


def test_an_allocator_that_must_be_asked_gives_a_range(requests: list[Logged]) -> None:
    pool = replace(POOL, allocator="large")
    found = outlook(requests, pool, 0.5).router
    assert found.cost is None
    assert found.low is not None
    assert found.high is not None
    assert found.low > worker_cost(pool, "small") + planning(pool)
    assert found.high - found.low == worker_cost(pool, "large") - worker_cost(pool, "small")


def test_an_unknown_price_makes_the_router_unknown(requests: list[Logged]) -> None:
    unpriced = replace(POOL.policies["planner"], price=None)
    found = outlook(requests, replace(POOL, policies={"planner": unpriced}), 0.5)
    assert found.router.cost is None
    assert found.router.low is None
