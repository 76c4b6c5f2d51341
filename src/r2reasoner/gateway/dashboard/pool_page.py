"""The pool: its models and endpoints, and how their newest calls went."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from yarl import URL

from r2reasoner.gateway.dashboard.web import Desk
from r2reasoner.ledger import Entry
from r2reasoner.pool.cards import Card, Endpoint, Pool
from r2reasoner.types import CallOutcome

NEWEST: Final = 5000
"""How many of the newest calls are looked at."""
FAILURES: Final = 25


class Health(NamedTuple):
    """How a model's newest calls went. Times in seconds, None where there was none."""

    calls: int
    failed: int
    unknown: int
    open: int
    median_s: float | None
    slow_s: float | None
    last_at: float | None
    failed_at: float | None

    @property
    def state(self) -> str:
        """In a word: `idle`, `well`, `failing` (its last calls failed), `troubled` (some did)."""
        if not self.calls:
            return "idle"
        if self.failed_at is not None and self.failed_at == self.last_at:
            return "failing"
        return "troubled" if self.failed + self.unknown else "well"


class ModelLine(NamedTuple):
    """A model of the pool and its health."""

    card: Card
    part: str
    health: Health


@dataclass(frozen=True, slots=True)
class EndpointLine:
    """An endpoint, without what may be secret in its address."""

    endpoint: Endpoint
    where: str
    key: str
    models: int
    left_alone: bool


def page(desk: Desk, request: Request) -> Response:
    """Return the page of the pool."""
    pool = desk.gateway.pool
    entries = desk.gateway.ledger.entries(limit=NEWEST)
    failures = [
        e for e in reversed(entries) if e.outcome in (CallOutcome.FAILED, CallOutcome.UNKNOWN)
    ]
    return desk.page(
        request,
        "pool.html",
        models=model_lines(pool, entries),
        endpoints=endpoint_lines(pool, desk.gateway.client.is_open),
        failures=failures[:FAILURES],
        failure_count=len(failures),
        looked_at=len(entries),
        since=entries[0].started_at if entries else None,
        strongest=pool.strongest.name,
        allocator=pool.allocator,
        decomposer=pool.decomposer,
        now=time.time(),
    )


def model_lines(pool: Pool, entries: Sequence[Entry]) -> list[ModelLine]:
    """Return the workers from weakest to strongest, then the policies."""
    own: dict[str, list[Entry]] = {}
    for entry in entries:
        own.setdefault(entry.model, []).append(entry)
    workers = [(card, str(card.group or "worker")) for card in pool.workers]
    policies = [(card, "policy") for card in pool.policies.values()]
    return [ModelLine(c, part, health(own.get(c.name, []))) for c, part in workers + policies]


def health(entries: Iterable[Entry]) -> Health:
    """Return how calls went; `entries` are oldest first."""
    entries = list(entries)
    took = sorted(e.latency_s for e in entries if e.outcome is CallOutcome.OK)
    bad = [e for e in entries if e.outcome in (CallOutcome.FAILED, CallOutcome.UNKNOWN)]
    settled = [e for e in entries if e.outcome is not CallOutcome.OPEN]
    return Health(
        calls=len(entries),
        failed=sum(e.outcome is CallOutcome.FAILED for e in entries),
        unknown=sum(e.outcome is CallOutcome.UNKNOWN for e in entries),
        open=len(entries) - len(settled),
        median_s=statistics.median(took) if took else None,
        slow_s=took[min(len(took) - 1, int(len(took) * 0.95))] if took else None,
        last_at=max((e.started_at for e in settled), default=None),
        failed_at=max((e.started_at for e in bad), default=None),
    )


def endpoint_lines(pool: Pool, is_left_alone: Callable[[str], bool]) -> list[EndpointLine]:
    """Return the endpoints that the pool's models are reached at."""
    cards = (*pool.workers, *pool.policies.values())
    found = {card.endpoint.name: card.endpoint for card in cards}
    return [
        EndpointLine(
            endpoint,
            address(endpoint),
            _key(endpoint),
            sum(card.endpoint.name == name for card in cards),
            is_left_alone(name),
        )
        for name, endpoint in found.items()
    ]


def address(endpoint: Endpoint) -> str:
    """Return where an endpoint is: of an address only scheme, host, port and path."""
    if endpoint.kind == "embedded":
        return "in this process"
    try:
        url = URL(endpoint.base_url)
        return str(url.with_user(None).with_query(None).with_fragment(None))
    except ValueError:
        return "not a readable address"


def _key(endpoint: Endpoint) -> str:
    if endpoint.key_env is None:
        return "needs none"
    there = bool(os.environ.get(endpoint.key_env, "").strip())
    return f"{endpoint.key_env}, {'set' if there else 'missing'}"
