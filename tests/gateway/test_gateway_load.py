"""The gateway as a process under load: money exact, nothing lost, nothing kept.

All is told from outside: by what clients got, by the provider's books, by the database that the
process left, and by what the system says of it.
"""

import asyncio
import signal
from contextlib import AsyncExitStack
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Connection, update

from balance import (
    check_books,
    check_broken_off,
    check_costs,
    check_ends,
    check_keys,
    open_calls,
    spent_by_keys,
    unsettled,
)
from load import (
    Load,
    Provider,
    Wanted,
    ask_all,
    body_of,
    faulty,
    ledger_in,
    make_keys,
    mixed,
    open_streams,
    serving,
    until,
)
from r2reasoner.gateway.server import raise_descriptor_limit
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall
from r2reasoner.tables import HOLDS, LEASES
from r2reasoner.types import CallOutcome, to_pico

IN_FLIGHT = 64
MUCH = Decimal(100_000)
BUDGET = Decimal("0.005")
GROWTH = 1.05
"""How much of its memory after a round of streams a gateway may have after the last."""


async def mixed_load(folder: Path, count: int) -> None:
    little = Decimal("0.05")
    (_, small, *_), (large, *others) = make_keys(
        folder,
        {"per_day": MUCH},
        {"per_day": MUCH, "per_month": little},
        {"per_minute": count // 20},
        {"models": ("r2reasoner", "small")},
    )
    wanted = mixed(count, [*[large] * 4, *others], seed=5)
    faults = faulty(0.25, seed=3)
    async with (
        Provider(faults=faults, latency_s=0.03, token_s=0.005) as provider,
        serving(folder, provider.base_url, read_timeout_s=2.0) as child,
    ):
        ends = await ask_all(child.base_url, wanted, IN_FLIGHT)
        with Ledger.open(ledger_in(folder)) as ledger:
            await until(lambda: unsettled(ledger) == 0)
            entries = ledger.entries()
            check_keys(ledger, entries, {small: to_pico(little)})
        assert await child.end(signal.SIGTERM) == 0
    assert child.complaints() == []
    assert len(ends) == count
    assert {402, 403, 404, 429} <= {end.status for end in ends}
    assert sum(end.whole for end in ends) > count / 3
    check_ends(ends)
    check_costs(ends, entries)
    check_books(provider, entries, ends)


async def test_money_is_exact(tmp_path: Path) -> None:
    await mixed_load(tmp_path, 300)


@pytest.mark.slow
async def test_money_is_exact_in_full(tmp_path: Path) -> None:
    await mixed_load(tmp_path, 3000)


@pytest.mark.parametrize("gateways", [1, 2])
async def test_no_overshoot(tmp_path: Path, gateways: int) -> None:
    """What the last request finds left is known beforehand, and so is how many are answered."""
    (key,), (secret,) = make_keys(tmp_path, {"per_day": BUDGET})
    async with Provider(latency_s=1.0) as provider, AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(serving(tmp_path, provider.base_url))
            for _ in range(gateways)
        ]
        wanted = [Wanted(n, body_of(n, "small"), secret) for n in range(1000, 1500)]
        shares = (
            ask_all(child.base_url, wanted[n::gateways], in_flight=500)
            for n, child in enumerate(children)
        )
        ends = [end for share in await asyncio.gather(*shares) for end in share]
        assert 0 < sum(end.whole for end in ends) < len(wanted)
        provider.latency_s = 0.0
        with Ledger.open(ledger_in(tmp_path)) as ledger:
            for n, child in enumerate(cycle(children), 2000):
                await until(lambda: unsettled(ledger) == 0)
                ends += await ask_all(child.base_url, [Wanted(n, body_of(n, "small"), secret)], 1)
                if not ends[-1].whole:
                    break
            entries = ledger.entries()
            check_keys(ledger, entries, {key: to_pico(BUDGET)})
            spent = spent_by_keys(ledger)[key]
    check_ends(ends)
    check_books(provider, entries, ends)
    (bound,) = {entry.bound for entry in entries}
    (cost,) = {entry.cost for entry in entries}
    assert bound is not None
    assert cost is not None
    answered = [end for end in ends if end.whole]
    assert len(answered) == (to_pico(BUDGET) - bound) // cost + 1
    assert spent == len(answered) * cost <= to_pico(BUDGET)
    for end in ends:
        if not end.whole:
            assert (end.status, end.error["code"]) == (402, "insufficient_quota")
            assert 0 <= to_pico(Decimal(end.error["left_dollars"])) < bound


async def test_sigterm_loses_nothing(tmp_path: Path) -> None:
    """An eighth of the calls takes longer than the gateway is given to end."""
    _, secrets = make_keys(tmp_path, {"per_day": MUCH})
    load = Load(mixed(100_000, secrets, seed=5))

    def slow(call: ChatCall) -> float:
        return 0.05 if call.number % 8 else 20.0

    async with (
        Provider(latency_s=slow, token_s=0.02) as provider,
        serving(tmp_path, provider.base_url, "--drain", "1") as child,
    ):
        asking = asyncio.create_task(ask_all(child.base_url, load, IN_FLIGHT))
        await until(lambda: len(provider.books) >= 200)
        load.stop()
        assert await child.end(signal.SIGTERM) == 0
        ends = await asking
    with Ledger.open(ledger_in(tmp_path)) as ledger:
        entries = ledger.entries()
        check_keys(ledger, entries, {})
    cut = [end.status for end in ends if end.error and end.error["code"] == "draining"]
    assert set(cut) == {200, 503}
    check_ends(ends, dying=True)
    check_costs(ends, entries)
    check_books(provider, entries, ends)
    assert all("shutdown" in line for line in child.complaints())


async def killed_again_and_again(folder: Path, rounds: int, *, waiting: bool) -> None:
    """`waiting`: until leases have run out by themselves, which takes more than a minute."""
    _, secrets = make_keys(folder, {"per_day": MUCH}, {"per_month": MUCH}, {})
    rng = Random(11)
    async with Provider(latency_s=0.03, token_s=0.005) as provider:
        for number in range(rounds):
            first = (number + 1) * 100_000
            wanted = mixed(100_000, secrets, seed=number, first=first)
            load = Load(each._replace(leaves_s=None) for each in wanted)
            await kill_under(load, folder, provider, rng.uniform(0, 0.5))
        with Ledger.open(ledger_in(folder)) as ledger:
            before = ledger.entries()
            if not waiting:
                age(ledger)
            async with serving(folder, provider.base_url) as child:
                await ask_all(child.base_url, [Wanted(0, body_of(0, "small"), secrets[0])], 1)
                await until(lambda: open_calls(ledger) == 0, every_s=0.2)
                age(ledger)
                await until(lambda: unsettled(ledger) == 0, every_s=0.2)
            after = {entry.id: entry for entry in ledger.entries()}
            check_keys(ledger, after.values(), {})
    assert any(entry.outcome is CallOutcome.OPEN for entry in before)
    for entry in before:
        if entry.outcome is CallOutcome.OPEN:
            now = after[entry.id]
            assert (now.outcome, now.cost) == (CallOutcome.UNKNOWN, entry.bound)
        else:
            assert after[entry.id] == entry
    check_broken_off(provider.books, list(after.values()))


async def kill_under(load: Load, folder: Path, provider: Provider, after_s: float) -> None:
    """Start a gateway, and kill it so many seconds after its first calls."""
    already = len(provider.books)
    async with serving(folder, provider.base_url) as child:
        asking = asyncio.create_task(ask_all(child.base_url, load, IN_FLIGHT))
        await until(lambda: len(provider.books) > already + 20)
        await asyncio.sleep(after_s)
        load.stop()
        assert await child.end(signal.SIGKILL) == -signal.SIGKILL
        await asking


def age(ledger: Ledger) -> None:
    """Put what dead processes left hours into the past, so that nobody need wait for that."""

    def put_back(connection: Connection) -> None:
        connection.execute(update(LEASES).values(expires_at=0))
        connection.execute(update(HOLDS).values(held_at=HOLDS.c.held_at - 7200))

    ledger.database.write(put_back)


async def test_kill_charges_what_was_open_at_its_bound(tmp_path: Path) -> None:
    await killed_again_and_again(tmp_path, 5, waiting=False)


@pytest.mark.slow
async def test_kill_fifty_times(tmp_path: Path) -> None:
    await killed_again_and_again(tmp_path, 50, waiting=True)


async def rounds_of_streams(folder: Path, count: int, token_s: float) -> None:
    raise_descriptor_limit()
    _, (secret,) = make_keys(folder, {"per_day": MUCH})
    async with Provider() as provider, serving(folder, provider.base_url) as child:
        await ask_all(child.base_url, [Wanted(0, body_of(0, "small"), secret)], 1)
        first, *_, last = [
            await open_streams(child, provider, count, secret, token_s) for _ in range(3)
        ]
        assert await child.end(signal.SIGTERM) == 0
    assert first.descriptors_open >= 2 * count
    assert last.descriptors_after <= first.descriptors_before
    assert last.rss_after <= GROWTH * first.rss_after
    assert child.complaints() == []
    with Ledger.open(ledger_in(folder)) as ledger:
        entries = ledger.entries()
        check_keys(ledger, entries, {})
    check_broken_off(provider.books, entries)
    assert sum(entry.outcome is CallOutcome.UNKNOWN for entry in entries) == 3 * (count // 2)


async def test_streams_leave_nothing_behind(tmp_path: Path) -> None:
    await rounds_of_streams(tmp_path, 100, token_s=1.0)


@pytest.mark.slow
async def test_a_thousand_streams_leave_nothing_behind(tmp_path: Path) -> None:
    await rounds_of_streams(tmp_path, 1000, token_s=3.0)
