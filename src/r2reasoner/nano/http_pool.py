"""A pool file that reaches a served nano pool over HTTP: same models, same prices, another road."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from r2reasoner.config import TABLE, read_toml
from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Card, Endpoint, Pool
from r2reasoner.pool.write import pool_text

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
    settings = {} if pool.source is None else read_toml(pool.source).get(TABLE, {})
    endpoint = Endpoint(name=ENDPOINT, kind="openai", base_url=base_url, concurrency=CONCURRENCY)

    def reached(card: Card) -> Card:
        return replace(card, endpoint=endpoint, model=card.name, sha256=None)

    served = replace(
        pool,
        name=f"{pool.name}-http",
        workers=tuple(map(reached, pool.workers)),
        policies={name: reached(card) for name, card in pool.policies.items()},
        outcomes=None if pool.outcomes is None else pool.outcomes.resolve(),
    )
    head = f"{WRITTEN}, whose models it reaches while that runs."
    return f"{head}\n{pool_text(served, None, settings)}"
