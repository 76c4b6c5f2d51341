import asyncio
from pathlib import Path
from typing import Any

import pytest

import toy_pool
from logged_requests import openai, write_lines
from r2reasoner.benchmarks.grading import sequence
from r2reasoner.client import PoolClient
from r2reasoner.config import settings
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.mock import MockProvider
from r2reasoner.pool.cards import Pool
from r2reasoner.savings.logs import Logged, read_logs
from r2reasoner.savings.sample import Sampler, Samples, Terms, drawn, judge_card, rows_of
from r2reasoner.savings.verdict import Judge
from r2reasoner.types import to_pico

SECRET = "sk-canary-42"


@pytest.fixture
def requests(tmp_path: Path) -> list[Logged]:
    rows = [openai(i.query, i.gold, metadata={"key": SECRET}) for i in toy_pool.items(6)]
    return read_logs([write_lines(tmp_path / "l.jsonl", *rows)]).requests


def terms(pool: Pool, **flags: Any) -> Terms:
    return Terms(pool=pool, settings=settings(trade_off=0.0, **flags), scorer="s", judge=None)


async def ask(
    provider: MockProvider, requests: list[Logged], samples: Samples, cap: str | None = None
) -> CapReached | None:
    pool = toy_pool.pool(provider.base_url)
    client = PoolClient()
    with SpendingLedger.open(samples.file.with_name("ledger.db")) as ledger:
        ledger.cap = None if cap is None else to_pico(cap)
        sampler = Sampler(terms(pool), ledger, client, Judge(sequence, client))
        ended = await sampler.run(requests, samples, in_flight=2)
        await client.close()
        assert ledger.cap is None or ledger.spent <= ledger.cap
        assert ledger.totals().calls == len(provider.books)
    return ended


async def test_each_request_is_asked_judged_and_never_paid_for_again(
    requests: list[Logged], tmp_path: Path
) -> None:
    file = tmp_path / "out" / "s.jsonl"
    async with MockProvider(answer=toy_pool.answer) as provider:
        assert await ask(provider, requests, Samples(file)) is None
        samples = Samples(file)
        context = terms(toy_pool.pool(provider.base_url)).context()
        rows = [row for _, row in rows_of(requests, samples, context)]
        assert [row.as_good for row in rows] == [True] * 6
        # nobody manages a whole "and" in one call, the model in use today neither
        assert [row.again_as_good for row in rows] == [False] * 6
        assert all(row.models == {"large": 2} and row.cost for row in rows)
        paid = len(provider.books)
        assert await ask(provider, requests, samples) is None
        assert len(provider.books) == paid
    written = file.read_text()
    assert not any(word in written for word in (SECRET, "red and", "RED"))


async def test_the_cap_ends_it_and_what_is_judged_is_whole(
    requests: list[Logged], tmp_path: Path
) -> None:
    file = tmp_path / "s.jsonl"
    async with MockProvider(answer=toy_pool.answer) as provider:
        ended = await ask(provider, requests, Samples(file), cap="0.02")
        assert isinstance(ended, CapReached)
        some = Samples(file)
        assert 0 < len(some.rows) < 6
        assert await ask(provider, requests, some) is None
    assert len(Samples(file).rows) == 6


async def test_a_torn_line_is_asked_again_and_a_foreign_one_refused(
    requests: list[Logged], tmp_path: Path
) -> None:
    file = tmp_path / "s.jsonl"
    async with MockProvider(answer=toy_pool.answer) as provider:
        await ask(provider, requests, Samples(file))
        whole = file.read_bytes()
        await asyncio.to_thread(file.write_bytes, whole[:-20])
        torn = Samples(file)
        assert len(torn.rows) == 5
        await ask(provider, requests, torn)
    assert len(Samples(file).rows) == 6
    assert len(file.read_bytes().splitlines()) == 6
    file.write_text('{"id": 1}\n')
    with pytest.raises(DataError, match=r"s.jsonl:1: expected a row"):
        Samples(file)


async def test_no_answer_is_at_risk(requests: list[Logged], tmp_path: Path) -> None:
    samples = Samples(tmp_path / "s.jsonl")
    async with MockProvider(answer=lambda call: "") as provider:
        await ask(provider, requests[:1], samples)
    (row,) = samples.rows.values()
    assert (row.as_good, row.failed, row.by) == (False, True, "no answer")


def test_a_larger_sample_holds_a_smaller_one(requests: list[Logged]) -> None:
    assert drawn(requests, 4, 0)[:2] == drawn(requests, 2, 0)
    assert drawn(requests, 6, 0) != drawn(requests, 6, 1)


def test_a_judge_must_be_a_chat_model_of_the_pool() -> None:
    pool = toy_pool.pool("http://127.0.0.1:1")
    assert judge_card(None, pool) is None
    with pytest.raises(ConfigError, match="no model 'x'"):
        judge_card("x", pool)
    with pytest.raises(ConfigError, match="cannot judge"):
        judge_card("large", pool)
