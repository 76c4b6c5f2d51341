"""Answers to exact repeats: what makes two requests the same, and how long one is kept."""

import json
from typing import Any

import pytest

from r2reasoner.config import settings
from r2reasoner.gateway.cache import Cache
from r2reasoner.gateway.wire import Asked, read_asked


def asked(**more: Any) -> Asked:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}], "r2": {"cache": True}}
    return read_asked(json.dumps(body | more).encode())


@pytest.mark.parametrize(
    "more",
    [
        {"model": "n"},
        {"messages": [{"role": "user", "content": "b"}]},
        {"temperature": 0.5},
        {"seed": 1},
        {"max_tokens": 5},
        {"stop": "x"},
        {"r2": {"cache": True, "direct": True}},
    ],
)
def test_whatever_differs_is_another_request(more: dict[str, Any]) -> None:
    cache = Cache(9, 60)
    name = cache.name("me", asked(), settings())
    assert name is not None
    assert name == cache.name("me", asked(), settings())
    assert name != cache.name("me", asked(**more), settings())


def test_keys_and_settings_are_kept_apart() -> None:
    cache = Cache(9, 60)
    names = {
        cache.name("me", asked(), settings()),
        cache.name("you", asked(), settings()),
        cache.name("me", asked(), settings(trade_off=0.9)),
    }
    assert len(names) == 3


def test_off_unless_both_want_it() -> None:
    assert Cache(0, 60).name("me", asked(), settings()) is None
    assert Cache(9, 60).name("me", asked(r2={}), settings()) is None


def test_the_longest_unused_makes_room_and_old_ones_are_forgotten() -> None:
    cache = Cache(2, 60)
    cache.put(b"a", {"n": 1})
    cache.put(b"b", {"n": 2})
    assert cache.get(b"a") == {"n": 1}
    cache.put(b"c", {"n": 3})
    assert [cache.get(name) for name in (b"a", b"b", b"c")] == [{"n": 1}, None, {"n": 3}]
    stale = Cache(2, -1)
    stale.put(b"a", {"n": 1})
    assert stale.get(b"a") is None
