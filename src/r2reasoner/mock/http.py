"""HTTP/1.1 as far as the fake provider speaks it: a request off a buffer, a head, a chunk."""

from collections.abc import Mapping
from typing import Final, NamedTuple

MAX_HEAD_BYTES: Final = 64 << 10
MAX_BODY_BYTES: Final = 16 << 20
STATUS_TEXT: Final = {
    200: "OK",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    529: "Overloaded",
}


class Request(NamedTuple):
    """One request; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class BadRequest(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def take_request(buffer: bytearray) -> Request | None:
    """Take one request off a buffer; None when it is not whole yet."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MAX_HEAD_BYTES:
            raise BadRequest(400, "the headers are too long")
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    parts = first.split(" ")
    length = headers.get("content-length", "0")
    if len(parts) != 3 or not length.isdigit():
        raise BadRequest(400, "expected HTTP/1.1")
    if "transfer-encoding" in headers:
        raise BadRequest(411, "expected a body with content-length")
    size = int(length)
    if size > MAX_BODY_BYTES:
        raise BadRequest(413, f"a body has at most {MAX_BODY_BYTES} bytes")
    start = end + 4
    if len(buffer) < start + size:
        return None
    body = bytes(buffer[start : start + size])
    del buffer[: start + size]
    return Request(parts[0], parts[1], headers, body)


def head(
    status: int,
    kind: str,
    length: int | None,
    headers: Mapping[str, str] | None = None,
    *,
    chunked: bool = False,
) -> bytes:
    """Return the head of a response; without a length, chunked or ended by closing."""
    lines = [f"HTTP/1.1 {status} {STATUS_TEXT[status]}", f"Content-Type: {kind}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    else:
        lines.append("Transfer-Encoding: chunked" if chunked else "Connection: close")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
