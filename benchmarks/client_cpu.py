"""CPU per call of our client, ledger and all, against bare aiohttp.

Both talk to the same fake provider in a process of its own, 32 calls in flight, turn by turn in one
run, so that both meet the same machine. CPU is that of the whole process, the ledger's writer
thread included. Bare aiohttp posts the same JSON and parses the answer, and does nothing else: no
ledger, no limits, no check of what came.

    python benchmarks/client_cpu.py --calls 2000 --rounds 21
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp
from results_file import provenance, write_result

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.ledger import Ledger
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.types import Message, Role

GOAL = 2.0
RESULT = Path(__file__).parent / "results" / "client_cpu.json"
CALLS_PER_QUERY = 6
MESSAGES = (
    Message("system", "You answer in one short sentence, and you do not explain."),
    Message("user", "A train leaves at noon and goes 60 km an hour. How far is it by three? " * 4),
)


@dataclass(frozen=True)
class Round:
    """CPU milliseconds a call, of both, one after the other."""

    bare_ms: float
    ours_ms: float

    @property
    def ratio(self) -> float:
        return self.ours_ms / self.bare_ms


@contextmanager
def provider() -> Iterator[str]:
    """Run the fake provider in its own process and give its base URL."""
    code = "import typer; from r2reasoner.cli.mock import mock; typer.run(mock)"
    command = [sys.executable, "-c", code, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["base_url"]
        finally:
            process.terminate()


async def cpu_ms(call: Callable[[int], Awaitable[None]], calls: int, in_flight: int) -> float:
    """Return the CPU milliseconds that each of so many calls takes this process."""
    numbers = iter(range(calls))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    started = time.process_time()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return (time.process_time() - started) / calls * 1000


async def bare(base_url: str, calls: int, in_flight: int) -> float:
    body = {
        "model": "mock",
        "messages": [{"role": m.role, "content": m.content} for m in MESSAGES],
        "max_tokens": 256,
        "temperature": 0.0,
    }
    async with aiohttp.ClientSession() as session:

        async def call(_: int) -> None:
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                data = await response.json()
                assert data["choices"][0]["message"]["content"]

        return await cpu_ms(call, calls, in_flight)


async def ours(base_url: str, calls: int, in_flight: int, folder: Path) -> float:
    endpoint = Endpoint(name="mock", kind="openai", base_url=base_url, concurrency=in_flight)
    price = Price(Decimal("0.15"), Decimal("0.60"))
    card = Card(name="mock", endpoint=endpoint, model="mock", price=price)
    request = ChatRequest(messages=MESSAGES, max_tokens=256, role=Role.WORKER)
    client = OpenAIClient()
    async with Ledger.open(folder / f"{time.time_ns()}.db") as ledger:
        meters = [Meter(ledger, f"query-{n}") for n in range(calls // CALLS_PER_QUERY + 1)]
        deadline = time.monotonic() + 600

        async def call(number: int) -> None:
            meter = meters[number // CALLS_PER_QUERY]
            assert (await client.complete(card, request, meter, deadline)).text

        try:
            return await cpu_ms(call, calls, in_flight)
        finally:
            await client.close()


async def measure(base_url: str, calls: int, in_flight: int, rounds: int) -> list[Round]:
    """Return the rounds, after one that only warms up; who goes first alternates."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            if number % 2:
                first = await bare(base_url, calls, in_flight)
                second = await ours(base_url, calls, in_flight, Path(folder))
            else:
                second = await ours(base_url, calls, in_flight, Path(folder))
                first = await bare(base_url, calls, in_flight)
            found.append(Round(first, second))
    return found[1:]


def report(rounds: list[Round], calls: int, in_flight: int) -> dict[str, object]:
    ratio = statistics.median(r.ratio for r in rounds)
    return {
        "what": "CPU per call: our client with its ledger against bare aiohttp",
        **provenance("aiohttp"),
        "calls": calls,
        "in_flight": in_flight,
        "bare_ms": round(statistics.median(r.bare_ms for r in rounds), 4),
        "ours_ms": round(statistics.median(r.ours_ms for r in rounds), 4),
        "ratio": round(ratio, 3),
        "ratios": [round(r.ratio, 3) for r in rounds],
        "goal": GOAL,
        "met": ratio <= GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=2000, help="calls a round, each")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, default=RESULT, help="where the result is written")
    options = parser.parse_args()
    with provider() as base_url:
        rounds = asyncio.run(measure(base_url, options.calls, options.in_flight, options.rounds))
    write_result(options.out, report(rounds, options.calls, options.in_flight))


if __name__ == "__main__":
    main()
