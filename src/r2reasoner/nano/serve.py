"""The models of an embedded pool over HTTP, in OpenAI's format: the road that real endpoints take.

POST /v1/chat/completions and GET /v1/models as the OpenAI API has them; /books says what each
model was asked, so that a client's ledger can be held against it; /healthz that it is up. It has
no keys and no accounts, so it listens on this machine alone unless told otherwise.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aiohttp import web

from r2reasoner.chat import Refusal, cut_at, error_object
from r2reasoner.client.embedded import EmbeddedClient
from r2reasoner.errors import ConfigError, UnknownWords
from r2reasoner.hosts import base_url, is_loopback
from r2reasoner.nano.chat import Ask, Reply, read_ask
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import Pico, Usage

MAX_BODY_BYTES: Final = 1 << 20
SHUTDOWN_S: Final = 5.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Book:
    """What a model was asked: answered calls, their tokens and cost (None: unknown price)."""

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: Pico | None = 0

    def add(self, card: Card, usage: Usage) -> None:
        """Book one answered call."""
        self.calls += 1
        self.usage += usage
        self.cost = None if card.price is None else (self.cost or 0) + card.price.cost(usage)


class NanoServer:
    """A server of an embedded pool's models, as an async context manager.

    Raises ConfigError for a pool that is not embedded, and for a host other than this machine's
    own unless `allow_remote`. Port 0 takes a free one; `base_url` tells which once it listens.
    """

    def __init__(
        self, pool: Pool, *, host: str = "127.0.0.1", port: int = 0, allow_remote: bool = False
    ) -> None:
        if not allow_remote and not is_loopback(host):
            raise ConfigError(
                f"{host} is not this machine alone, and the server asks for no key; take"
                " --host 127.0.0.1, or --allow-remote if everyone who can reach it may use it"
            )
        self.pool = pool
        self.cards = {card.name: card for card in (*pool.workers, *pool.policies.values())}
        for card in self.cards.values():
            if card.endpoint.kind != "embedded":
                raise ConfigError(
                    f"pool {pool.name!r}: {card.name} is not run in process, so it cannot be"
                    " served; take an embedded pool, as nano is"
                )
        self.books = {name: Book() for name in self.cards}
        self._address = (host, port)
        self._client = EmbeddedClient()
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Load the models and listen. Raises ConfigError, and OSError when the port is taken."""
        for card in self.cards.values():
            self._client.model(card)
        app = web.Application(middlewares=[_as_openai_errors], client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{name}", self._model),
                web.get("/books", self._books),
                web.get("/healthz", self._health),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        self._address = self._runner.addresses[0][:2]

    async def close(self) -> None:
        """Stop listening, let calls in flight end (5 s at most), free the models."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._client.close()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def base_url(self) -> str:
        """Where an OpenAI client on this machine points to, known once it listens."""
        return base_url(*self._address)

    def books_json(self) -> dict[str, Any]:
        """Return the books: calls, tokens and cost (pico-dollars) by model, and their sums."""
        models = {
            name: {
                "calls": book.calls,
                "input_tokens": book.usage.input_tokens,
                "output_tokens": book.usage.output_tokens,
                "cost_pico": book.cost,
            }
            for name, book in self.books.items()
        }
        keys = ("calls", "input_tokens", "output_tokens")
        return {
            "models": models,
            "totals": {k: sum(m[k] or 0 for m in models.values()) for k in keys},
        }

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
        except ConnectionResetError:
            raise Refusal(400, "the body broke off") from None
        ask = read_ask(body)
        reply = await self._answer(ask)
        if not ask.stream:
            return web.json_response(reply.as_object())
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        with suppress(ConnectionResetError):  # the client left; the answer is booked all the same
            await response.prepare(request)
            for event in reply.as_events(include_usage=ask.include_usage):
                await response.write(event)
            await response.write_eof()
        return response

    async def _answer(self, ask: Ask) -> Reply:
        card = self._card(ask.model)
        model = self._client.model(card)
        prompt = model.codec.prompt(ask.messages)
        limit = _limit(card, len(prompt), ask.max_tokens)
        try:
            tokens, logprobs = await model.generate(prompt, limit, ask.rank, logprobs=ask.logprobs)
        except (RuntimeError, ValueError) as error:
            raise Refusal(500, f"the engine failed: {error}") from error
        ended = len(tokens) < limit
        usage = Usage(len(prompt), len(tokens) + ended)
        self.books[card.name].add(card, usage)
        text, cut = cut_at(model.codec.text(tokens), ask.stop)
        return Reply(
            id=f"chatcmpl-nano-{next(self._numbers)}",
            created=int(time.time()),
            model=card.name,
            text=text,
            finish_reason="stop" if ended or cut else "length",
            usage=usage,
            tokens=tokens,
            logprobs=None if cut else logprobs,
        )

    def _card(self, name: str) -> Card:
        card = self.cards.get(name)
        if card is None:
            raise Refusal(
                404,
                f"no model {name[:80]!r} here; there are: {', '.join(self.cards)}",
                code="model_not_found",
                param="model",
            )
        return card

    async def _models(self, request: web.Request) -> web.Response:
        listed = [self._listed(card) for card in self.cards.values()]
        return web.json_response({"object": "list", "data": listed})

    async def _model(self, request: web.Request) -> web.Response:
        return web.json_response(self._listed(self._card(request.match_info["name"])))

    def _listed(self, card: Card) -> dict[str, Any]:
        """Return a model as OpenAI lists it, and its card's figures; prices are $ per M tokens."""
        return {
            "id": card.name,
            "object": "model",
            "created": 0,
            "owned_by": "r2reasoner",
            "role": "policy" if card.name in self.pool.policies else "worker",
            "parameters": card.parameters,
            "context": card.context,
            "max_tokens": card.max_tokens,
            "input_price": None if card.price is None else f"{card.price.input:f}",
            "output_price": None if card.price is None else f"{card.price.output:f}",
        }

    async def _books(self, request: web.Request) -> web.Response:
        return web.json_response(self.books_json())

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "pool": self.pool.name})


def _limit(card: Card, prompt: int, wanted: int | None) -> int:
    """Return how many tokens may be written. Raises Refusal where they do not fit the context."""
    room = card.context - prompt
    limit = min(card.max_tokens, room) if wanted is None else wanted
    if not 1 <= limit <= room:
        raise Refusal(
            400,
            f"{prompt} prompt tokens and {wanted or 1} to write do not fit a context of"
            f" {card.context}",
            code="context_length_exceeded",
            param="messages",
        )
    return limit


@web.middleware
async def _as_openai_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer whatever goes wrong in OpenAI's shape."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return _error(refusal.status, str(refusal), refusal.code, refusal.param)
    except UnknownWords as error:
        message = f"{error}; a nano model knows SCAN commands and arithmetic with + - *"
        return _error(400, message, "unknown_words", "messages")
    except web.HTTPRequestEntityTooLarge:
        return _error(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    except web.HTTPException as error:
        there = "POST /v1/chat/completions, GET /v1/models, /books and /healthz"
        message = f"{request.method} {request.path[:80]}: {error.reason}; there are {there}"
        return _error(error.status, message)


def _error(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> web.Response:
    return web.json_response(error_object(status, message, code, param), status=status)


async def serve_until(
    stop: asyncio.Event, server: NanoServer, ready: Callable[[str], None]
) -> None:
    """Serve until `stop` is set; `ready` hears the base URL once it listens.

    Raises ConfigError where it cannot listen, and what `ready` raises.
    """
    try:
        async with server:
            ready(server.base_url)
            await stop.wait()
    except OSError as error:
        raise ConfigError(f"cannot listen: {error.strerror or error}; try another --port") from None
