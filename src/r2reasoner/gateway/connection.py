"""One client's connection: what uvicorn's does, and bounds on a request's size and time.

uvicorn with httptools takes heads of any length and waits for the rest of a request for ever. Here
head and body arrive `within_s`, a head has at most `MAX_HEAD_BYTES`, and what comes after it at
most `MAX_REQUEST_BYTES` (what a body may have is the application's affair); else the client gets an
error in OpenAI's shape and the connection ends. What is not HTTP gets such an error too.
"""

import asyncio
import json
from http import HTTPStatus
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from r2reasoner.chat import error_object

MAX_HEAD_BYTES: Final = 32_768
MAX_REQUEST_BYTES: Final = 16 << 20


class Connection(HttpToolsProtocol):
    """The protocol of one connection. `within_s` is how long a request may take to arrive."""

    within_s: ClassVar[float] = 60.0

    _arriving: asyncio.TimerHandle | None = None
    _begun: int = 0
    _got: int = 0
    _in_head: bool = False
    _trouble: HTTPStatus = HTTPStatus.BAD_REQUEST

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, if it is not too much for one request."""
        begun = self._begun
        self._wait()
        super().data_received(data)
        if self._begun != begun:
            return  # some of it may have been the request before
        self._got += len(data)
        if self._got > (MAX_HEAD_BYTES if self._in_head else MAX_REQUEST_BYTES):
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                if self._in_head
                else HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            )

    def on_message_begin(self) -> None:
        """Begin a request, which need not be the first of what came."""
        self._begun += 1
        self._got = 0
        self._in_head = True
        self._wait()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; not a trailer, which nobody here reads."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take a whole head, if it is not too long."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._trouble = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("the head is too long")  # the parser stops, and the error is sent
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that a request has arrived whole."""
        self._arrived()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with what came, and end."""
        self._refuse(self._trouble)

    def _wait(self) -> None:
        if self._arriving is None:
            self._arriving = self.loop.call_later(self.within_s, self._late)

    def _arrived(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _late(self) -> None:
        self._arriving = None
        if self._is_answering():
            self._wait()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _is_answering(self) -> bool:
        """Tell whether a request that arrived whole has no whole answer yet."""
        cycle = self.cycle
        return bool(self.pipeline) or (
            cycle is not None and not cycle.more_body and not cycle.response_complete
        )

    def _refuse(self, status: HTTPStatus) -> None:
        """End the connection with an error, or without one where an answer is being written."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps(error_object(status, status.description or status.phrase)).encode()
            head = (
                f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
        self.transport.close()
