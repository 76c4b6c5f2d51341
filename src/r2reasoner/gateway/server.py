"""The socket: uvicorn, with what it must not do turned off.

At SIGTERM or SIGINT it takes no new connection, lets requests in flight end, then cancels what is
left (its calls are settled), and closes the gateway, which writes what is queued.
"""

import errno
import socket
from collections.abc import Callable
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from r2reasoner.errors import ConfigError

MAX_HEADER_BYTES: Final = 32_768
BACKLOG: Final = 2048

Ready = Callable[[str, int], None]


class Server(uvicorn.Server):
    """A server that says where it listens."""

    def __init__(self, app: ASGIApp, ready: Ready, *, drain_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                log_level="warning",
                ws="none",
                server_header=False,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                timeout_graceful_shutdown=max(1, round(drain_s)),
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started and sockets:
            self._ready(*sockets[0].getsockname()[:2])


def listen(app: ASGIApp, host: str, port: int, *, drain_s: float, ready: Ready) -> None:
    """Serve until SIGTERM or SIGINT. `ready` hears the address. Raises ConfigError."""
    with bind(host, port) as bound:
        Server(app, ready, drain_s=drain_s).run(sockets=[bound])


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ConfigError where the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, number, _, address = found[0]
        bound = socket.socket(family, kind, number)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        hint = "; try another --port" if error.errno == errno.EADDRINUSE else ""
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}{hint}") from None
    return bound
