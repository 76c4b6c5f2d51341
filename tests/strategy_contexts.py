"""A context for strategies over the fake provider, whose answers and certainty a test scripts."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pools
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.config import settings
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider
from r2reasoner.strategies import StrategyContext
from r2reasoner.types import Trace


@asynccontextmanager
async def asking(
    answer: Callable[[ChatCall], str],
    *,
    logprob: Callable[[ChatCall], float | None] = lambda call: None,
    flags: dict[str, Any] | None = None,
    **pool: Any,
) -> AsyncIterator[tuple[StrategyContext, MockProvider]]:
    """Start a provider; give a context over `pools.pool_at` it, and the provider.

    At the end the ledger must say of every call what the provider's books say.
    """
    client = OpenAIClient(pools.NoJitter())
    async with MockProvider(answer=answer, logprob=logprob) as provider:
        with Ledger.in_memory() as ledger:
            yield (
                StrategyContext(
                    pool=pools.pool_at(provider.base_url, **pool),
                    settings=settings(**(flags or {})),
                    ledger=ledger,
                    client=client,
                ),
                provider,
            )
            await ledger.flush()
            assert ledger.totals().calls == len(provider.books)
        await client.close()


def called(trace: Trace) -> list[tuple[str, str]]:
    """Return model and role of each call, in the order in which they ended."""
    return [(call.model, call.role.value) for call in trace.calls]


def notes(trace: Trace) -> list[str | None]:
    """Return what the calls say of themselves."""
    return [call.note for call in trace.calls]
