"""How long a plan takes against its critical path, by the provider's own clock.

One planner call, one allocator call, independent subtasks, a last one that needs them all: each
answered after the same latency by the fake provider on a real socket. The span from the first
request to the last answer, divided by the longest chain of answer times; what is above 1 is ours:
client, ledger on disk, executor and the socket. The best of the rounds counts, since a busy machine
only adds.

    python benchmarks/critical_path.py --rounds 10 --out benchmarks/results/critical_path.json
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

from r2reasoner.config import settings
from r2reasoner.ledger import Ledger
from r2reasoner.mock import BookEntry, ChatCall, MockProvider, in_thread
from r2reasoner.pool.cards import Card, Endpoint, Pool, Price
from r2reasoner.router import Router
from r2reasoner.types import AnswerStatus

GOAL = 1.05


def answer(call: ChatCall) -> str:
    """Plan by the width that the query asks for, give every subtask the one worker, answer."""
    width = int(call.last_user.partition("width ")[2].split()[0])
    if call.role == "decomposer":
        parts = [{"text": f"part {n}", "needs": []} for n in range(1, width + 1)]
        last = {"text": "put them together", "needs": list(range(1, width + 1))}
        return json.dumps({"subtasks": [*parts, last], "answer": f"#{width + 1}"})
    if call.role == "allocator":
        return json.dumps({"models": ["worker"] * (width + 1)})
    return "done"


def pool_at(base_url: str) -> Pool:
    endpoint = Endpoint(name="mock", kind="openai", base_url=base_url, concurrency=64)
    price = Price(Decimal("0.15"), Decimal("0.60"))
    worker = Card(name="worker", endpoint=endpoint, model="worker", price=price)
    return Pool(
        name="mock", workers=(worker,), policies={}, decomposer="worker", allocator="worker"
    )


def took(book: BookEntry) -> float:
    assert book.finished_at is not None
    return book.finished_at - book.started_at


def ratio_of(books: Sequence[BookEntry]) -> float:
    """Return the span of a query's requests over its critical path."""
    by_role: dict[str | None, list[BookEntry]] = {}
    for book in books:
        by_role.setdefault(book.role, []).append(book)
    assert sorted(map(str, by_role)) == ["allocator", "decomposer", "final", "worker"]
    path = sum(max(took(book) for book in entries) for entries in by_role.values())
    begun = min(book.started_at for book in books)
    ended = max(book.started_at + took(book) for book in books)
    return (ended - begun) / path


async def measure(provider: MockProvider, width: int, rounds: int, folder: Path) -> list[float]:
    """Return each round's ratio, after one that only opens the connections."""
    ratios = []
    async with (
        Ledger.open(folder / "ledger.db") as ledger,
        Router.open(pool_at(provider.base_url), settings(), ledger) as router,
    ):
        for _ in range(rounds + 1):
            provider.books.clear()
            trace = await router.trace(f"a task of width {width} in parts")
            assert trace.answer.status is AnswerStatus.COMPLETE
            assert len(provider.books) == width + 3
            while any(book.finished_at is None for book in provider.books):  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # its thread may be a moment behind ours
            ratios.append(ratio_of(provider.books))
    return ratios[1:]


def report(ratios: list[float], width: int, latency_s: float) -> dict[str, object]:
    best = min(ratios)
    return {
        "what": "span of a plan's requests over its critical path, by the provider's timestamps",
        "command": f"python {' '.join(sys.argv)}",
        "commit": _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "independent_subtasks": width,
        "latency_s": latency_s,
        "ratio": round(best, 4),
        "median": round(statistics.median(ratios), 4),
        "ratios": [round(r, 4) for r in ratios],
        "goal": GOAL,
        "met": best <= GOAL,
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=8, help="independent subtasks")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds before each answer")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="also write the result here")
    options = parser.parse_args()
    provider = MockProvider(answer=answer, latency_s=options.latency)
    with tempfile.TemporaryDirectory() as folder, in_thread(provider):
        ratios = asyncio.run(measure(provider, options.width, options.rounds, Path(folder)))
    text = json.dumps(report(ratios, options.width, options.latency), indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
