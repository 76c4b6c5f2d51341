from pathlib import Path
from typing import Any

import pytest

import toy_pool
from logged_requests import litellm, openai, write_lines
from r2reasoner.pool.cards import Price
from r2reasoner.savings.logs import Logged, read_logs
from r2reasoner.savings.today import Paid, by_source, card_of, paid
from r2reasoner.types import Usage, to_pico

POOL = toy_pool.pool("http://127.0.0.1:1")


def logged(folder: Path, row: dict[str, Any]) -> Logged:
    (request,) = read_logs([write_lines(folder / "l.jsonl", row)]).requests
    return request


def test_the_pool_file_comes_first(tmp_path: Path) -> None:
    request = logged(tmp_path, litellm("a", "b", "mock/large", response_cost=0.5))
    price = POOL.card("large").price
    assert price is not None
    assert paid(request, POOL) == Paid(price.cost(Usage(100, 10)), "pool file")
    assert card_of("mock/large", POOL) == POOL.card("large")


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o"])
def test_then_the_public_lists(tmp_path: Path, model: str) -> None:
    found = paid(logged(tmp_path, openai("a", "b", model)), POOL)
    assert found.source.startswith("genai-prices")
    assert found.cost is not None
    assert found.cost > 0


def test_then_the_log_and_else_it_is_unknown_and_never_nothing(tmp_path: Path) -> None:
    row = litellm("a", "b", "mystery", response_cost=0.25)
    assert paid(logged(tmp_path, row), POOL) == Paid(to_pico("0.25"), "the log")
    for cost in (0, None, -1, "much", True):
        unknown = paid(logged(tmp_path, row | {"response_cost": cost}), POOL)
        assert unknown == Paid(None, "unknown")
    elsewhere = openai("a", "b", "gpt-4o")
    assert paid(logged(tmp_path, elsewhere), POOL, "http://localhost:1/v1").cost is None


def test_sources_are_counted_most_first() -> None:
    costs = [Paid(1, "a"), Paid(None, "unknown"), Paid(None, "unknown")]
    assert list(by_source(costs).items()) == [("unknown", 2), ("a", 1)]
    assert isinstance(POOL.card("large").price, Price)
