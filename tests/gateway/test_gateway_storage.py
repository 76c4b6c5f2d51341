"""Gateways over one PostgreSQL: keys, traces and pages are the same in each, and outlive it."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateways import ADMIN, gateway
from pools import answers, plan_json, pool_at
from r2reasoner.mock import MockProvider
from r2reasoner.types import PICO_PER_DOLLAR, CallOutcome

if TYPE_CHECKING:
    from postgres import Cluster

PLANNER = plan_json("34 * 5", ("12 + #1", [1]))


@pytest.fixture
def where(postgres: "Cluster") -> Iterator[str]:
    with postgres.schema() as url:
        yield url


def body(model: str = "small", text: str = "a b") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


async def see_pages(root: str, trace_id: str) -> None:
    """Look at every page of the dashboard that asks the database."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        async with session.post(f"{root}/login", data={"key": ADMIN}) as answer:
            assert "Log out" in await answer.text()
        searches = ("q=a%00b&model=small", "q=a&status=complete&least=0&most=1&page=2")
        paths = ("/", "/keys", "/pool", "/traces", f"/traces/{trace_id}")
        for path in (*paths, *(f"/traces?{search}" for search in searches)):
            async with session.get(root + path) as answer:
                assert answer.status == 200, await answer.text()


async def test_two_gateways_share_keys_budgets_and_traces(where: str) -> None:
    async with MockProvider(answer=answers(PLANNER)) as mock:
        pool = pool_at(mock.base_url)
        with gateway(pool, where) as one, gateway(pool, where) as two:
            key, secret = one.keys.create("shared", per_day=Decimal(1))
            sent = [
                each.post(body("r2reasoner" if n % 4 == 0 else "small"), key=secret)
                for n in range(10)
                for each in (one, two)
            ]
            ends = await asyncio.gather(*sent)
            assert [status for status, _, _ in ends] == [200] * 20
            for each in (one, two):
                await each.ledger.flush()
                await each.keys.flush()
            spent = one.ledger.totals().cost
            assert 0 < spent == two.ledger.totals().cost
            assert await two.keys.spending(key) == (spent, 0, spent, 0)
            made_by_one = ends[0][1]["x-r2-trace-id"]
            status, _ = await two.get(f"/v1/traces/{made_by_one}", key=secret)
            assert status == 200
            for path in ("/v1/traces/%00", "/v1/traces/a%00b"):
                assert (await two.get(path, key=secret))[0] == 404
                assert (await two.get(path, key=ADMIN))[0] == 404
            await see_pages(two.root, made_by_one)
            assert {e.outcome for e in one.ledger.entries()} == {CallOutcome.OK}
            assert len(one.ledger.entries()) == len(mock.books)


async def test_a_key_is_held_to_its_budget_by_all_gateways_together(where: str) -> None:
    async with MockProvider() as mock:
        pool = pool_at(mock.base_url)
        with gateway(pool, where) as one, gateway(pool, where) as two:
            key, secret = one.keys.create("small", per_day=Decimal("0.000500"))
            sent = [each.post(body(), key=secret) for _ in range(30) for each in (one, two)]
            ends = await asyncio.gather(*sent)
            statuses = {status for status, _, _ in ends}
            for each in (one, two):
                await each.ledger.flush()
                await each.keys.flush()
            spent = one.ledger.totals().cost
            assert await two.keys.spending(key) == (spent, 0, spent, 0)
    assert statuses == {200, 402}
    assert 0 < spent <= PICO_PER_DOLLAR // 2000


async def test_while_the_server_is_away_nothing_is_dispatched(
    postgres: "Cluster", where: str
) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), where) as served:
            key, secret = served.keys.create("one", per_day=Decimal(1))
            assert (await served.post(body(), key=secret))[0] == 200
            postgres.stop(at_once=True)
            try:
                status, _, said = await served.post(body(), key=secret)
            finally:
                postgres.start()
            assert status == 503
            assert "postgresql" not in str(said)
            assert len(mock.books) == 1
            assert (await served.post(body(), key=secret))[0] == 200
            await served.ledger.flush()
            await served.keys.flush()
            spent = served.ledger.totals().cost
            assert await served.keys.spending(key) == (spent, 0, spent, 0)
