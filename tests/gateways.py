"""Gateways on real sockets, each in a thread with an event loop of its own."""

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import openai

from pools import NoJitter, card_at, pool_at
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.client.relay import RelayingClient
from r2reasoner.client.secret import Secret
from r2reasoner.config import settings
from r2reasoner.gateway.app import build
from r2reasoner.gateway.gateway import Gateway, Options
from r2reasoner.gateway.keys import Keys
from r2reasoner.gateway.server import Server, bind
from r2reasoner.ledger import Ledger
from r2reasoner.pool.cards import Pool
from r2reasoner.types import Trace

if TYPE_CHECKING:
    from r2reasoner.telemetry.spans import Spans

ADMIN = "admin-of-the-tests"
ABLE = frozenset({"tools", "images", "json", "n"})


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway that runs, and where."""

    gateway: Gateway
    root: str

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    @property
    def ledger(self) -> Ledger:
        return self.gateway.ledger

    @property
    def keys(self) -> Keys:
        return self.gateway.keys

    async def trace(self, trace_id: str) -> Trace:
        """Return a trace that may still be on its way to the ledger."""
        await self.ledger.flush()
        return self.ledger.trace(trace_id)

    def client(self, key: str = "none", **more: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.base_url, api_key=key, **{"max_retries": 0, **more})

    async def post(
        self,
        body: Any,
        *,
        key: str | None = None,
        path: str = "/v1/chat/completions",
        chunked: bool = False,
        **more: Any,
    ) -> tuple[int, Any, Any]:
        """Send a body as it is; return status, headers and JSON."""
        headers = {"content-type": "application/json", **more.pop("headers", {})}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        how = {"json": body}
        if isinstance(body, bytes):
            how = {"data": _in_chunks(body) if chunked else BytesIO(body)}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.root + path, headers=headers, **how, **more) as response,
        ):
            return response.status, response.headers, await response.json(content_type=None)

    async def get(self, path: str, *, key: str | None = None) -> tuple[int, str]:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.root + path, headers=headers) as response,
        ):
            return response.status, await response.text()


async def _in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 1 << 16):
        yield body[at : at + (1 << 16)]


@contextmanager
def gateway(
    pool: Pool,
    db: str | Path,
    *,
    flags: dict[str, Any] | None = None,
    options: Options | None = None,
    admin: bool = True,
    client: RelayingClient | None = None,
    proxies: Sequence[str] = (),
    spans: "Spans | None" = None,
    others: Sequence[Pool] = (),
) -> Iterator[Served]:
    """Serve a pool; its ledger and keys are in `db`. Retries of HTTP calls come at once."""
    http = any(card.endpoint.kind == "openai" for card in pool.workers)
    with Ledger.open(db) as ledger:
        keys = Keys(ledger)
        opened = Gateway.open(
            pool,
            settings(**(flags or {})),
            ledger,
            keys,
            client=client or (OpenAIClient(NoJitter()) if http else None),
            admin_key=Secret(ADMIN) if admin else None,
            options=options,
            spans=spans,
            others=[(other, settings()) for other in others],
        )
        listening = threading.Event()
        server = Server(
            build(opened), lambda host, port: listening.set(), drain_s=5, proxies=proxies
        )
        with bind("127.0.0.1", 0) as bound:
            port = bound.getsockname()[1]
            thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
            thread.start()
            try:
                assert listening.wait(30)
                yield Served(opened, f"http://127.0.0.1:{port}")
            finally:
                server.should_exit = True
                thread.join()


def able_pool(base_url: str, **more: Any) -> Pool:
    """Return a pool whose medium and large models can do everything, the small one nothing."""
    pool = pool_at(base_url, **more)
    workers = [
        card if card.name == "small" else replace(card, capabilities=ABLE) for card in pool.workers
    ]
    return replace(pool, workers=tuple(workers))


__all__ = ["ABLE", "ADMIN", "Served", "able_pool", "card_at", "gateway"]
