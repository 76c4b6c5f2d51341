"""Requests a second and added time: a bare pass-through, our gateway, the LiteLLM proxy.

All stand before the same fake upstream, one process each, and are measured turn by turn in one run.
The server under test has a core of its own, load generator and upstream share another. Ours runs
as `r2reasoner serve` does, with a key that has a budget, the ledger and traces. LiteLLM's proxy
(its own environment: `python -m venv DIR && DIR/bin/pip install 'litellm[proxy]'`) runs with a
master key, no database and no callbacks.

    python benchmarks/gateway_speed.py --litellm DIR/bin/litellm
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import uvloop
from results_file import provenance, write_result
from speed_servers import message_size

RESULT = Path(__file__).parent / "results" / "gateway_speed.json"
SERVER_CORE, LOAD_CORE = {0}, {1}
KEY = "sk-of-the-benchmark"
QUERY = "A train leaves at noon and goes 60 km an hour. How far is it by three? " * 4
ROUTED_QUERY = "jump around left twice and walk opposite right thrice"
SERVERS = Path(__file__).parent / "speed_servers.py"


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody who answers chat requests."""

    name: str
    base_url: str
    model: str
    key: str
    pid: int
    query: str = QUERY

    @property
    def request(self) -> bytes:
        body = json.dumps(
            {
                "model": self.model,
                "messages": [
                    {"role": "system", "content": "You answer in one short sentence."},
                    {"role": "user", "content": self.query},
                ],
                "max_tokens": 256,
            }
        ).encode()
        url = urlsplit(self.base_url)
        head = (
            f"POST {url.path}/chat/completions HTTP/1.1\r\nhost: {url.netloc}\r\n"
            f"authorization: Bearer {self.key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True, slots=True)
class Reading:
    """What one target did in one round. Times in milliseconds."""

    requests: int
    seconds: float
    cpu_ms: float
    p50: float
    p99: float


class Connection(asyncio.Protocol):
    """Sends a request again as soon as it is answered, until told to stop."""

    def __init__(self, request: bytes, times: list[float]) -> None:
        self._request = request
        self._times = times
        self._got = b""
        self._stopping = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        size = message_size(self._got)
        if size is None or len(self._got) < size:
            return
        self._times.append(time.perf_counter() - self._sent)
        if not self._got.startswith(b"HTTP/1.1 200"):
            self._fail(RuntimeError(self._got[:500].decode("utf-8", "replace")))
        elif self._stopping:
            self._transport.close()
        else:
            self._got = b""
            self._send()

    def _fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
        self._transport.close()

    def stop(self) -> None:
        self._stopping = True

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def load(target: Target, connections: int, seconds: float) -> Reading:
    """Keep so many requests in flight for so long."""
    loop = asyncio.get_running_loop()
    url = urlsplit(target.base_url)
    times: list[float] = []
    request = target.request
    used, started = cpu_s(target.pid), time.perf_counter()
    opened = [
        (await loop.create_connection(lambda: Connection(request, times), url.hostname, url.port))[
            1
        ]
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for connection in opened:
        connection.stop()
    await asyncio.gather(*(connection.ended for connection in opened))
    took = time.perf_counter() - started
    used = cpu_s(target.pid) - used
    times.sort()
    return Reading(
        requests=len(times),
        seconds=took,
        cpu_ms=used / len(times) * 1000,
        p50=times[len(times) // 2] * 1000,
        p99=times[len(times) * 99 // 100] * 1000,
    )


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(
    command: list[str], core: set[int], *, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on a core of its own."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def address(process: subprocess.Popen[bytes]) -> str:
    """Return where a server that says so listens."""
    assert process.stdout is not None
    found: str = json.loads(process.stdout.readline())["base_url"]
    return found


POOL = """
[pool]
name = "speed"
decomposer = "fake"
allocator = "ladder"
[endpoints.fake]
kind = "openai"
base_url = "{base_url}"
concurrency = 512
[[workers]]
name = "fake"
endpoint = "fake"
model = "fake"
group = "large"
input_price = "0.15"
output_price = "0.60"
context = 32000
max_tokens = 1024
capabilities = ["tools", "json"]
"""


@contextmanager
def gateway(name: str, pool: str, model: str, folder: Path, query: str = QUERY) -> Iterator[Target]:
    """Run `r2reasoner serve` with a key that has a budget."""
    db = folder / f"{name}.db"
    r2 = str(Path(sys.executable).with_name("r2reasoner"))
    made = subprocess.run(
        [r2, "key", "create", "speed", "--day", "100000", "--db", str(db), "--json"],
        capture_output=True,
        check=True,
    )
    key = json.loads(made.stdout)["secret"]
    command = [r2, "serve", "--pool", pool, "--port", "0", "--db", str(db), "--no-log", "--json"]
    with running(command, SERVER_CORE) as process:
        yield Target(name, address(process), model, key, process.pid, query)


LITELLM = {
    "model_list": [
        {
            "model_name": "fake",
            "litellm_params": {"model": "openai/fake", "api_key": "none"},
        }
    ],
    "general_settings": {"master_key": KEY},
    "litellm_settings": {"num_retries": 0, "callbacks": []},
}


@contextmanager
def litellm(program: str, base_url: str, folder: Path, port: int) -> Iterator[Target]:
    """Run LiteLLM's proxy, one worker."""
    config: dict[str, Any] = json.loads(json.dumps(LITELLM))
    config["model_list"][0]["litellm_params"]["api_base"] = base_url
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(config))
    command = [program, "--config", str(file), "--port", str(port), "--host", "127.0.0.1"]
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
    }
    with running([*command, "--num_workers", "1"], SERVER_CORE, env=env) as process:
        asyncio.run(_until_up(f"http://127.0.0.1:{port}/health/liveliness"))
        yield Target("litellm", f"http://127.0.0.1:{port}/v1", "fake", KEY, process.pid)


def litellm_version(program: str | None) -> str | None:
    """Return which LiteLLM was measured, None where none was."""
    if program is None:
        return None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"[0-9]+(?:\.[0-9]+)+", done.stdout)
    return found[0] if found else None


async def _until_up(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(180):
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)


async def measure(
    targets: list[Target], connections: list[int], rounds: int, seconds: float
) -> dict[int, dict[str, list[Reading]]]:
    """Return the readings, after a warm-up of each target."""
    for target in targets:
        await load(target, 4, 1.0)
    found: dict[int, dict[str, list[Reading]]] = {}
    for count in connections:
        found[count] = {target.name: [] for target in targets}
        for number in range(rounds):
            for target in targets[:: 1 if number % 2 else -1]:
                found[count][target.name].append(await load(target, count, seconds))
                print(count, target.name, found[count][target.name][-1], file=sys.stderr)
    return found


def summary(readings: dict[str, list[Reading]]) -> dict[str, Any]:
    """Return the medians of the rounds, and what each target adds to the upstream by itself."""
    medians = {
        name: {
            "requests_per_s": round(statistics.median(r.requests / r.seconds for r in its), 1),
            "cpu_ms": round(statistics.median(r.cpu_ms for r in its), 4),
            "p50_ms": round(statistics.median(r.p50 for r in its), 3),
            "p99_ms": round(statistics.median(r.p99 for r in its), 3),
        }
        for name, its in readings.items()
    }
    floor = medians["upstream"]
    for row in medians.values():
        row["added_p50_ms"] = round(row["p50_ms"] - floor["p50_ms"], 3)
        row["added_p99_ms"] = round(row["p99_ms"] - floor["p99_ms"], 3)
    return medians


def ratio(readings: dict[str, list[Reading]], one: str, other: str) -> float | None:
    """Return the median over rounds of one target's requests a second by another's."""
    if other not in readings:
        return None
    pairs = zip(readings[one], readings[other], strict=True)
    return round(
        statistics.median((a.requests / a.seconds) / (b.requests / b.seconds) for a, b in pairs), 3
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--litellm", help="the program `litellm`; without it that part is left out")
    parser.add_argument("--litellm-port", type=int, default=18999)
    parser.add_argument("--connections", default="1,16,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="a round of one target")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the result is written")
    options = parser.parse_args()
    connections = [int(n) for n in options.connections.split(",")]
    os.sched_setaffinity(0, LOAD_CORE)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        python = [sys.executable, str(SERVERS)]
        upstream = stack.enter_context(running([*python, "upstream"], LOAD_CORE))
        base_url = address(upstream)
        bare = stack.enter_context(running([*python, "bare", base_url], SERVER_CORE))
        pool = folder / "pool.toml"
        pool.write_text(POOL.format(base_url=base_url))
        targets = [
            Target("upstream", base_url, "fake", "none", upstream.pid),
            Target("bare", address(bare), "fake", "none", bare.pid),
            stack.enter_context(gateway("direct", str(pool), "fake", folder)),
            stack.enter_context(gateway("nano", "nano", "r2reasoner", folder, ROUTED_QUERY)),
        ]
        if options.litellm:
            targets.append(
                stack.enter_context(
                    litellm(options.litellm, base_url, folder, options.litellm_port)
                )
            )
        found = uvloop.run(measure(targets, connections, options.rounds, options.seconds))
    result = {
        "what": "the gateway's speed beside a bare pass-through and the LiteLLM proxy",
        **provenance("aiohttp", "starlette", "uvicorn"),
        "litellm": litellm_version(options.litellm),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "by_connections": {
            str(count): {
                "targets": summary(readings),
                "direct_by_bare": ratio(readings, "direct", "bare"),
                "direct_by_litellm": ratio(readings, "direct", "litellm"),
            }
            for count, readings in found.items()
        },
    }
    write_result(options.out, result)


if __name__ == "__main__":
    main()
