"""What the gateway is measured beside: a fake upstream and a bare pass-through.

The upstream is a raw asyncio protocol that answers every request with the same completion, so that
it is never what is measured. The pass-through is the least that a gateway in Starlette and aiohttp
can do: no key, no check, no ledger.

    python benchmarks/speed_servers.py upstream
    python benchmarks/speed_servers.py bare http://127.0.0.1:PORT/v1
"""

import asyncio
import json
import socket
import sys
from typing import cast

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

COMPLETION = {
    "id": "chatcmpl-fake",
    "object": "chat.completion",
    "created": 0,
    "model": "fake",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "It is 180 km away by three o'clock."},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 92, "completion_tokens": 12, "total_tokens": 104},
}
BODY = json.dumps(COMPLETION).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)
) + BODY


class Upstream(asyncio.Protocol):
    """Answers each request that is whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._got = b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (size := message_size(self._got)) is not None and len(self._got) >= size:
            self._got = self._got[size:]
            self._transport.write(ANSWER)


def message_size(got: bytes) -> int | None:
    """Return how many bytes the first message has, or None while its head is not whole."""
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = got[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        return end + 4
    return end + 4 + int(head[at + 15 : head.find(b"\r", at) if b"\r" in head[at:] else end])


async def upstream(bound: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, sock=bound, backlog=2048)
    await server.serve_forever()


def bare(base_url: str) -> Starlette:
    """Return the pass-through."""
    sessions: list[aiohttp.ClientSession] = []

    async def chat(request: Request) -> Response:
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = await request.body()
        headers = {"content-type": "application/json"}
        async with sessions[0].post(
            f"{base_url}/chat/completions", data=body, headers=headers
        ) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


def main() -> None:
    bound = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(json.dumps({"base_url": f"http://127.0.0.1:{bound.getsockname()[1]}/v1"}), flush=True)
    if sys.argv[1] == "upstream":
        import uvloop

        uvloop.run(upstream(bound))
    else:
        config = uvicorn.Config(bare(sys.argv[2]), access_log=False, log_level="warning")
        uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
