"""A pool that is written is the pool that is read."""

import os
import tomllib
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2reasoner.config import load_settings
from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Card, Endpoint, Group, Pool, Price
from r2reasoner.pool.load import load_card, load_pool, shipped
from r2reasoner.pool.write import card_text, pool_text, write_pool


def same(pool: Pool) -> dict[str, Any]:
    """What of a pool must survive; its endpoints' paths as they lie on disk."""

    def card(c: Card) -> Card:
        path = None if c.endpoint.path is None else Path(os.path.normpath(c.endpoint.path))
        price = c.price
        if price is not None and not price.source.startswith("pool file"):
            price = replace(price, source=f"pool file: {price.source}")
        return replace(c, endpoint=replace(c.endpoint, path=path), price=price)

    return {
        "name": pool.name,
        "workers": [card(c) for c in pool.workers],
        "policies": {name: card(c) for name, c in pool.policies.items()},
        "decomposer": pool.decomposer,
        "allocator": pool.allocator,
        "outcomes": None if pool.outcomes is None else Path(os.path.normpath(pool.outcomes)),
        "splits": pool.splits,
    }


@pytest.mark.parametrize("name", [n for n in shipped() if n.startswith("nano")])
def test_a_shipped_pool_comes_back_from_another_folder(tmp_path: Path, name: str) -> None:
    pool = load_pool(name)
    write_pool(pool, tmp_path / "mine.toml")
    again = load_pool(tmp_path / "mine.toml")
    assert same(again) == same(pool)
    assert again.outcomes is not None
    assert again.outcomes.is_file()
    assert again.workers[0].endpoint.path is not None
    assert (again.workers[0].endpoint.path / again.workers[0].model).is_dir()


def test_what_a_pool_file_need_not_say_is_left_out(tmp_path: Path) -> None:
    text = pool_text(load_pool("nano"), tmp_path)
    assert "[endpoints.nano]" in text
    tables = tomllib.loads(text)
    assert tables["endpoints"]["nano"].keys() == {"kind", "path"}
    assert "dial" not in tables["workers"][0]


def test_list_prices_are_left_to_the_lists(tmp_path: Path) -> None:
    pool = load_pool("paper")
    text = pool_text(pool, tmp_path)
    listed = [c for c in pool.workers if c.price and not c.price.source.startswith("pool file")]
    assert listed
    tables = {t["name"]: t for t in tomllib.loads(text)["workers"]}
    for card in listed:
        assert "input_price" not in tables[card.name]
    write_pool(pool, tmp_path / "mine.toml")
    assert load_pool(tmp_path / "mine.toml").workers == pool.workers


def test_a_list_price_of_another_model_is_written(tmp_path: Path) -> None:
    """A served policy takes the price of the seat it sits in, which no list has for it."""
    pool = load_pool("paper")
    listed = next(c for c in pool.workers if c.price and "genai" in c.price.source)
    other = replace(listed, name="mine", model="my-own-policy")
    write_pool(replace(pool, workers=(other,), decomposer="mine"), tmp_path / "mine.toml")
    price = load_pool(tmp_path / "mine.toml").card("mine").price
    assert price is not None
    assert listed.price is not None
    assert (price.input, price.output) == (listed.price.input, listed.price.output)


def test_the_router_table_is_carried(tmp_path: Path) -> None:
    router = {"trade_off": Decimal("0.8"), "max_subtasks": 5, "max_cost": "0.001"}
    write_pool(load_pool("nano"), tmp_path / "mine.toml", router=router)
    found = load_settings(tmp_path / "mine.toml")
    assert (found.trade_off, found.max_subtasks) == (0.8, 5)
    assert found.max_cost == Decimal("0.001")
    load_pool(tmp_path / "mine.toml")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml: cannot be written"):
        write_pool(load_pool("nano"), tmp_path / "none" / "mine.toml")


def test_a_card_joins_the_pool_that_has_its_endpoint(tmp_path: Path) -> None:
    pool = load_pool("nano")
    (tmp_path / "card.toml").write_text(card_text(pool.strongest))
    fewer = replace(pool, workers=pool.workers[:-1])
    card = load_card(tmp_path / "card.toml", fewer)
    assert replace(card, price=None) == replace(pool.strongest, price=None)
    assert card.price is not None
    assert pool.strongest.price is not None
    assert card.price.input == pool.strongest.price.input


NAMES = st.text("abcXYZ019 .-_@/\"'\\#é😀", min_size=1, max_size=12).filter(
    lambda t: t == t.strip() and t not in ("calibrated", "ladder")
)
RATES = st.decimals(0, 1000, places=6)


@st.composite
def cards(draw: st.DrawFn, name: str) -> Card:
    embedded = draw(st.booleans())
    price = None
    if draw(st.booleans()):
        rate = draw(RATES)
        source = draw(st.sampled_from(["pool file", "pool file: my invoice"]))
        cached = draw(st.none() | st.just(rate / 2))
        price = Price(rate, draw(RATES), cached, source)
    context = draw(st.integers(1, 10**6))
    return Card(
        name=name,
        endpoint=Endpoint(name="here", kind="embedded", path=Path("/somewhere/else"))
        if embedded
        else Endpoint(
            name="there",
            kind="openai",
            base_url="http://127.0.0.1:1/v1",
            key_env=None,
            concurrency=3,
            connect_timeout_s=2.5,
            read_timeout_s=7.0,
        ),
        model=draw(st.sampled_from(["a", "deep/er"])),
        price=price,
        group=draw(st.none() | st.sampled_from(Group)),
        context=context,
        max_tokens=draw(st.integers(1, context)),
        concurrency=draw(st.none() | st.integers(1, 99)),
        capabilities=draw(st.frozensets(st.sampled_from(["json", "tools"]))),
        prompt=draw(st.sampled_from(["chat", "plain"])),
        plan_format=draw(st.sampled_from(["json", "line"])),
        parameters=draw(st.none() | st.integers(1, 10**9)),
        sha256="0" * 64 if embedded and draw(st.booleans()) else None,
        dial=draw(st.integers(0, 9)),
        knows=draw(st.sampled_from([(), ("x", "y")])),
    )


@settings(max_examples=40)
@given(st.data())
def test_any_pool_comes_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    names = data.draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    workers = tuple(data.draw(cards(name)) for name in names[1:])
    pool = Pool(
        name="some pool",
        workers=workers,
        policies={names[0]: data.draw(cards(names[0]))},
        decomposer=names[0],
        allocator=data.draw(st.sampled_from(["ladder", "calibrated", names[0]])),
        outcomes=data.draw(st.sampled_from([None, Path("/measured/outcomes.npz")])),
        splits=data.draw(st.sampled_from([(), ("length",)])),
    )
    file = tmp_path_factory.mktemp("pool") / "mine.toml"
    write_pool(pool, file)
    assert same(load_pool(file)) == same(pool)
