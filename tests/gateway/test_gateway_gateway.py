"""Several pools behind one gateway: a request names one and gets its models and settings."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from gateways import gateway
from pools import pool_at
from r2reasoner.config import settings
from r2reasoner.errors import ConfigError, LedgerError
from r2reasoner.gateway.gateway import Gateway, Options
from r2reasoner.gateway.keys import Keys
from r2reasoner.ledger import Ledger
from r2reasoner.mock import MockProvider
from r2reasoner.pool.cards import Pool


def asked(model: str, **wish: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "a b c"}], "r2": wish}


def other_pool(base_url: str) -> Pool:
    """Return a pool of one model that the default pool does not have."""
    pool = pool_at(base_url)
    only = replace(pool.workers[0], name="only", model="only")
    return replace(pool, name="other", workers=(only,), decomposer="only")


async def test_a_request_names_its_pool(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        default, other = pool_at(mock.base_url), other_pool(mock.base_url)
        options = Options(cache_entries=9)
        with gateway(default, tmp_path / "l.db", others=[other], options=options) as served:
            _, _, here = await served.post(asked("small", pool=default.name, cache=True))
            _, _, there = await served.post(asked("only", pool="other", cache=True))
            status, _, wrong = await served.post(asked("small", pool="other"))
            _, _, routed = await served.post(asked("r2reasoner", pool="other", direct=True))
            _, _, models = await served.post(asked("only"))
            trace = await served.trace(there["r2"]["trace_id"])
            page = await served.get("/v1/models")
    assert (here["r2"]["pool"], there["r2"]["pool"]) == (default.name, "other")
    assert trace.pool == "other"
    assert (status, wrong["error"]["code"]) == (404, "model_not_found")
    assert routed["r2"]["plan"]["subtasks"][0]["model"] == "only"
    assert models["error"]["code"] == "model_not_found"
    assert f'"pools":["{default.name}","other"]' in page[1]


async def test_a_pool_that_is_not_served_is_refused_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            for name in ("other", "nano", "../r2.toml", "http://127.0.0.1:1/v1"):
                status, _, answer = await served.post(asked("small", pool=name))
                assert (status, answer["error"]["param"]) == (404, "r2.pool")
    assert mock.books == []


def test_two_pools_of_one_name_are_refused(nano: Pool) -> None:
    with Ledger.in_memory() as ledger, pytest.raises(ConfigError, match="told apart by name"):
        Gateway.open(nano, settings(), ledger, Keys(ledger), others=[(nano, settings())])


async def test_spans_are_sent_at_the_end_though_the_ledger_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    async def fail() -> None:
        raise LedgerError("the disk is full")

    spans = Mock(close=lambda: closed.append("spans"))
    with Ledger.open(tmp_path / "l.db") as ledger:
        pool = pool_at("http://127.0.0.1:9/v1")
        opened = Gateway.open(pool, settings(), ledger, Keys(ledger), spans=spans)
        monkeypatch.setattr(ledger, "flush", fail)
        with pytest.raises(LedgerError):
            await opened.aclose()
    assert closed == ["spans"]
