"""What the gateway holds while it runs: pool, ledger, keys, client, what is in flight.

The engine's routers depend on the dial alone, so each setting's decomposer and allocator are made
once and kept. Leaves out HTTP (`app.py`) and what a request means (`wire.py`, `routing.py`).
"""

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self

from r2reasoner.budget import Meter
from r2reasoner.chat import MAX_SHOWN, Refusal
from r2reasoner.client import PoolClient, RelayingClient
from r2reasoner.client.secret import Secret
from r2reasoner.config import Settings
from r2reasoner.errors import ConfigError
from r2reasoner.gateway.breaker import Breaker
from r2reasoner.gateway.cache import Cache
from r2reasoner.gateway.conversation import Memory, has_cheap_cache
from r2reasoner.gateway.keys import Key, Keys
from r2reasoner.gateway.live import Live
from r2reasoner.gateway.metrics import Metrics
from r2reasoner.gateway.purse import KeyMeter
from r2reasoner.gateway.trial import Trial
from r2reasoner.ledger import Ledger
from r2reasoner.pool.cards import Pool
from r2reasoner.router import Router

if TYPE_CHECKING:
    from r2reasoner.telemetry.spans import Spans

ADMIN_ENV: Final = "R2REASONER_ADMIN_KEY"
MOST_DIALS: Final = 64
DIAL_DIGITS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the gateway runs, as the operator set it.

    `open_access` lets requests in without a key while none was ever made. `allow_origins` are
    sites (as `https://chat.example.org`) whose pages may ask. `cache_entries` 0 keeps no answers.
    `trivial` answers greetings and thanks without a plan. `stay_s` is how long a provider's prompt
    cache is counted on; 0: not at all.
    `keep_alive_s` is how often a silent stream says that it lives; `write_timeout_s` how long a
    client may leave what was sent unread.
    """

    open_access: bool = True
    allow_origins: tuple[str, ...] = ()
    cache_entries: int = 0
    cache_ttl_s: float = 3600.0
    trivial: bool = True
    stay_s: float = 300.0
    shadow: float = 0.0
    canary: float = 0.0
    keep_alive_s: float = 10.0
    write_timeout_s: float = 60.0


@dataclass(slots=True)
class Gateway:
    """The state of one gateway process. Use `open`, and `aclose` it in the loop that served.

    `others` are the further pools that a request may name, each as a gateway over it that shares
    all but its models' circuits and conversations.
    """

    pool: Pool
    settings: Settings
    ledger: Ledger
    keys: Keys
    client: Breaker
    admin_key: Secret | None
    options: Options
    metrics: Metrics
    live: Live
    cache: Cache
    conversations: Memory
    trial: Trial
    spans: "Spans | None" = None
    others: "Mapping[str, Gateway]" = field(default_factory=dict)
    draining: bool = False
    _routers: OrderedDict[float, Router] = field(default_factory=OrderedDict)

    @classmethod
    def open(
        cls,
        pool: Pool,
        settings: Settings,
        ledger: Ledger,
        keys: Keys,
        *,
        client: RelayingClient | None = None,
        admin_key: Secret | None = None,
        options: Options | None = None,
        spans: "Spans | None" = None,
        others: Sequence[tuple[Pool, Settings]] = (),
    ) -> Self:
        """Return a gateway over a pool; ledger and keys stay the caller's to close.

        `others` are further pools with their settings. Raises ConfigError for two of one name.
        """
        options = options or Options()
        metrics = Metrics()
        metrics.ledger_waiting.set_function(lambda: ledger.waiting)
        inner = client or PoolClient()
        served = cls(
            pool=pool,
            settings=settings,
            ledger=ledger,
            keys=keys,
            client=Breaker(inner, metrics),
            admin_key=admin_key,
            options=options,
            metrics=metrics,
            live=Live(),
            cache=Cache(options.cache_entries, options.cache_ttl_s),
            conversations=_memory(pool, options),
            trial=Trial(options.shadow, options.canary),
            spans=spans,
        )
        names = [pool.name, *(other.name for other, _ in others)]
        if len(set(names)) < len(names):
            raise ConfigError(f"pools are told apart by name, but these are: {', '.join(names)}")
        served.others = {
            other.name: replace(
                served,
                pool=other,
                settings=its_settings,
                client=Breaker(inner, metrics),
                conversations=_memory(other, options),
                _routers=OrderedDict(),
            )
            for other, its_settings in others
        }
        return served

    def over(self, pool: str | None) -> "Gateway":
        """Return the gateway over the pool that a request names. Raises Refusal (404)."""
        if pool is None or pool == self.pool.name:
            return self
        if pool not in self.others:
            known = ", ".join((self.pool.name, *self.others))
            raise Refusal(
                404,
                f"no pool {pool[:MAX_SHOWN]!r} here; there are: {known}",
                code="pool_not_found",
                param="r2.pool",
            )
        return self.others[pool]

    def pool_called(self, name: str) -> Pool:
        """Return the pool of this name; where there is none any more, the default one."""
        return self.others[name].pool if name in self.others else self.pool

    def router(self, settings: Settings) -> Router:
        """Return a router for one request's settings. Raises ConfigError."""
        dial = round(settings.trade_off, DIAL_DIGITS)
        known = self._routers.get(dial)
        if known is None:
            known = self._routers[dial] = Router.open(
                self.pool, settings, self.ledger, client=self.client
            )
            if len(self._routers) > MOST_DIALS:
                self._routers.popitem(last=False)
        self._routers.move_to_end(dial)
        return Router(
            self.pool, settings, self.ledger, self.client, known.decomposer, known.allocator
        )

    def meter(self, query_id: str, settings: Settings, key: Key | None) -> Meter:
        """Return the bill of one request; with a key, the key pays."""
        if key is None:
            return Meter(self.ledger, query_id, settings.cap)
        return KeyMeter(self.ledger, query_id, settings.cap, self.keys, key)

    def is_admin_key(self, text: str) -> bool:
        """Tell whether a text is the admin key, in constant time; False while there is none."""
        if self.admin_key is None:
            return False
        return hmac.compare_digest(
            text.encode("utf-8", "surrogatepass"), self.admin_key.reveal().encode()
        )

    async def aclose(self) -> None:
        """End what runs in the background, close the client, write what is queued."""
        self.draining = True
        await self.trial.aclose()
        await self.client.close()
        try:
            await self.ledger.flush()
        finally:
            if self.spans is not None:
                await asyncio.to_thread(self.spans.close)


def _memory(pool: Pool, options: Options) -> Memory:
    return Memory(options.stay_s if any(map(has_cheap_cache, pool.workers)) else 0)
