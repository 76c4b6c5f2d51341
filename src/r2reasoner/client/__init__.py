"""The only code that talks to models and the only owner of retries."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.client.relay import Relayed, RelayingClient
from r2reasoner.errors import CallError, CallFault
from r2reasoner.pool.cards import Card

if TYPE_CHECKING:
    from r2reasoner.client.openai import OpenAIClient

__all__ = ["ChatRequest", "Client", "Completion", "PoolClient", "Relayed", "RelayingClient"]


class PoolClient:
    """Sends each call to the client of its card's endpoint; each is made when first needed."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}

    def _for(self, card: Card) -> Client:
        kind = card.endpoint.kind
        if kind not in self._clients:
            self._clients[kind] = _open(kind)
        return self._clients[kind]

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        """Return the whole answer; see Client."""
        return await self._for(card).complete(card, request, meter, deadline)

    def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncIterator[str | Completion]:
        """Yield the answer piece by piece; see Client."""
        return self._for(card).stream(card, request, meter, deadline)

    def _relaying(self, card: Card) -> "OpenAIClient":
        from r2reasoner.client.openai import OpenAIClient

        client = self._for(card)
        if not isinstance(client, OpenAIClient):
            raise CallError(
                CallFault.BAD_REQUEST, "a model in process takes only texts", model=card.name
            )
        return client

    async def pass_on(
        self, card: Card, relayed: Relayed, meter: Meter, deadline: float | None = None
    ) -> tuple[dict[str, Any], Completion]:
        """Pass a whole request on to a model over HTTP; see `OpenAIClient.pass_on`.

        Raises CallError for a model that is run in process: it has no such road.
        """
        return await self._relaying(card).pass_on(card, relayed, meter, deadline)

    async def relay(
        self, card: Card, relayed: Relayed, meter: Meter, deadline: float | None = None
    ) -> AsyncGenerator[dict[str, Any] | Completion, None]:
        """Pass a whole request on and stream the answer; errors as for `pass_on`."""
        async with aclosing(self._relaying(card).relay(card, relayed, meter, deadline)) as answer:
            async for part in answer:
                yield part

    async def close(self) -> None:
        """Close every client that was made."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()


def _open(kind: str) -> Client:
    if kind == "embedded":
        from r2reasoner.client.embedded import EmbeddedClient

        return EmbeddedClient()
    from r2reasoner.client.openai import OpenAIClient

    return OpenAIClient()
