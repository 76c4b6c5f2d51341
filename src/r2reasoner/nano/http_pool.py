"""A pool file that reaches a served nano pool over HTTP: same models, same prices, another road."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from r2reasoner.config import TABLE, read_toml
from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Card, Pool

CONCURRENCY: Final = 64
WRITTEN: Final = "# Written by `r2reasoner nano serve`"
ENDPOINT: Final = "nano"


def check_replaceable(file: Path) -> None:
    """Raise ConfigError where a file stands that `nano serve` did not write."""
    if file.exists():
        with suppress(OSError, UnicodeDecodeError), file.open(encoding="utf-8") as stream:
            if stream.readline().startswith(WRITTEN):
                return
        raise ConfigError(f"{file} exists and is not ours to replace; name another file")


def served_pool(pool: Pool, base_url: str) -> str:
    """Return a pool file of the same models at the same prices, reached over HTTP.

    Raises ConfigError where the pool's own file cannot be read again.
    """
    head = {
        "name": f"{pool.name}-http",
        "decomposer": pool.decomposer,
        "allocator": pool.allocator,
        "outcomes": None if pool.outcomes is None else os.fspath(pool.outcomes.resolve()),
        "splits": list(pool.splits) or None,
    }
    settings = {} if pool.source is None else read_toml(pool.source).get(TABLE, {})
    endpoint = {"base_url": base_url, "concurrency": CONCURRENCY}
    tables: list[tuple[str, Mapping[str, Any]]] = [
        ("[pool]", head),
        (f"[endpoints.{ENDPOINT}]", endpoint),
    ]
    tables += [(f"[{TABLE}]", settings)] if settings else []
    tables += [("[[workers]]", _card_table(card)) for card in pool.workers]
    tables += [("[[policies]]", _card_table(card)) for card in pool.policies.values()]
    blocks = ["\n".join([title, *_toml_lines(table)]) for title, table in tables]
    return "\n\n".join([f"{WRITTEN}, whose models it reaches while that runs.", *blocks]) + "\n"


def _card_table(card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "endpoint": ENDPOINT,
        "model": card.name,
        "group": card.group,
        "input_price": None if card.price is None else f"{card.price.input:f}",
        "output_price": None if card.price is None else f"{card.price.output:f}",
        "cached_price": card.price.cached if card.price is not None else None,
        "context": card.context,
        "max_tokens": card.max_tokens,
        "capabilities": sorted(card.capabilities) or None,
        "prompt": card.prompt,
        "plan_format": card.plan_format,
        "parameters": card.parameters,
    }


def _toml_lines(table: Mapping[str, Any]) -> list[str]:
    # Texts are one printable line each (the pool's loader saw to that): JSON is TOML then.
    return [
        f"{key} = {json.dumps(value, default=str, ensure_ascii=False)}"
        for key, value in table.items()
        if value is not None
    ]
