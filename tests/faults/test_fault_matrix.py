"""Every fault at every call site, streamed or not: our ledger equals the provider's books."""

import asyncio
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, TypeAlias

import pytest

from calls import NoJitter
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import CallError, CallFault, DeadlineExceeded
from r2reasoner.ledger import Entry, Ledger
from r2reasoner.mock import (
    BookEnd,
    BookEntry,
    ChatCall,
    Fault,
    MockProvider,
    closed_port,
    unreachable,
)
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.types import CallOutcome, Message, Role

PRICE = Price(Decimal("0.15"), Decimal("0.60"))
TEXT = "walk left twice and then look right"
SITES = (Role.DECOMPOSER, Role.ALLOCATOR, Role.WORKER, Role.FINAL)
LATE: Final = "deadline"  # the call ends at its deadline, not by an error of its own

Ending: TypeAlias = CallFault | str | None

# A pair: without and with streaming.
EXPECTED: dict[Fault, Ending | tuple[Ending, Ending]] = {
    Fault.RESET_BEFORE_HEADERS: CallFault.CUT,
    Fault.STALL_BEFORE_HEADERS: CallFault.TIMEOUT,
    Fault.STALL_MID_STREAM: CallFault.TIMEOUT,
    Fault.DRIP: LATE,
    Fault.HALF_CLOSE_MID_CHUNK: CallFault.CUT,
    Fault.RESET_MID_CHUNK: CallFault.CUT,
    Fault.NO_DONE: (None, CallFault.CUT),
    Fault.NO_FINISH_REASON: (None, CallFault.CUT),
    Fault.SLOW_FIRST_TOKEN: None,
    Fault.REDIRECT: CallFault.BAD_REQUEST,
    Fault.BAD_REQUEST: CallFault.BAD_REQUEST,
    Fault.UNAUTHORIZED: CallFault.AUTH,
    Fault.FORBIDDEN: CallFault.AUTH,
    Fault.NOT_FOUND: CallFault.NOT_FOUND,
    Fault.REQUEST_TIMEOUT: CallFault.REQUEST_TIMEOUT,
    Fault.CONFLICT: CallFault.CONFLICT,
    Fault.TOO_LARGE: CallFault.BAD_REQUEST,
    Fault.UNPROCESSABLE: CallFault.BAD_REQUEST,
    Fault.RATE_LIMITED: CallFault.RATE_LIMITED,
    Fault.RATE_LIMITED_SECONDS: CallFault.RATE_LIMITED,
    Fault.RATE_LIMITED_DATE: CallFault.RATE_LIMITED,
    Fault.RATE_LIMITED_ABSURD: CallFault.RATE_LIMITED,
    Fault.SERVER_ERROR: CallFault.SERVER,
    Fault.BAD_GATEWAY: CallFault.SERVER,
    Fault.UNAVAILABLE: CallFault.OVERLOADED,
    Fault.GATEWAY_TIMEOUT: CallFault.SERVER,
    Fault.OVERLOADED: CallFault.OVERLOADED,
    Fault.ERROR_IN_200: CallFault.MALFORMED,
    Fault.HTML: CallFault.MALFORMED,
    Fault.TRUNCATED_JSON: CallFault.MALFORMED,
    Fault.GARBAGE_JSON: CallFault.MALFORMED,
    Fault.INVALID_UTF8: CallFault.MALFORMED,
    Fault.EMPTY: CallFault.EMPTY,
    Fault.WRONG_USAGE: None,
    Fault.MISSING_USAGE: None,
    Fault.NEGATIVE_USAGE: None,
    Fault.TOO_LONG: None,
    Fault.UNKNOWN_FINISH: None,
    Fault.TOOL_CALL: CallFault.MALFORMED,
}


SLOW: Final = {Fault.STALL_BEFORE_HEADERS, Fault.STALL_MID_STREAM, Fault.DRIP, "unreachable"}


@dataclass(frozen=True)
class Site:
    """One call of the matrix; its model's name is its own, so that both books can be matched."""

    number: int
    role: Role
    stream: bool

    @property
    def name(self) -> str:
        return f"call-{self.number}"

    def card(self, endpoint: Endpoint) -> Card:
        return Card(name=self.name, endpoint=endpoint, model=self.name, price=PRICE)


class Stalls:
    """Measures how long the machine kept the event loop from running: no call's fault."""

    def __init__(self) -> None:
        self.total_s = 0.0

    async def watch(self) -> None:
        while True:
            started = time.monotonic()
            await asyncio.sleep(0.05)
            self.total_s += max(0.0, time.monotonic() - started - 0.05)


async def call(
    client: OpenAIClient, site: Site, endpoint: Endpoint, meter: Meter, seconds: float
) -> Ending:
    """Return how a call ended: None for an answer, a CallFault, or LATE."""
    request = ChatRequest(messages=(Message("user", TEXT),), max_tokens=20, role=site.role)
    deadline = time.monotonic() + seconds
    try:
        if site.stream:
            stream = client.stream(site.card(endpoint), request, meter, deadline)
            pieces = [piece async for piece in stream]
            assert isinstance(pieces[-1], Completion)
            assert "".join(map(str, pieces[:-1])) == pieces[-1].text
        else:
            await client.complete(site.card(endpoint), request, meter, deadline)
    except CallError as error:
        return error.fault
    except DeadlineExceeded:
        return LATE
    return None


def check_books(provider: MockProvider, entries: list[Entry]) -> None:
    """Compare the provider's books with the ledger, call by call and attempt by attempt."""
    ours: dict[str, list[Entry]] = defaultdict(list)
    theirs: dict[str | None, list[BookEntry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.attempt):
        ours[entry.model].append(entry)
    for booked in provider.books:
        theirs[booked.model].append(booked)
    assert set(theirs) <= set(ours)
    for model, made in ours.items():
        assert [entry.attempt for entry in made] == list(range(1, len(made) + 1))
        assert len(made) <= 3
        unconnected = [entry for entry in made if (entry.error or "").endswith("(connect)")]
        assert all((e.outcome, e.cost) == (CallOutcome.FAILED, 0) for e in unconnected)
        attempts = [entry for entry in made if entry not in unconnected]
        if len(theirs[model]) < len(attempts):  # the deadline came before the request arrived
            last = attempts.pop().error or ""
            assert "at the deadline" in last or "before dispatch" in last
        for entry, booked in zip(attempts, theirs[model], strict=True):
            assert entry.outcome is not CallOutcome.OPEN
            assert entry.role == booked.role
            at_the_bound = entry.outcome is CallOutcome.UNKNOWN or "bound" in (entry.note or "")
            if at_the_bound:
                assert entry.cost is not None
                assert entry.cost >= PRICE.cost(booked.usage)
                assert entry.usage.input_tokens >= booked.input_tokens
                assert entry.usage.output_tokens >= booked.output_tokens
            else:
                assert entry.usage == booked.usage
                assert entry.cost == PRICE.cost(booked.usage)


def test_every_fault_is_expected_to_end_somehow() -> None:
    assert set(EXPECTED) == set(Fault)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", Fault)
async def test_each_fault_alone(fault: Fault, stream: bool) -> None:
    expected = EXPECTED[fault]
    if isinstance(expected, tuple):
        expected = expected[stream]
    stalls = fault in {Fault.STALL_BEFORE_HEADERS, Fault.STALL_MID_STREAM}
    with Ledger.in_memory() as ledger:
        meter = Meter(ledger, "query")
        client = OpenAIClient(NoJitter())
        async with MockProvider(
            faults=lambda _: fault, drip_s=0.05, slow_s=0.1, retry_after_s=40
        ) as provider:
            endpoint = Endpoint(
                name="mock",
                kind="openai",
                base_url=provider.base_url,
                read_timeout_s=0.3 if stalls else 30,
            )
            site = Site(1, Role.WORKER, stream)
            seconds = 1.5 if fault is Fault.DRIP else 30
            assert await call(client, site, endpoint, meter, seconds) == expected
            await client.close()
        await ledger.flush()
        check_books(provider, ledger.entries())
    tried_again = fault.value in {"408", "409", "429", "500", "502", "503", "504", "529"}
    assert len(provider.books) == (3 if tried_again else 1)
    assert provider.books[0].fault == fault
    assert meter.reserved == 0
    assert meter.spent == sum(c.cost or 0 for c in meter.calls)


class Matrix(NamedTuple):
    """All calls, what was drawn for each of their attempts, and what came of it."""

    sites: list[Site]
    draws: dict[str, list[str | None]]
    meters: list[Meter]
    provider: MockProvider
    entries: list[Entry]
    endings: list[Ending | BaseException]


async def run_matrix(tmp_path: Path, size: int) -> Matrix:
    rng = Random(7)
    kinds: list[str] = [*Fault, "closed", "unreachable"]
    sites = [Site(n, rng.choice(SITES), rng.random() < 0.5) for n in range(size)]
    # Drawn by call and attempt, not by order of arrival, so that every run is the same.
    draws: dict[str, list[str | None]] = {
        s.name: [rng.choice(kinds) if rng.random() < 0.3 else None for _ in "123"] for s in sites
    }
    seen: Counter[str] = Counter()

    def fault_for(chat: ChatCall) -> Fault | None:
        seen[chat.model] += 1
        drawn = draws[chat.model][seen[chat.model] - 1]
        return drawn if isinstance(drawn, Fault) else None

    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(tmp_path / "ledger.db"))
        bad_urls = {
            "closed": stack.enter_context(closed_port()),
            "unreachable": stack.enter_context(unreachable()),
        }
        client = OpenAIClient(Random(7))
        meters = [Meter(ledger, site.name) for site in sites]
        stalls = Stalls()
        watch = asyncio.create_task(stalls.watch())
        gate = asyncio.Semaphore(64)
        async with MockProvider(
            faults=fault_for, latency_s=0.002, drip_s=0.2, slow_s=0.2
        ) as provider:

            async def one(site: Site, meter: Meter) -> Ending:
                drawn = set(draws[site.name])
                first = draws[site.name][0] or ""
                # Only what must time out gets little time: a busy machine is no fault.
                seconds = 5 if drawn & SLOW else 50
                endpoint = Endpoint(
                    name="mock",
                    kind="openai",
                    base_url=bad_urls.get(first, provider.base_url),
                    concurrency=64,
                    connect_timeout_s=0.3 if first == "unreachable" else 50,
                    read_timeout_s=2 if drawn & SLOW else 50,
                )
                async with gate:
                    started, stalled = time.monotonic(), stalls.total_s
                    async with asyncio.timeout(200):
                        ending = await call(client, site, endpoint, meter, seconds)
                    late_s = time.monotonic() - started - seconds
                    assert late_s < 1 + stalls.total_s - stalled, "hangs past its deadline"
                    return ending

            endings = await asyncio.gather(
                *(one(site, meter) for site, meter in zip(sites, meters, strict=True)),
                return_exceptions=True,
            )
            watch.cancel()
            await client.close()
        await ledger.flush()
        return Matrix(sites, draws, meters, provider, ledger.entries(), endings)


async def check_matrix(tmp_path: Path, size: int) -> None:
    sites, draws, meters, provider, entries, endings = await run_matrix(tmp_path, size)
    assert [e for e in endings if isinstance(e, BaseException)] == []
    check_books(provider, entries)
    # The ledger on disk says what the meters said.
    settled = {c.id: c for meter in meters for c in meter.calls}
    assert {e.id: (e.outcome, e.usage, e.cost) for e in entries} == {
        c.id: (c.outcome, c.usage, c.cost) for c in settled.values()
    }
    assert all(meter.reserved == 0 for meter in meters)
    assert {booked.end for booked in provider.books} <= {BookEnd.WHOLE, BookEnd.CUT, BookEnd.GONE}
    for site, ending in zip(sites, endings, strict=True):
        if set(draws[site.name]) == {None}:
            assert ending is None
    answered = sum(ending is None for ending in endings)
    assert answered > 0.7 * size
    kinds = {str(fault) for first, *_ in draws.values() for fault in [first] if fault}
    assert size < 1000 or len(kinds) == len(Fault) + 2


async def test_books_equal_ledger(tmp_path: Path) -> None:
    await check_matrix(tmp_path, 1_500)


@pytest.mark.slow
async def test_books_equal_ledger_in_full(tmp_path: Path) -> None:
    await check_matrix(tmp_path, 10_000)
