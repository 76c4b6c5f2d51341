"""Who answers what."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from gateways import ABLE, able_pool
from pools import pool_at
from r2reasoner.chat import Refusal
from r2reasoner.config import settings
from r2reasoner.gateway.routing import Direct, Routed, way_of
from r2reasoner.gateway.wire import Asked, read_asked

POOL = pool_at("http://127.0.0.1:9/v1")
ABLE_POOL = able_pool("http://127.0.0.1:9/v1")
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def asked(model: str, **more: Any) -> Asked:
    body = {"model": model, "messages": [{"role": "user", "content": "a"}]} | more
    return read_asked(json.dumps(body).encode())


@pytest.mark.parametrize(("name", "dial"), [("r2reasoner", 0.3), ("r2reasoner:0.75", 0.75)])
def test_the_router_by_name(name: str, dial: float) -> None:
    way = way_of(asked(name), POOL, settings())
    assert isinstance(way, Routed)
    assert (way.settings.trade_off, way.direct) == (dial, False)


def test_the_r2_field_wins_over_the_name_and_never_over_the_operator() -> None:
    wish = {"trade_off": 1, "max_cost": 5, "deadline_s": 1000, "direct": True}
    request = asked("r2reasoner:0.1", r2=wish, temperature=0.5, max_tokens=7)
    way = way_of(request, POOL, settings(max_cost="0.5", deadline_s=20))
    assert isinstance(way, Routed)
    assert way.direct
    got = way.settings
    assert (got.trade_off, got.max_cost, got.deadline_s) == (1.0, Decimal("0.5"), 20.0)
    assert (got.temperature, got.max_answer_tokens) == (0.5, 7)


@pytest.mark.parametrize(
    "name",
    [
        "r2reasoner:",
        "r2reasoner:1.5",
        "r2reasoner:-1",
        "r2reasoner:nan",
        "r2reasoner:x",
        "planner",
        "http://127.0.0.1:9/v1",
        "../../etc/passwd",
    ],
)
def test_names_of_nothing(name: str) -> None:
    if name == "r2reasoner:":
        assert isinstance(way_of(asked(name), POOL, settings()), Routed)
        return
    with pytest.raises(Refusal) as error:
        way_of(asked(name), POOL, settings())
    assert (error.value.status, error.value.code) == (404, "model_not_found")


def test_a_pools_model_and_no_other() -> None:
    way = way_of(asked("medium"), POOL, settings())
    assert isinstance(way, Direct)
    assert [card.name for card in way.candidates] == ["medium"]


@pytest.mark.parametrize(
    ("dial", "order"), [("0", ["large", "medium"]), ("1", ["medium", "large"])]
)
def test_one_capable_model_by_the_dial(dial: str, order: list[str]) -> None:
    way = way_of(asked(f"r2reasoner:{dial}", tools=TOOLS), ABLE_POOL, settings())
    assert isinstance(way, Direct)
    assert [card.name for card in way.candidates] == order


def test_bypass_is_the_strongest_capable_one_first() -> None:
    way = way_of(asked("r2reasoner"), POOL, settings(), bypass=True)
    assert isinstance(way, Direct)
    assert [card.name for card in way.candidates] == ["large", "medium", "small"]


@pytest.mark.parametrize("name", ["r2reasoner", "small"])
def test_no_model_is_capable(name: str) -> None:
    with pytest.raises(Refusal, match="tools") as error:
        way_of(asked(name, tools=TOOLS), POOL, settings())
    assert (error.value.code, error.value.param) == ("unsupported_parameter", "tools")


def test_what_is_refused_names_the_field() -> None:
    with pytest.raises(Refusal) as error:
        way_of(asked("small", response_format={"type": "json_object"}), POOL, settings())
    assert error.value.param == "response_format"


def test_log_probabilities_are_told_unless_the_card_says_no() -> None:
    assert isinstance(way_of(asked("small", logprobs=True), POOL, settings()), Direct)
    silent = [replace(c, capabilities=ABLE | {"no_logprobs"}) for c in POOL.workers]
    with pytest.raises(Refusal, match="logprobs"):
        way_of(asked("small", logprobs=True), replace(POOL, workers=tuple(silent)), settings())
