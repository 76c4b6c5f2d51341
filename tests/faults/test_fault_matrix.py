"""Every fault at every call site, streamed or not: our ledger equals the provider's books."""

import asyncio
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from random import Random

import pytest

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import CallError, CallFault, DeadlineExceeded, R2Error
from r2reasoner.ledger import Ledger
from r2reasoner.mock import BookEnd, Fault, MockProvider, closed_port, unreachable
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.types import CallOutcome, Message, Role

PRICE = Price(Decimal("0.15"), Decimal("0.60"))
TEXT = "walk left twice and then look right"
SITES = (Role.DECOMPOSER, Role.ALLOCATOR, Role.WORKER, Role.FINAL)
LATE = "deadline"  # the call ends at its deadline, not by an error of its own

EXPECTED = {
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


@dataclass(frozen=True)
class Site:
    """One call of the matrix; its model's name is its own, so that both books can be matched."""

    number: int
    role: Role
    stream: bool

    @property
    def name(self):
        return f"call-{self.number}"

    def card(self, endpoint):
        return Card(name=self.name, endpoint=endpoint, model=self.name, price=PRICE)


async def call(client, site, endpoint, meter, seconds):
    """Return how a call ended: None for an answer, a CallFault, LATE; a hang raises."""
    request = ChatRequest(messages=(Message("user", TEXT),), max_tokens=20, role=site.role)
    deadline = time.monotonic() + seconds
    try:
        async with asyncio.timeout(seconds + 1):
            if site.stream:
                pieces = [
                    piece
                    async for piece in client.stream(site.card(endpoint), request, meter, deadline)
                ]
                assert "".join(pieces[:-1]) == pieces[-1].text
            else:
                await client.complete(site.card(endpoint), request, meter, deadline)
    except CallError as error:
        return error.fault
    except DeadlineExceeded:
        return LATE
    return None


def check_books(provider, entries):
    """Compare the provider's books with the ledger, call by call and attempt by attempt."""
    ours, theirs = defaultdict(list), defaultdict(list)
    for entry in entries:
        if (entry.error or "").endswith("(connect)"):  # it never reached the provider
            assert (entry.outcome, entry.cost) == (CallOutcome.FAILED, 0)
        else:
            ours[entry.model].append(entry)
    for booked in provider.books:
        theirs[booked.model].append(booked)
    assert {m: len(e) for m, e in ours.items()} == {m: len(b) for m, b in theirs.items()}
    for model in ours:
        attempts = sorted(ours[model], key=lambda entry: entry.attempt)
        assert [entry.attempt for entry in attempts] == list(range(1, len(attempts) + 1))
        assert len(attempts) <= 3
        for entry, booked in zip(attempts, theirs[model], strict=True):
            assert entry.outcome is not CallOutcome.OPEN
            assert entry.role == booked.role
            at_the_bound = entry.outcome is CallOutcome.UNKNOWN or "bound" in (entry.note or "")
            if at_the_bound:
                assert entry.cost >= PRICE.cost(booked.usage)
                assert entry.usage.input_tokens >= booked.input_tokens
                assert entry.usage.output_tokens >= booked.output_tokens
            else:
                assert entry.usage == booked.usage
                assert entry.cost == PRICE.cost(booked.usage)


def test_every_fault_is_expected_to_end_somehow():
    assert set(EXPECTED) == set(Fault)


class NoJitter(Random):
    def uniform(self, a, b):
        return a


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", Fault)
async def test_each_fault_alone(fault, stream):
    expected = EXPECTED[fault]
    if isinstance(expected, tuple):
        expected = expected[stream]
    stalls = fault in {Fault.STALL_BEFORE_HEADERS, Fault.STALL_MID_STREAM}
    asks_to_wait = fault.value.startswith("429_")
    with Ledger.in_memory() as ledger:
        meter = Meter(ledger, "query")
        client = OpenAIClient(NoJitter())
        async with MockProvider(faults=lambda _: fault, drip_s=0.05, slow_s=0.1) as provider:
            endpoint = Endpoint(
                name="mock",
                kind="openai",
                base_url=provider.base_url,
                read_timeout_s=0.3 if stalls else 30,
            )
            site = Site(1, Role.WORKER, stream)
            seconds = 0.9 if asks_to_wait or fault is Fault.DRIP else 30
            assert await call(client, site, endpoint, meter, seconds) == expected
            await client.close()
        await ledger.flush()
        check_books(provider, ledger.entries())
    tried_again = fault.value in {"408", "409", "429", "500", "502", "503", "504", "529"}
    assert len(provider.books) == (3 if tried_again else 1)
    assert provider.books[0].fault == fault
    assert meter.reserved == 0
    assert meter.spent == sum(c.cost for c in meter.calls)


async def run_matrix(tmp_path, size):
    rng = Random(7)
    kinds = [*Fault, "closed", "unreachable"]
    sites = [Site(n, rng.choice(SITES), rng.random() < 0.5) for n in range(size)]
    # Drawn by call and attempt, not by order of arrival, so that every run is the same.
    draws = {
        s.name: [rng.choice(kinds) if rng.random() < 0.3 else None for _ in "123"] for s in sites
    }
    seen = Counter()

    def fault_for(chat):
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
        gate = asyncio.Semaphore(64)
        async with MockProvider(
            faults=fault_for, latency_s=0.002, drip_s=0.2, slow_s=0.2
        ) as provider:

            async def one(site, meter):
                url = bad_urls.get(draws[site.name][0], provider.base_url)
                endpoint = Endpoint(
                    name="mock",
                    kind="openai",
                    base_url=url,
                    concurrency=64,
                    connect_timeout_s=0.3,
                    read_timeout_s=2,
                )
                async with gate:
                    return await call(client, site, endpoint, meter, 5)

            endings = await asyncio.gather(
                *(one(site, meter) for site, meter in zip(sites, meters, strict=True)),
                return_exceptions=True,
            )
            await client.close()
        await ledger.flush()
        return sites, draws, meters, provider, ledger.entries(), endings


async def check_matrix(tmp_path, size):
    sites, draws, meters, provider, entries, endings = await run_matrix(tmp_path, size)
    untyped = [e for e in endings if isinstance(e, BaseException) and not isinstance(e, R2Error)]
    assert untyped == []  # a TimeoutError here is a hang past the deadline
    assert [e for e in endings if isinstance(e, R2Error)] == []
    check_books(provider, entries)
    # The ledger on disk says what the meters said.
    settled = {c.id: c for meter in meters for c in meter.calls}
    assert {e.id: (e.outcome, e.usage, e.cost) for e in entries} == {
        c.id: (c.outcome, c.usage, c.cost) for c in settled.values()
    }
    assert all(meter.reserved == 0 for meter in meters)
    assert {booked.end for booked in provider.books} <= {BookEnd.WHOLE, BookEnd.CUT, BookEnd.GONE}
    for site, ending in zip(sites, endings, strict=True):
        if draws[site.name][0] is None:
            assert ending is None
    answered = sum(ending is None for ending in endings)
    assert answered > 0.7 * size
    kinds = {str(fault) for first, *_ in draws.values() for fault in [first] if fault}
    assert size < 1000 or len(kinds) == len(Fault) + 2


async def test_books_equal_ledger(tmp_path):
    await check_matrix(tmp_path, 1_500)


@pytest.mark.slow
async def test_books_equal_ledger_in_full(tmp_path):
    await check_matrix(tmp_path, 10_000)
