"""A pool as the text of a pool file: what `load` reads gives the same pool again.

Prices that the public lists give for the model anyway are left out, so that they stay of today.
Comments of the file that a pool was loaded from are lost; its `[router]` table is the caller's.
"""

import json
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from r2reasoner.config import TABLE
from r2reasoner.files import write_whole
from r2reasoner.pool.cards import Card, Endpoint, Pool, Price
from r2reasoner.pool.prices import public_price

_CARD_DEFAULTS: Final = {"prompt": "chat", "plan_format": "json", "dial": 0}
_PLAIN: Final = Endpoint(name="", kind="openai")
_ENDPOINT_DEFAULTS: Final = {
    "concurrency": _PLAIN.concurrency,
    "connect_timeout_s": _PLAIN.connect_timeout_s,
    "read_timeout_s": _PLAIN.read_timeout_s,
}
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_FROM_FILE: Final = "pool file"


def write_pool(
    pool: Pool,
    file: Path,
    *,
    base: Path | None = None,
    router: Mapping[str, Any] | None = None,
) -> None:
    """Write a pool as a pool file; paths in it are relative to `base` (else the file's folder).

    Raises ConfigError where it cannot be written.
    """
    write_whole(file, pool_text(pool, base or file.parent, router), replace=True)


def pool_text(pool: Pool, base: Path | None, router: Mapping[str, Any] | None = None) -> str:
    """Return a pool as TOML, with every price and checksum that is known.

    Paths in it are relative to `base`; without one, absolute.
    """
    table: dict[str, Any] = {
        "name": pool.name,
        "decomposer": pool.decomposer,
        "allocator": pool.allocator,
        "outcomes": _path(pool.outcomes, base),
        "splits": list(pool.splits) or None,
    }
    lines = ["# Written by r2reasoner. Workers stand from weakest to strongest.", ""]
    lines += ["[pool]", *_lines(table)]
    if router:
        lines += ["", f"[{TABLE}]", *_lines(router)]
    cards = (*pool.workers, *pool.policies.values())
    for endpoint in {card.endpoint.name: card.endpoint for card in cards}.values():
        lines += ["", f"[endpoints.{_key(endpoint.name)}]", *_endpoint(endpoint, base)]
    for card in pool.workers:
        lines += ["", "[[workers]]", *_card(card)]
    for card in pool.policies.values():
        lines += ["", "[[policies]]", *_card(card)]
    return "\n".join(lines) + "\n"


def card_text(card: Card) -> str:
    """Return a worker as a card file, for a pool that has its endpoint."""
    return "\n".join(["[[workers]]", *_card(card)]) + "\n"


def _path(path: Path | None, base: Path | None) -> str | None:
    if path is None:
        return None
    return os.fspath(path.absolute()) if base is None else os.path.relpath(path, base)


def _endpoint(endpoint: Endpoint, base: Path | None) -> list[str]:
    listed = {
        "kind": endpoint.kind,
        "base_url": endpoint.base_url or None,
        "key_env": endpoint.key_env,
        "path": _path(endpoint.path, base),
        "concurrency": endpoint.concurrency,
        "connect_timeout_s": endpoint.connect_timeout_s,
        "read_timeout_s": endpoint.read_timeout_s,
    }
    return _lines(_told(listed, _ENDPOINT_DEFAULTS))


def _card(card: Card) -> list[str]:
    listed: dict[str, Any] = {
        "name": card.name,
        "endpoint": card.endpoint.name,
        "model": card.model,
        "group": None if card.group is None else card.group.value,
        **_price(card),
        "context": card.context,
        "max_tokens": card.max_tokens,
        "concurrency": card.concurrency,
        "capabilities": sorted(card.capabilities) or None,
        "prompt": card.prompt,
        "plan_format": card.plan_format,
        "parameters": card.parameters,
        "sha256": card.sha256,
        "dial": card.dial,
        "knows": list(card.knows) or None,
    }
    return _lines(_told(listed, _CARD_DEFAULTS))


def _told(listed: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a pool file need not say."""
    return {k: v for k, v in listed.items() if k not in defaults or v != defaults[k]}


def _price(card: Card) -> dict[str, str | None]:
    price = card.price
    if price is None or _is_listed(card, price):
        return {}
    source = price.source.removeprefix(_FROM_FILE).removeprefix(": ")
    return {
        "input_price": f"{price.input:f}",
        "output_price": f"{price.output:f}",
        "cached_price": None if price.cached is None else f"{price.cached:f}",
        "price_source": source or None,
    }


def _is_listed(card: Card, price: Price) -> bool:
    """Tell whether a pool file without a price would give the same one."""
    if card.endpoint.kind != "openai" or price.source.startswith(_FROM_FILE):
        return False
    return public_price(card.model, card.endpoint.base_url) == price


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]


def _value(value: Any) -> str:
    # Decimals stay exact; a JSON string of printable characters is a TOML string.
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)
