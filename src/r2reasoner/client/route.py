"""Where calls go: an endpoint's address, time-outs, key, and the slots that limit its calls."""

from asyncio import Semaphore
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from r2reasoner.client.secret import Secret
from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Card, Endpoint


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint as one event loop reaches it. Slots limit the calls in flight."""

    endpoint: Endpoint
    url: URL
    timeout: aiohttp.ClientTimeout
    slots: Semaphore
    card_slots: dict[str, Semaphore] = field(default_factory=dict)

    async def acquire(self, card: Card) -> None:
        """Wait for a slot of the card, then of the endpoint (never hold the scarcer one idle)."""
        if card.concurrency is not None:
            await self.card_slots.setdefault(card.name, Semaphore(card.concurrency)).acquire()
        try:
            await self.slots.acquire()
        except BaseException:
            self._release_card(card)
            raise

    def release(self, card: Card) -> None:
        """Give both slots back."""
        self.slots.release()
        self._release_card(card)

    def _release_card(self, card: Card) -> None:
        if card.concurrency is not None:
            self.card_slots[card.name].release()

    def key(self) -> Secret | None:
        """Read the endpoint's key, if it has one. Raises ConfigError when it is missing."""
        if self.endpoint.key_env is None:
            return None
        return Secret.from_environment(
            self.endpoint.key_env, needed_by=f"endpoint {self.endpoint.name!r}"
        )


def chat_url(endpoint: Endpoint) -> URL:
    """Return where chat requests go. Raises ConfigError, never quoting what may hold a key."""
    wanted = f"endpoint {endpoint.name!r}: expected base_url as http(s)://host[:port]/path"
    try:
        url = URL(endpoint.base_url)
    except ValueError as error:
        raise ConfigError(f"{wanted}: {error}") from None
    if endpoint.kind != "openai" or url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(f"{wanted}, got {endpoint.base_url!r} of kind {endpoint.kind!r}")
    if url.user is not None or url.password is not None:
        raise ConfigError(f"{wanted} without credentials: name the key's variable in key_env")
    return url.with_path(url.path.rstrip("/") + "/chat/completions", keep_query=True)
