"""Where a figure comes from: command, commit, date, pool, weights, versions, machine."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from r2reasoner import __version__
from r2reasoner.client.embedded import checksum
from r2reasoner.outcomes.measured import raw_files
from r2reasoner.pool.cards import Card, Pool, Price

PACKAGES: Final = ("aiohttp", "ctranslate2", "genai-prices", "numpy", "sqlalchemy")


def provenance(pool: Pool, seed: int, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what a result file says of its origin. `command` is argv; None: this process's."""
    of_pool = {
        "pool": {"name": pool.name, "sha256": pool_digest(pool)},
        "weights": {c.name: sha for c in _cards(pool) if (sha := weights_digest(c)) is not None},
    }
    return origin(seed, of_pool, command)


def origin(
    seed: int, sources: Mapping[str, Any], command: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the same for a result that comes of other `sources` than a pool."""
    argv = sys.argv if command is None else command
    return {
        "command": shlex.join([Path(argv[0]).name, *argv[1:]]),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        **sources,
        "versions": {"r2reasoner": __version__, **_versions()},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
    }


def pool_digest(pool: Pool) -> str:
    """Return a hash of all that makes a pool answer as it does: models, prices, outcomes.

    Where files lie on this machine is not part of it.
    """
    outcomes = pool.outcomes
    content: dict[str, Any] = {
        "name": pool.name,
        "workers": [_card(card) for card in pool.workers],
        "policies": [_card(card) for card in pool.policies.values()],
        "decomposer": pool.decomposer,
        "allocator": pool.allocator,
        "outcomes": _file_digest(outcomes) if outcomes and outcomes.is_file() else None,
    }
    records = raw_files(outcomes) if outcomes else ()
    if records:
        content["records"] = [_file_digest(file) for file in records]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def weights_digest(card: Card) -> str | None:
    """Return the sha256 of a model run in process, of its files where the pool file has none."""
    if card.sha256 is not None or card.endpoint.path is None:
        return card.sha256
    try:
        return checksum(card.endpoint.path / card.model)
    except OSError:
        return None  # the client will say what is missing


def commit() -> str | None:
    """Return the commit of the checkout that this package runs from (`+` when changed), if any."""
    package = Path(__file__).resolve().parents[1]
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top) / "src" / package.name != package:
        return None
    head = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+" if head and changed else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cards(pool: Pool) -> tuple[Card, ...]:
    return (*pool.workers, *pool.policies.values())


def _card(card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "model": card.model,
        "endpoint": [card.endpoint.kind, card.endpoint.base_url],
        "price": _price(card.price),
        "context": card.context,
        "max_tokens": card.max_tokens,
        "capabilities": sorted(card.capabilities),
        "prompt": card.prompt,
        "plan_format": card.plan_format,
        "sha256": weights_digest(card),
    }


def _price(price: Price | None) -> list[str] | None:
    if price is None:
        return None
    return [str(part) for part in (price.input, price.output, price.cached, price.tiers)]


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
