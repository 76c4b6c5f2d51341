"""The gateway as a process, a provider that fails, and requests of every kind.

The provider remembers for which request each of its calls was made, so that what clients left
behind can be told from what must be equal to the last token (`balance.py`). Left out: faults that
only take time, and answers above their limit, which the fault matrix has: no budget can hold a
provider that disobeys.
"""

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import aiohttp

from gateways import able_pool
from pools import answers, endpoint_at, plan_json
from r2reasoner.gateway.keys import Keys
from r2reasoner.mock import BookEnd, ChatCall, Fault, MockProvider, random_faults
from r2reasoner.mock.faults import Script
from r2reasoner.pool.write import write_pool

COMMAND: Final = "from r2reasoner.cli.app import main; main()"
PLAN: Final = plan_json("34 * 5", "12 + 7", ("add #1 and #2", [1, 2]))
TOOL: Final = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
MODELS: Final = ("r2reasoner", "r2reasoner:0", "r2reasoner:1", "small", "medium", "large")
WAIT_S: Final = 300.0
"""When something that must come is given up: far more than a busy machine needs."""
FAULTS: Final = (
    *(Fault.SERVER_ERROR, Fault.BAD_GATEWAY, Fault.UNAVAILABLE, Fault.OVERLOADED),
    *(Fault.RATE_LIMITED, Fault.RATE_LIMITED_SECONDS, Fault.REQUEST_TIMEOUT, Fault.CONFLICT),
    *(Fault.BAD_REQUEST, Fault.FORBIDDEN, Fault.UNPROCESSABLE, Fault.REDIRECT),
    *(Fault.RESET_BEFORE_HEADERS, Fault.RESET_MID_CHUNK, Fault.HALF_CLOSE_MID_CHUNK),
    *(Fault.STALL_BEFORE_HEADERS, Fault.STALL_MID_STREAM, Fault.SLOW_FIRST_TOKEN),
    *(Fault.NO_DONE, Fault.NO_FINISH_REASON, Fault.UNKNOWN_FINISH, Fault.EMPTY, Fault.TOOL_CALL),
    *(Fault.TRUNCATED_JSON, Fault.GARBAGE_JSON, Fault.INVALID_UTF8, Fault.HTML),
    *(Fault.ERROR_IN_200, Fault.MISSING_USAGE, Fault.NEGATIVE_USAGE),
)


class Provider(MockProvider):
    """A provider that plans, calls tools where there are some, and knows who a call is for."""

    def __init__(self, *, faults: Script = lambda call: None, **more: Any) -> None:
        self.request_of: dict[int, int] = {}

        def noting(call: ChatCall) -> Any:
            text = " ".join(message.content for message in call.messages)
            if found := re.search(r"request (\d+)\.", text):
                self.request_of[call.number] = int(found[1])
            return faults(call) or (Fault.TOOL_CALL if call.body.get("tools") else None)

        super().__init__(**{"answer": answers(PLAN), "faults": noting, "retry_after_s": 0, **more})


def faulty(rate: float, seed: int) -> Script:
    """Return a script by which so large a share of calls fails in every way of `FAULTS`."""
    return random_faults(rate, seed, FAULTS)


@dataclass(frozen=True, slots=True)
class Child:
    """A gateway in a process of its own; `log` is where its stderr goes."""

    process: asyncio.subprocess.Process
    base_url: str
    log: Path

    @property
    def rss_mib(self) -> float:
        """What it holds of this machine's memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return await self.process.wait()

    def complaints(self) -> list[str]:
        """Return what it said on stderr beside a line for each request."""
        return [line for line in self.log.read_text().splitlines() if '"path": ' not in line]


@asynccontextmanager
async def serving(
    folder: Path, base_url: str, *flags: str, read_timeout_s: float = 30.0
) -> AsyncIterator[Child]:
    """Run `r2reasoner serve` in a process, with its pool file and ledger in `folder`."""
    file, log = folder / "pool.toml", folder / f"log-{time.time_ns()}"
    pool = able_pool(base_url)
    there = endpoint_at(base_url, concurrency=2000, read_timeout_s=read_timeout_s)
    cards = {name: replace(card, endpoint=there) for name, card in pool.policies.items()}
    workers = tuple(replace(card, endpoint=there) for card in pool.workers)
    write_pool(replace(pool, workers=workers, policies=cards), file)
    options = ("--pool", str(file), "--port", "0", "--db", str(ledger_in(folder)), "--json")
    with log.open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", COMMAND, "serve", *options, *flags),
            stdout=subprocess.PIPE,
            stderr=stderr,
            preexec_fn=_as_a_shell_has_it,
        )
    assert process.stdout is not None
    try:
        told = await process.stdout.readline()
        assert told, log.read_text()
        yield Child(process, json.loads(told)["base_url"], log)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _as_a_shell_has_it() -> None:
    """Allow few open files, so that the gateway must ask for more."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(128, most), most))


def ledger_in(folder: Path) -> Path:
    return folder / "ledger.db"


def make_keys(folder: Path, *limits: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Make a key for each of some limits; return their ids, and their secrets."""
    keys = Keys.open(ledger_in(folder))
    try:
        made = [keys.create(f"key {n}", **limit) for n, limit in enumerate(limits)]
    finally:
        keys.close_sync()
    return [key.id for key, _ in made], [secret for _, secret in made]


class Wanted(NamedTuple):
    """One request. The client leaves after `leaves_s` seconds."""

    number: int
    body: dict[str, Any] | bytes
    key: str | None = None
    leaves_s: float | None = None


@dataclass(slots=True)
class End:
    """How a request ended for its client. `broken`: the connection did, before the end.

    `whole`: an answer with all that belongs to it. `cost` in dollars, as `r2` says.
    """

    wanted: Wanted
    status: int | None = None
    trace_id: str | None = None
    cost: Decimal | None = None
    error: Any = None
    whole: bool = False
    left: bool = False
    broken: bool = False

    @property
    def left_off(self) -> bool:
        """True when somebody went away: the client or, at its end, the gateway."""
        draining = self.error is not None and self.error["code"] == "draining"
        return self.left or self.broken or draining


def body_of(number: int, model: str, **more: Any) -> dict[str, Any]:
    """Return a chat request that its provider can tell from all others."""
    text = f"request {number}. what is 12 + 34 * 5"
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def mixed(count: int, keys: Sequence[str], seed: int, *, first: int = 0) -> Iterator[Wanted]:
    """Yield requests of every kind; one in eight is wrong, one in eight clients leaves."""
    rng = Random(seed)
    for number in range(first, first + count):
        leaves_s = rng.uniform(0, 0.3) if rng.random() < 1 / 8 else None
        key = None if rng.random() < 1 / 40 else rng.choice(keys)
        make = _wrong if rng.random() < 1 / 8 else _right
        yield Wanted(number, make(number, rng), key, leaves_s)


def _right(number: int, rng: Random) -> dict[str, Any]:
    stream = {"stream": rng.random() < 0.5, "stream_options": {"include_usage": True}}
    kind = rng.random()
    if kind < 0.15:
        return body_of(number, rng.choice(("r2reasoner", "medium")), tools=[TOOL], **stream)
    if kind < 0.25:
        return body_of(number, rng.choice(("r2reasoner:1", "large")), n=2, **stream)
    return body_of(number, rng.choice(MODELS), max_tokens=rng.randint(5, 50), **stream)


def _wrong(number: int, rng: Random) -> dict[str, Any] | bytes:
    return rng.choice(
        (
            b'{"model": "small", "messages"',
            body_of(number, "gpt-9"),
            body_of(number, "r2reasoner:2"),
            body_of(number, "small", tools=[TOOL]),
            body_of(number, "small", stream=True, n=0),
            body_of(number, "large", service_tier="priority"),
            {"model": "r2reasoner", "messages": []},
        )
    )


class Load:
    """Requests without end, until it is told to stop."""

    def __init__(self, wanted: Iterator[Wanted]) -> None:
        self._wanted = wanted
        self._stopped = False

    def __iter__(self) -> Iterator[Wanted]:
        while not self._stopped:
            yield next(self._wanted)

    def stop(self) -> None:
        self._stopped = True


async def ask_all(base_url: str, wanted: Iterable[Wanted], in_flight: int) -> list[End]:
    """Send requests, so many at once, and return how they ended."""
    ends: dict[int, End] = {}
    left = iter(wanted)

    async def work(session: aiohttp.ClientSession) -> None:
        for each in left:
            ends[each.number] = await ask(session, base_url, each)

    async with _session() as session, asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work(session))
    return list(ends.values())


def _session() -> aiohttp.ClientSession:
    # Connections are given up before the gateway closes them, so that none is met closing.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))


async def ask(session: aiohttp.ClientSession, base_url: str, wanted: Wanted) -> End:
    """Send one request and read what comes to its end, or leave."""
    end = End(wanted)
    try:
        async with (
            asyncio.timeout(wanted.leaves_s),
            _post(session, base_url, end) as answer,
        ):
            _note(end, await answer.read(), answer.content_type)
    except TimeoutError:
        end.left = True
    except (aiohttp.ClientError, ConnectionError):
        end.broken = True
    return end


@asynccontextmanager
async def _post(
    session: aiohttp.ClientSession, base_url: str, end: End
) -> AsyncIterator[aiohttp.ClientResponse]:
    wanted = end.wanted
    body = wanted.body if isinstance(wanted.body, bytes) else json.dumps(wanted.body).encode()
    headers = {"content-type": "application/json"}
    if wanted.key is not None:
        headers["authorization"] = f"Bearer {wanted.key}"
    async with session.post(f"{base_url}/chat/completions", data=body, headers=headers) as answer:
        end.status, end.trace_id = answer.status, answer.headers.get("x-r2-trace-id")
        yield answer


def _note(end: End, body: bytes, content_type: str) -> None:
    """Note an answer; what is not in OpenAI's format raises."""
    if content_type == "text/event-stream":
        lines = [line for line in body.decode().split("\n\n") if line.startswith("data: ")]
        *events, last = [line.removeprefix("data: ") for line in lines]
        assert last == "[DONE]"
        told = [json.loads(event) for event in events]
    else:
        told = [json.loads(body)]
    for each in told:
        end.error = each.get("error", end.error)
        if block := each.get("r2"):
            end.cost = Decimal(block["cost"])
    end.whole = end.error is None and end.cost is not None and end.status == 200


async def until(condition: Callable[[], bool], every_s: float = 0.02) -> None:
    """Return when something has become true."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(every_s)


class Round(NamedTuple):
    """What so many streams, open at once, did to a gateway: memory (MiB) and descriptors.

    `closing_s`: from the moment that half of the clients left until the last of their calls had
    ended at the provider.
    """

    streams: int
    rss_before: float
    rss_open: float
    rss_after: float
    descriptors_before: int
    descriptors_open: int
    descriptors_after: int
    closing_s: float


async def open_streams(
    child: Child, provider: Provider, count: int, key: str, token_s: float
) -> Round:
    """Open streams; when all are, half of the clients leave, and the others get the rest.

    An answer has nine tokens, `token_s` apart while streams are opened.
    """
    rss, descriptors = child.rss_mib, child.descriptors
    already = len(provider.books)
    ends: list[End] = []
    begun = 0

    async def follow(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal begun
        end = End(Wanted(number, body_of(number, "large", stream=True), key))
        async with _post(session, child.base_url, end) as answer:
            got = await answer.content.readuntil(b"assistant")
            begun += 1
            _note(end, got + await answer.content.read(), answer.content_type)
        ends.append(end)

    provider.token_s = token_s
    async with _session() as session:
        tasks = [asyncio.create_task(follow(session, already + n)) for n in range(count)]
        await until(lambda: begun == count or any(task.done() for task in tasks))
        for task in tasks:
            if task.done():
                task.result()  # raises what kept it from staying open
        books = provider.books[already:]
        assert [book.end for book in books] == [BookEnd.OPEN] * count
        rss_open, descriptors_open = child.rss_mib, child.descriptors
        leaving, left_at = tasks[::2], time.time()
        for task in leaving:
            task.cancel()
        await until(lambda: sum(b.end is BookEnd.GONE for b in books) == len(leaving))
        provider.token_s = 0.0
        await asyncio.gather(*tasks, return_exceptions=True)
    assert [end.whole for end in ends] == [True] * (count - len(leaving))
    gone = [b.finished_at or 0 for b in books if b.end is BookEnd.GONE]
    await until(lambda: child.descriptors <= descriptors)
    return Round(
        streams=count,
        rss_before=rss,
        rss_open=rss_open,
        rss_after=child.rss_mib,
        descriptors_before=descriptors,
        descriptors_open=descriptors_open,
        descriptors_after=child.descriptors,
        closing_s=max(gone) - left_at,
    )
