"""What every client offers: one request to one model, recorded attempt by attempt.

A client is the only code that talks to models and the only owner of retries. Each attempt goes
through the query's meter: reserved and written to the ledger before dispatch, settled after.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from r2reasoner.budget import Meter
from r2reasoner.pool.cards import Card
from r2reasoner.types import Message, Pico, Role, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One request to a model.

    `rank` asks an embedded model for its next-likeliest answer (0 is the likeliest), which is how
    a greedy policy repairs itself; endpoints over HTTP ignore it. `logprobs` asks how sure the
    model is. `cache_key` is what requests have in common that begin alike. `role`, `subtask` and
    `note` only label the ledger entry.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    role: Role
    subtask: int | None = None
    note: str | None = None
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    response_format: Mapping[str, Any] | None = None
    rank: int = 0
    logprobs: bool = False
    cache_key: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's whole answer. `cost` is that of the last attempt, None if the price is unknown.

    `logprob` is the mean log-probability of the answer's tokens, None where it is not known.
    """

    text: str
    usage: Usage
    cost: Pico | None
    model: str
    finish_reason: str | None
    latency_s: float
    ttft_s: float | None
    attempts: int
    logprob: float | None = None


class Client(Protocol):
    """The seam between the engine and models.

    `deadline` is a `time.monotonic()` moment or None. Raises CallError when the call failed for
    good, BudgetExceeded when it may not be dispatched, DeadlineExceeded, LedgerError.
    """

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        """Return the whole answer."""
        ...

    def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncIterator[str | Completion]:
        """Yield pieces of text as they come, then one Completion."""
        ...

    async def close(self) -> None:
        """Release connections or models; calls in flight fail."""
        ...
