"""The socket: uvicorn, with what it must not do turned off.

At SIGTERM or SIGINT it takes no new connection, lets requests in flight end, then cancels what is
left (its calls are settled), and closes the gateway, which writes what is queued. Headers that tell
of somebody else's address are believed of the proxies that were named, and of nobody by default.
"""

import asyncio
import errno
import gc
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import uvicorn
from starlette.types import ASGIApp

from r2reasoner.errors import ConfigError
from r2reasoner.gateway.connection import Connection
from r2reasoner.gateway.logs import watch

BACKLOG: Final = 2048

Ready = Callable[[str, int], None]


class Server(uvicorn.Server):
    """A server that says where it listens.

    `proxies` are addresses and networks whose X-Forwarded-For and -Proto are believed.
    """

    def __init__(
        self, app: ASGIApp, ready: Ready, *, drain_s: float, proxies: Sequence[str] = ()
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                log_level=None,
                ws="none",
                server_header=False,
                proxy_headers=bool(proxies),
                forwarded_allow_ips=list(proxies),
                http=Connection,
                timeout_graceful_shutdown=max(1, round(drain_s)),
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        watch(asyncio.get_running_loop())
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what was imported is not looked through again, which stops all for 30 ms
        if self.started and sockets:
            self._ready(*sockets[0].getsockname()[:2])


def listen(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    drain_s: float,
    ready: Ready,
    proxies: Sequence[str] = (),
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` hears the address. Raises ConfigError."""
    raise_descriptor_limit()
    with bind(host, port) as bound, _sigterm_unwinds():
        Server(app, ready, drain_s=drain_s, proxies=proxies).run(sockets=[bound])


def raise_descriptor_limit() -> None:
    """Let this process open as many files as it may: a stream takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems say more than they give
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM end the process by SystemExit.

    uvicorn raises the signal again when it is done. To die of it would leave open what was opened
    around the server: the ledger would not give up its lease.
    """

    def end(number: int, frame: object) -> NoReturn:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
