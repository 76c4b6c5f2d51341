import asyncio
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from r2reasoner.client.route import Route, chat_url
from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Card, Endpoint, Price


def endpoint_at(base_url: str, **settings: Any) -> Endpoint:
    return Endpoint(name="e", kind="openai", base_url=base_url, **settings)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
        ("https://api.example.com/v1/", "https://api.example.com/v1/chat/completions"),
        ("https://api.example.com", "https://api.example.com/chat/completions"),
        ("https://e.com/v1?version=2", "https://e.com/v1/chat/completions?version=2"),
        ("http://[::1]:80/v1", "http://[::1]/v1/chat/completions"),
    ],
)
def test_where_chat_requests_go(base_url: str, url: str) -> None:
    assert str(chat_url(endpoint_at(base_url))) == url


@pytest.mark.parametrize(
    "base_url", ["", "localhost:8000/v1", "ftp://e.com/v1", "/v1", "http://", "http://e.com:x/v1"]
)
def test_an_odd_address_is_a_config_error_naming_the_endpoint(base_url: str) -> None:
    with pytest.raises(ConfigError, match="endpoint 'e'"):
        chat_url(endpoint_at(base_url))


def test_credentials_in_the_address_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="key_env") as raised:
        chat_url(endpoint_at("https://user:hunter2@e.com/v1"))
    assert "hunter2" not in str(raised.value)


def test_an_embedded_endpoint_has_no_address() -> None:
    with pytest.raises(ConfigError, match="embedded"):
        chat_url(Endpoint(name="e", kind="embedded"))


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R2_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"endpoint 'e' needs a key.*R2_TEST_KEY"):
        route_to(endpoint_at("http://e.com/v1", key_env="R2_TEST_KEY")).key()


def test_no_key_is_needed_without_key_env() -> None:
    assert route_to(endpoint_at("http://e.com/v1")).key() is None


def route_to(endpoint: Endpoint) -> Route:
    slots = asyncio.Semaphore(endpoint.concurrency)
    return Route(endpoint, chat_url(endpoint), aiohttp.ClientTimeout(), slots)


async def test_slots_come_back_when_the_wait_for_the_second_is_cancelled() -> None:
    endpoint = endpoint_at("http://e.com/v1", concurrency=1)
    price = Price(Decimal(1), Decimal(1))
    free = Card(name="free", endpoint=endpoint, model="m", price=price)
    scarce = Card(name="scarce", endpoint=endpoint, model="m", price=price, concurrency=1)
    route = route_to(endpoint)
    await route.acquire(free)
    waiting = asyncio.create_task(route.acquire(scarce))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    route.release(free)
    async with asyncio.timeout(5):
        await route.acquire(scarce)
    route.release(scarce)
    assert not route.slots.locked()
    assert not route.card_slots["scarce"].locked()
