"""The socket: where it listens, SIGTERM with requests in flight, a client that never reads."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateways import gateway
from pools import pool_at, pool_file
from r2reasoner.errors import ConfigError
from r2reasoner.gateway.gateway import Options
from r2reasoner.gateway.server import bind
from r2reasoner.ledger import Ledger
from r2reasoner.mock import MockProvider
from r2reasoner.types import CallOutcome

COMMAND = "from r2reasoner.cli.app import main; main()"


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


async def ask(base_url: str, body: dict[str, Any]) -> tuple[int, Any]:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{base_url}/chat/completions", json=body) as response,
    ):
        return response.status, await response.json()


async def test_sigterm_lets_what_is_in_flight_end(tmp_path: Path) -> None:
    async with MockProvider(latency_s=1.5) as mock:
        file, db = pool_file(tmp_path, mock.base_url), tmp_path / "l.db"
        process = start("serve", "--pool", str(file), "--port", "0", "--db", str(db), "--json")
        assert process.stdout is not None
        told = json.loads(await asyncio.to_thread(process.stdout.readline))
        body = {"model": "small", "messages": [{"role": "user", "content": "a b"}]}
        asking = [asyncio.create_task(ask(told["base_url"], body)) for _ in range(5)]
        while len(mock.books) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        ends = await asyncio.gather(*asking)
        _, log = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    with closing(sqlite3.connect(db)) as closed:
        assert closed.execute("SELECT * FROM leases").fetchall() == []
    assert [status for status, _ in ends] == [200] * 5
    with Ledger.open(db) as ledger:
        entries = ledger.entries()
        assert len(ledger.traces()) == 5
    assert {e.outcome for e in entries} == {CallOutcome.OK}
    assert len(entries) == len(mock.books) == 5
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert len(lines) == 5
    assert all("a b" not in json.dumps(line) for line in lines)


def test_beyond_this_machine_it_needs_a_key(tmp_path: Path) -> None:
    process = start("serve", "--host", "0.0.0.0", "--port", "0", "--db", str(tmp_path / "l.db"))
    _, error = process.communicate()
    assert process.returncode == 1
    assert "r2reasoner key create" in error


def test_a_port_that_is_taken() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="another --port"):
            bind("127.0.0.1", port)
    with pytest.raises(ConfigError, match="cannot listen"):
        bind("no.such.host.invalid", 0)


async def test_a_client_that_never_reads_is_let_go(tmp_path: Path) -> None:
    """Its answer is far larger than what sockets hold, so writing to it blocks."""
    options = Options(write_timeout_s=0.5, keep_alive_s=0.1)
    long = "word " * 25_000
    async with MockProvider(answer=lambda call: long) as mock:
        pool = pool_at(mock.base_url, max_tokens=50_000, context=60_000)
        with gateway(pool, tmp_path / "l.db", options=options) as served:
            port = int(served.root.rpartition(":")[2])
            body = json.dumps(
                {
                    "model": "small",
                    "stream": True,
                    "messages": [{"role": "user", "content": "a"}],
                }
            )
            with socket.create_connection(("127.0.0.1", port)) as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.sendall(
                    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                    % len(body)
                    + body.encode()
                )
                async with asyncio.timeout(60):
                    while not served.gateway.live._running:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    while served.gateway.live._running:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            await served.ledger.flush()
            (entry,) = served.ledger.entries()
    assert entry.outcome is CallOutcome.UNKNOWN
