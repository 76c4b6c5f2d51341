"""A circuit breaker per endpoint: one that keeps failing is left alone for a while.

Calls to it then fail at once and undispatched, so that the engine falls back without waiting. After
the pause one call tries it; its end decides. Rate limits are no failure of an endpoint.
"""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from r2reasoner.budget import Meter
from r2reasoner.client import ChatRequest, Completion, Relayed, RelayingClient
from r2reasoner.errors import CallError, CallFault
from r2reasoner.gateway.metrics import Metrics
from r2reasoner.pool.cards import Card

FAILURES: Final = 5
PAUSE_S: Final = 30.0
TROUBLE: Final = frozenset(
    {
        CallFault.CONNECT,
        CallFault.OVERLOADED,
        CallFault.SERVER,
        CallFault.TIMEOUT,
        CallFault.CUT,
        CallFault.MALFORMED,
    }
)


@dataclass(slots=True)
class _Circuit:
    """What is known of one endpoint. `until` (monotonic seconds): left alone before that."""

    failures: int = 0
    until: float = 0.0
    trying: bool = False


class Breaker:
    """A pool's client whose calls to failing endpoints fail at once."""

    def __init__(
        self,
        inner: RelayingClient,
        metrics: Metrics,
        *,
        failures: int = FAILURES,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._inner = inner
        self._metrics = metrics
        self._failures = failures
        self._pause_s = pause_s
        self._circuits: dict[str, _Circuit] = {}

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        """Return the whole answer; see Client."""
        with self._watch(card):
            return await self._inner.complete(card, request, meter, deadline)

    async def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        """Yield the answer piece by piece; see Client."""
        with self._watch(card):
            async for part in self._inner.stream(card, request, meter, deadline):
                yield part

    async def pass_on(
        self, card: Card, relayed: Relayed, meter: Meter, deadline: float | None = None
    ) -> tuple[dict[str, Any], Completion]:
        """Pass a whole request on; see `OpenAIClient.pass_on`."""
        with self._watch(card):
            return await self._inner.pass_on(card, relayed, meter, deadline)

    async def relay(
        self, card: Card, relayed: Relayed, meter: Meter, deadline: float | None = None
    ) -> AsyncGenerator[dict[str, Any] | Completion, None]:
        """Pass a whole request on and stream the answer; see `OpenAIClient.relay`."""
        with self._watch(card):
            async with aclosing(self._inner.relay(card, relayed, meter, deadline)) as answer:
                async for part in answer:
                    yield part

    def is_open(self, endpoint: str) -> bool:
        """Tell whether an endpoint is left alone now."""
        circuit = self._circuits.get(endpoint)
        return circuit is not None and time.monotonic() < circuit.until

    async def close(self) -> None:
        """Close the client within."""
        await self._inner.close()

    @contextmanager
    def _watch(self, card: Card) -> Iterator[None]:
        name = card.endpoint.name
        circuit = self._circuits.setdefault(name, _Circuit())
        broken = circuit.failures >= self._failures
        if broken and (circuit.trying or time.monotonic() < circuit.until):
            raise CallError(
                CallFault.OVERLOADED,
                f"endpoint {name!r} failed {circuit.failures} times in a row and is left alone",
                model=card.name,
            )
        circuit.trying = broken
        try:
            yield
        except CallError as error:
            if error.fault in TROUBLE:
                self._fail(name, circuit)
            else:
                self._recover(name, circuit)
            raise
        else:
            self._recover(name, circuit)
        finally:
            circuit.trying = False

    def _fail(self, name: str, circuit: _Circuit) -> None:
        circuit.failures += 1
        if circuit.failures >= self._failures:
            circuit.until = time.monotonic() + self._pause_s
            self._metrics.breaker_open.labels(name).set(1)

    def _recover(self, name: str, circuit: _Circuit) -> None:
        if circuit.failures >= self._failures:
            self._metrics.breaker_open.labels(name).set(0)
        circuit.failures, circuit.until = 0, 0.0
