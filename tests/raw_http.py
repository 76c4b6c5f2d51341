"""Raw bytes to a server and what comes back: for what no HTTP client would send."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def error(self) -> dict[str, Any]:
        """Return the error, which must be in OpenAI's shape."""
        assert self.headers["content-type"] == "application/json", self
        (key, error), *more = json.loads(self.body).items()
        assert (key, more) == ("error", [])
        assert error.keys() >= {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        return dict(error)


class Raw:
    """One connection."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send what the server still takes."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def reply(self, *, to: str = "GET") -> Reply | None:
        """Read one response to a request of that method; None where the connection ends first."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        status = int(first.split(" ")[1])
        if to == "HEAD" or status in (100, 204, 304):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = self._chunks()
        else:
            body = self._exactly(int(headers["content-length"]))
        return Reply(status, headers, body)

    def ended(self) -> bool:
        """Wait for the server to end the connection; False where it sends more."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._buffer:
            if not self._more():
                assert not self._buffer, f"half a response: {self._buffer[:200]!r}"
                return None
        return self._exactly(self._buffer.index(mark) + len(mark))

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            assert self._more(), "the connection ended within a body"
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _chunks(self) -> bytes:
        body = b""
        while True:
            line = self._until(b"\r\n")
            assert line is not None
            size = int(line, 16)
            body += self._exactly(size)
            assert self._exactly(2) == b"\r\n"
            if not size:
                return body


@contextmanager
def connected(root: str) -> Iterator[Raw]:
    """Connect to a server at an address like `http://127.0.0.1:80`."""
    host, _, port = root.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as opened:
        yield Raw(opened)


def head(first: str, *lines: str, host: str = "localhost") -> bytes:
    """Return a request's head."""
    named = [f"Host: {host}"] if host else []
    return "\r\n".join([first, *named, *lines, "", ""]).encode("latin-1")


def post(path: str, body: bytes, *lines: str, chunked: bool = False, **more: Any) -> bytes:
    """Return a POST of JSON."""
    size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    sent = b"".join(in_chunks(body)) if chunked else body
    first = f"POST {path} HTTP/1.1"
    return head(first, "Content-Type: application/json", size, *lines, **more) + sent


def in_chunks(body: bytes, size: int = 1 << 15) -> Iterator[bytes]:
    """Yield a body in the pieces of a chunked one."""
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
