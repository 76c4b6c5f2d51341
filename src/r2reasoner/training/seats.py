"""The seats of the two policies in a pool, and pool files in which they are taken."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from r2reasoner.files import write_whole
from r2reasoner.pool.cards import Card, Endpoint, Pool
from r2reasoner.types import Role

_DEFAULTS: Final = {"prompt": "chat", "plan_format": "json", "dial": 0, "concurrency": None}


def with_policy(pool: Pool, role: Role, card: Card) -> Pool:
    """Return the pool with a policy in the seat of a role; the policy before it leaves."""
    seat = "decomposer" if role is Role.DECOMPOSER else "allocator"
    others = {name: c for name, c in pool.policies.items() if name != getattr(pool, seat)}
    policies = {**others, card.name: card}
    if role is Role.DECOMPOSER:
        return replace(pool, policies=policies, decomposer=card.name)
    return replace(pool, policies=policies, allocator=card.name)


def write_pool(pool: Pool, file: Path, *, base: Path | None = None) -> None:
    """Write a pool as a pool file; paths in it are relative to `base` (else the file's folder).

    Raises ConfigError where it cannot be written.
    """
    write_whole(file, pool_text(pool, base or file.parent), replace=True)


def pool_text(pool: Pool, base: Path) -> str:
    """Return a pool as TOML, with every price and checksum that is known."""
    table: dict[str, Any] = {
        "name": pool.name,
        "decomposer": pool.decomposer,
        "allocator": pool.allocator,
        "outcomes": None if pool.outcomes is None else os.path.relpath(pool.outcomes, base),
        "splits": list(pool.splits) or None,
    }
    lines = ["# Written by `r2reasoner train`.", "", "[pool]", *_lines(table)]
    cards = (*pool.workers, *pool.policies.values())
    for endpoint in {card.endpoint.name: card.endpoint for card in cards}.values():
        lines += ["", f"[endpoints.{json.dumps(endpoint.name)}]", *_endpoint(endpoint, base)]
    for card in pool.workers:
        lines += ["", "[[workers]]", *_card(card)]
    for card in pool.policies.values():
        lines += ["", "[[policies]]", *_card(card)]
    return "\n".join(lines) + "\n"


def _endpoint(endpoint: Endpoint, base: Path) -> list[str]:
    return _lines(
        {
            "kind": endpoint.kind,
            "base_url": endpoint.base_url or None,
            "key_env": endpoint.key_env,
            "path": None if endpoint.path is None else os.path.relpath(endpoint.path, base),
            "concurrency": endpoint.concurrency if endpoint.kind == "openai" else None,
            "read_timeout_s": endpoint.read_timeout_s if endpoint.kind == "openai" else None,
        }
    )


def _card(card: Card) -> list[str]:
    price = card.price
    listed: dict[str, Any] = {
        "name": card.name,
        "endpoint": card.endpoint.name,
        "model": card.model,
        "group": None if card.group is None else card.group.value,
        "input_price": None if price is None else f"{price.input:f}",
        "output_price": None if price is None else f"{price.output:f}",
        "cached_price": None if price is None or price.cached is None else f"{price.cached:f}",
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
    told = {k: v for k, v in listed.items() if k not in _DEFAULTS or v != _DEFAULTS[k]}
    return _lines(told)


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]
