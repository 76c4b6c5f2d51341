"""A process for the shard runner that asks a provider, made the same in any process or worker.

As a script it runs a job for each line of settings (JSON), each in a child that may be killed.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import DataError
from r2reasoner.evaluation.spending import SpendingLedger
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.training.columns import Column, Form
from r2reasoner.training.journal import Row
from r2reasoner.training.shard_folder import Job
from r2reasoner.training.shards import Engine, Factory, Process, run_shards
from r2reasoner.types import Message, Role

FORM = Form(
    {
        "item": Column.TEXT,
        "answers": Column.TEXT,
        "calls": Column.INTEGER,
        "cost": Column.INTEGER,
        "share": Column.NUMBER,
        "right": Column.FLAG,
    }
)
STEPS = 2
MAX_TOKENS = 8
PRICE = Price(Decimal(1), Decimal(2))


def job(out: Path, count: int = 20, **changes: Any) -> Job:
    settings: dict[str, Any] = {
        "out": out,
        "rows": [{"item": f"item{n:04}", "query": f"query {n}"} for n in range(count)],
        "config": {"weights": {"conciseness": 1.0, "coherence": 2.0}, "seed": 7},
        "form": FORM,
        "shard_rows": 7,
    }
    return Job(**{**settings, **changes})


def made(row: Row) -> Row:
    """What is to come out, without asking anybody."""
    number = int(row["item"][4:])
    answers = json.dumps([f"{row['query']} step {step}" for step in range(STEPS)])
    return {
        "item": row["item"],
        "answers": answers,
        "calls": STEPS,
        "cost": None if number % 3 else number,
        "share": number / 3,
        "right": number % 2 == 0,
    }


def asking(base_url: str, store: Path | None = None, **more: Any) -> Factory:
    """A factory of processes that ask the echoing provider there, two calls a row."""
    kwargs = {"base_url": base_url, "store": store, **more}
    return Factory("shard_samples:open_asking", kwargs)


@asynccontextmanager
async def open_asking(
    *,
    ledger: Ledger,
    base_url: str,
    store: Path | None,
    concurrency: int = 64,
    sign: Path | None = None,
    fail_at: str = "",
) -> AsyncIterator[Process]:
    """Give the process, after leaving this process's id in the folder `sign`."""
    if sign is not None:
        (sign / str(os.getpid())).touch()
    endpoint = Endpoint(name="e", kind="openai", base_url=base_url, concurrency=concurrency)
    card = Card(name="small", endpoint=endpoint, model="small", price=PRICE, max_tokens=MAX_TOKENS)
    async with AsyncExitStack() as held:
        client: Client = OpenAIClient()
        held.push_async_callback(client.close)
        if store is not None:
            client = RecordedClient(client, held.enter_context(OutcomeStore.open(store)))

        async def ask(text: str, meter: Meter) -> str:
            request = ChatRequest(
                messages=(Message("user", text),), max_tokens=MAX_TOKENS, role=Role.WORKER
            )
            return (await client.complete(card, request, meter)).text

        async def process(row: Row) -> Row:
            if row["item"] == fail_at:
                raise DataError(f"row {fail_at} is not for us")
            meter = Meter(ledger, new_id())
            answers = [await ask(f"{row['query']} step {n}", meter) for n in range(STEPS)]
            return {**made(row), "answers": json.dumps(answers), "calls": len(meter.calls)}

        yield process


async def _run(settings: dict[str, Any]) -> None:
    store = settings["store"]
    factory = asking(settings["base_url"], Path(store) if store else None)
    with SpendingLedger.open(settings["db"]) as ledger:
        what = job(Path(settings["out"]), settings["rows"], shard_rows=settings["shard_rows"])
        engine = Engine(settings.get("engine", "asyncio"))
        await run_shards(what, factory, ledger, engine=engine, in_flight=settings["in_flight"])


def _fork_and_run(settings: dict[str, Any]) -> None:
    """Run in a child; write its id, and how it ended (as `os.waitstatus_to_exitcode`)."""
    child = os.fork()
    if child == 0:
        asyncio.run(_run(settings))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    # Once, not in every child.
    import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: F401

    import r2reasoner.storage  # noqa: F401

    for line in sys.stdin:
        _fork_and_run(json.loads(line))
