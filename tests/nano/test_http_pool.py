"""The pool file of a served pool: what the loader reads of it is the same pool on another road."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

import pools
from r2reasoner.config import load_settings
from r2reasoner.errors import ConfigError
from r2reasoner.nano.http_pool import check_replaceable, served_pool
from r2reasoner.pool.cards import Card, Group, Pool, Price
from r2reasoner.pool.load import load_pool

URL = "http://127.0.0.1:8099/v1"


def read_back(pool: Pool, folder: Path) -> Pool:
    file = folder / "served.toml"
    file.write_text(served_pool(pool, URL))
    return load_pool(file)


def figures(card: Card) -> tuple[object, ...]:
    price = card.price
    rates = None if price is None else (price.input, price.output, price.cached)
    return (
        *(card.name, card.group, rates, card.context, card.max_tokens),
        *(card.prompt, card.plan_format, card.parameters, card.capabilities),
        *(card.dial, card.knows),
    )


def test_models_and_prices_stay_the_same(tmp_path: Path) -> None:
    pool = pools.pool_at("http://elsewhere/v1", plan_format="line", outcomes=tmp_path / "o.npz")
    first = replace(
        pool.workers[0],
        group=Group.SMALL,
        price=Price(Decimal("0.000000000001"), Decimal("1E-7"), Decimal("0.0")),
        parameters=1072,
        capabilities=frozenset({"scan", 'say "hi"'}),
        model="folder/elsewhere",
        sha256="0" * 64,
    )
    second = replace(pool.workers[1], price=None)
    knowing = replace(pool.policies["planner"], dial=5, knows=("small", "medium"))
    pool = replace(
        pool,
        workers=(first, second),
        policies={"planner": knowing},
        splits=("scan/length", "arithmetic"),
        allocator="calibrated",
    )
    served = read_back(pool, tmp_path)
    assert [figures(c) for c in served.workers] == [figures(c) for c in pool.workers]
    assert [figures(c) for c in served.policies.values()] == [
        figures(c) for c in pool.policies.values()
    ]
    assert (served.name, served.decomposer, served.allocator) == (
        *("mock-http", "planner", "calibrated"),
    )
    assert (served.splits, served.outcomes) == (pool.splits, pool.outcomes)
    assert {card.endpoint.base_url for card in served.workers} == {URL}
    assert {card.endpoint.kind for card in served.workers} == {"openai"}
    assert [card.model for card in served.workers] == ["small", "medium"]


def test_the_routers_settings_are_taken_along(tmp_path: Path) -> None:
    source = pools.pool_file(tmp_path, "http://elsewhere/v1")
    source.write_text(source.read_text() + "[router]\ntrade_off = 0.25\nmax_subtasks = 7\n")
    read_back(load_pool(source), tmp_path)
    settings = load_settings(tmp_path / "served.toml")
    assert (settings.trade_off, settings.max_subtasks) == (0.25, 7)


def test_only_its_own_files_are_replaced(tmp_path: Path) -> None:
    mine, ours = tmp_path / "mine.toml", tmp_path / "ours.toml"
    mine.write_text("[pool]\n")
    ours.write_text(served_pool(pools.pool_at("http://elsewhere/v1"), URL))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (mine, binary, tmp_path):
        with pytest.raises(ConfigError, match="not ours to replace"):
            check_replaceable(file)
    check_replaceable(ours)
    check_replaceable(tmp_path / "new.toml")
