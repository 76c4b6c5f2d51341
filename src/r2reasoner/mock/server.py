"""The fake provider's socket and its books.

Speaks just enough HTTP/1.1 over `asyncio.Protocol`, because faults need the bare connection: a
reset, a half-close, half a chunk. The books bill what was generated: an error bills nothing, an
answer that is not streamed bills whole, a stream bills the tokens sent before it broke off.
Leaves out TLS, chunked request bodies and pipelining beyond one request at a time.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import count
from time import time
from typing import Any, Final, NoReturn, Self

from r2reasoner.mock.answers import Answer, Answerer, ChatCall, Piece, echo, error_object, read_call
from r2reasoner.mock.caching import PromptCache
from r2reasoner.mock.effects import damage, distort, error_headers, find_cut
from r2reasoner.mock.faults import Cut, Ending, Fault, Script, Trouble, as_script
from r2reasoner.mock.http import BadRequest, Request, chunk, head, take_request
from r2reasoner.types import Usage

RESET_DELAY_S: Final = 0.01
"""What was written before a reset needs this long to leave the kernel."""


class BookEnd(StrEnum):
    """How a request ended, as the provider saw it. `gone`: the client left before the end."""

    OPEN = "open"
    WHOLE = "whole"
    CUT = "cut"
    GONE = "gone"


@dataclass(slots=True)
class BookEntry:
    """One request in the provider's books. Tokens are those billed; times are `time.time()`."""

    number: int
    started_at: float
    model: str | None = None
    role: str | None = None
    stream: bool = False
    fault: str | None = None
    status: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    body_bytes: int = 0
    end: BookEnd = BookEnd.OPEN
    finished_at: float | None = None

    @property
    def usage(self) -> Usage:
        """The tokens billed."""
        return Usage(self.input_tokens, self.output_tokens, self.cached_tokens)


class MockProvider:
    """A provider to talk to, as an async context manager.

    `answer` makes the text of each answer, `logprob` says how sure its tokens are (None: not
    told, as many endpoints do), `faults` is a script or a queue of faults (the header
    `x-mock-fault` overrides both). `latency_s` passes before an answer, `token_s` before each
    event of a stream; `drip_s` and `slow_s` are the pauses of the faults that are slow, and
    `retry_after_s` is what a 429 asks for. With `models`, others are unknown; with `key`,
    requests without it are refused. With `cache`, beginnings of prompts that a model was sent
    before are reported and billed as cached, where the usage is an honest one.
    """

    def __init__(
        self,
        *,
        answer: Answerer = echo,
        logprob: Callable[[ChatCall], float | None] = lambda call: None,
        faults: Script | Iterable[Trouble | None] | None = None,
        latency_s: float | Callable[[ChatCall], float] = 0.0,
        token_s: float = 0.0,
        drip_s: float = 1.0,
        slow_s: float = 2.0,
        retry_after_s: int = 1,
        models: Iterable[str] = (),
        key: str | None = None,
        cache: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.answer = answer
        self.logprob = logprob
        self.fault_for = as_script(faults)
        self.latency_s = latency_s
        self.token_s = token_s
        self.drip_s = drip_s
        self.slow_s = slow_s
        self.retry_after_s = retry_after_s
        self.models = tuple(models)
        self.key = key
        self.cache = PromptCache() if cache else None
        self.books: list[BookEntry] = []
        self.numbers = count(1)
        self.connections: set[_Connection] = set()
        self._address = (host, port)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        host, port = self._address
        self._server = await loop.create_server(lambda: _Connection(self), host, port)
        self._address = self._server.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is None:
            return
        self._server.close()
        tasks = [c.task for c in self.connections if c.task is not None]
        for connection in tuple(self.connections):
            connection.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def base_url(self) -> str:
        """Where an OpenAI client points to, known once it listens."""
        host, port = self._address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def books_json(self) -> dict[str, Any]:
        """Return the books as `/books` gives them: entries and the sums of what was billed."""
        return {
            "entries": [asdict(entry) for entry in self.books],
            "totals": {
                "requests": len(self.books),
                "input_tokens": sum(entry.input_tokens for entry in self.books),
                "output_tokens": sum(entry.output_tokens for entry in self.books),
                "cached_tokens": sum(entry.cached_tokens for entry in self.books),
            },
        }


class _Connection(asyncio.Protocol):
    """One connection: requests one after the other; a client that leaves ends its request."""

    transport: asyncio.Transport

    def __init__(self, provider: MockProvider) -> None:
        self.provider = provider
        self.task: asyncio.Task[None] | None = None
        self._buffer = bytearray()
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.provider.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.provider.connections.discard(self)
        if self.task is not None:
            self.task.cancel()

    def _next(self) -> None:
        """Start on the next request if it is whole and none is being served."""
        if self.task is not None or self.transport.is_closing():
            return
        try:
            request = take_request(self._buffer)
        except BadRequest as error:
            self._respond(error.status, error_object(error.status, str(error)))
            self.transport.close()
            return
        if request is not None:
            self._last = request.headers.get("connection", "").lower() == "close"
            self.task = asyncio.get_running_loop().create_task(self._serve(request))
            self.task.add_done_callback(self._served)

    def _served(self, task: "asyncio.Task[None]") -> None:
        self.task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.transport.abort()
            raise error  # reaches the event loop's exception handler
        if self._last:
            self.transport.close()
        self._next()

    async def _serve(self, request: Request) -> None:
        match (request.method, request.path.partition("?")[0]):
            case ("POST", "/v1/chat/completions"):
                await self._chat(request)
            case ("GET", "/v1/models"):
                models = [
                    {"id": name, "object": "model", "created": 0, "owned_by": "mock"}
                    for name in self.provider.models or ("mock",)
                ]
                self._respond(200, json.dumps({"object": "list", "data": models}).encode())
            case ("GET", "/books"):
                self._respond(200, json.dumps(self.provider.books_json()).encode())
            case _:
                wanted = "POST /v1/chat/completions, GET /v1/models and GET /books"
                message = f"no {request.method} {request.path} here; there are {wanted}"
                self._respond(404, error_object(404, message))

    async def _chat(self, request: Request) -> None:
        entry = BookEntry(next(self.provider.numbers), time())
        self.provider.books.append(entry)
        try:
            try:
                call = self._admit(request, entry)
                trouble = self._trouble(request, call)
                entry.fault = _name(trouble)
                await self._answer(call, trouble, entry)
                entry.end = BookEnd.WHOLE if entry.end is BookEnd.OPEN else entry.end
            except BadRequest as error:
                entry.status = error.status
                self._respond(error.status, error_object(error.status, str(error)))
                entry.end = BookEnd.WHOLE
        except asyncio.CancelledError:
            entry.end = BookEnd.GONE if entry.end is BookEnd.OPEN else entry.end
            raise
        finally:
            entry.finished_at = time()

    def _admit(self, request: Request, entry: BookEntry) -> ChatCall:
        provider = self.provider
        entry.role = request.headers.get("x-r2-role")
        if provider.key and request.headers.get("authorization") != f"Bearer {provider.key}":
            raise BadRequest(401, "expected the key of this provider as a bearer token")
        try:
            call = read_call(request.body, entry.number, entry.role)
        except ValueError as error:
            raise BadRequest(400, str(error)) from None
        entry.model, entry.stream = call.model, call.stream
        if provider.models and call.model not in provider.models:
            raise BadRequest(404, f"no model {call.model!r} here")
        return call

    def _trouble(self, request: Request, call: ChatCall) -> Trouble | None:
        scripted = self.provider.fault_for(call)
        name = request.headers.get("x-mock-fault")
        if not name:
            return scripted
        try:
            return Fault(name)
        except ValueError:
            raise BadRequest(400, f"no fault {name!r}; there are: {', '.join(Fault)}") from None

    async def _answer(self, call: ChatCall, trouble: Trouble | None, entry: BookEntry) -> None:
        provider = self.provider
        latency = provider.latency_s
        await asyncio.sleep(latency(call) if callable(latency) else latency)
        if trouble is Fault.STALL_BEFORE_HEADERS:
            await self._until_the_client_leaves(entry)
        if isinstance(trouble, Fault) and (status := trouble.status) is not None:
            entry.status = status
            headers = error_headers(trouble, provider.base_url, provider.retry_after_s)
            self._respond(status, error_object(status, f"scripted fault {trouble}"), headers)
            return
        honest = Answer.to(call, provider.answer(call), provider.logprob(call))
        answer = distort(honest, trouble)
        if provider.cache is not None and answer.usage == honest.usage:
            answer = answer.cached(provider.cache.meet(call))
        entry.status = 200
        if trouble is Fault.ERROR_IN_200:
            self._respond(200, error_object(200, "scripted error"))
            return
        if trouble is Fault.HTML:
            self._respond(200, b"<html><body>Bad gateway</body></html>", kind="text/html")
            return
        entry.input_tokens, entry.cached_tokens = answer.billed_input, answer.billed_cached
        if trouble is Fault.RESET_BEFORE_HEADERS:
            entry.output_tokens = answer.billed_output
            await self._break_off(Ending.RESET, entry)
            return
        pieces = damage(answer.pieces(), trouble)
        cut = find_cut(trouble, pieces, stream=call.stream)
        await self._deliver(pieces, cut, trouble, entry)

    async def _deliver(
        self, pieces: list[Piece], cut: Cut | None, trouble: Trouble | None, entry: BookEntry
    ) -> None:
        """Send a 200 and its body, whole or up to a cut."""
        chunked = entry.stream and (cut is None or cut.chunked)
        slow = self.provider.slow_s if trouble is Fault.SLOW_FIRST_TOKEN else 0.0
        if entry.stream:
            self._send(head(200, "text/event-stream", None, chunked=chunked))
            await asyncio.sleep(slow)
        else:
            await asyncio.sleep(slow)
            entry.output_tokens = sum(piece.tokens for piece in pieces)
            self._send(head(200, "application/json", sum(len(p.data) for p in pieces)))
        if chunked:
            pieces = [*(Piece(chunk(p.data), p.tokens) for p in pieces), Piece(b"0\r\n\r\n")]
        drip = trouble is Fault.DRIP
        async for piece in self._paced(pieces, drip=drip):
            left = None if cut is None else cut.after - entry.body_bytes
            if left is not None and left < len(piece.data):
                self._send(piece.data[:left])
                entry.body_bytes += left
                assert cut is not None
                await self._break_off(cut.ending, entry)
                return
            self._send(piece.data)
            entry.body_bytes += len(piece.data)
            entry.output_tokens += piece.tokens if entry.stream else 0
        if entry.stream and not chunked:
            self.transport.close()

    async def _paced(self, pieces: list[Piece], *, drip: bool) -> AsyncIterator[Piece]:
        for piece in pieces:
            if not drip:
                yield piece
                await asyncio.sleep(self.provider.token_s)
                continue
            for byte in piece.data[:-1]:
                yield Piece(bytes([byte]))
                await asyncio.sleep(self.provider.drip_s)
            yield Piece(piece.data[-1:], piece.tokens)

    async def _break_off(self, ending: Ending, entry: BookEntry) -> None:
        entry.end = BookEnd.CUT
        if ending is Ending.STALL:
            await self._until_the_client_leaves(entry)
        if ending is Ending.HALF_CLOSE:
            self.transport.write_eof()
            await self._until_the_client_leaves(entry)
        if ending is Ending.RESET:
            await asyncio.sleep(RESET_DELAY_S)
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    async def _until_the_client_leaves(self, entry: BookEntry) -> NoReturn:
        entry.end = BookEnd.CUT
        await asyncio.get_running_loop().create_future()  # cancelled when the connection is lost
        raise AssertionError("unreachable")

    def _respond(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        kind: str = "application/json",
    ) -> None:
        self._send(head(status, kind, len(body), headers) + body)

    def _send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


def _name(trouble: Trouble | None) -> str | None:
    if isinstance(trouble, Cut):
        return f"{trouble.ending} after {trouble.after} bytes"
    return trouble
