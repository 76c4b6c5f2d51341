"""The application: what every route has in common, and what becomes of the gateway at its end."""

import json
from pathlib import Path
from typing import NoReturn

import pytest
from starlette.routing import Route

from gateways import ADMIN, Served, gateway
from ledger_samples import trace
from pools import pool_at
from r2reasoner.config import settings
from r2reasoner.errors import LedgerError
from r2reasoner.gateway.app import build
from r2reasoner.gateway.gateway import Gateway
from r2reasoner.gateway.keys import Keys
from r2reasoner.ledger import Ledger
from r2reasoner.mock import MockProvider
from raw_http import Reply, connected, head

DETAIL = "a-detail-of-ours"
NOWHERE = "http://127.0.0.1:9/v1"


def get(served: Served, path: str) -> Reply:
    with connected(served.root) as raw:
        raw.send(head(f"GET {path} HTTP/1.1", f"Authorization: Bearer {ADMIN}"))
        reply = raw.reply()
    assert reply is not None
    return reply


def test_a_fault_of_ours_is_a_500_that_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> NoReturn:
        raise RuntimeError(DETAIL)

    with gateway(pool_at(NOWHERE), tmp_path / "l.db") as served:
        monkeypatch.setattr(served.gateway.live, "get", broken)
        reply = get(served, "/v1/traces/x")
        after = get(served, "/healthz")
    error = reply.error()
    assert (reply.status, error["type"], error["code"]) == (500, "server_error", "internal_error")
    assert DETAIL not in reply.body.decode()
    assert after.status == 200


def test_a_ledger_that_cannot_be_read_is_a_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> NoReturn:
        raise LedgerError(DETAIL)

    with gateway(pool_at(NOWHERE), tmp_path / "l.db") as served:
        monkeypatch.setattr(served.ledger, "trace_json", unreadable)
        reply = get(served, "/v1/traces/x")
    assert (reply.status, reply.error()["code"]) == (503, "no_ledger")
    assert DETAIL not in reply.body.decode()


def test_responses_carry_the_headers_that_keep_browsers_careful(tmp_path: Path) -> None:
    with gateway(pool_at(NOWHERE), tmp_path / "l.db") as served:
        replies = [
            get(served, path) for path in ("/v1/models", "/v1/no", "/login", "/openapi.json")
        ]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"  # and only once
        assert reply.headers["referrer-policy"] == "no-referrer"


async def test_a_slash_too_many_leads_back_with_the_body(tmp_path: Path) -> None:
    body = {"model": "small", "messages": [{"role": "user", "content": "a"}]}
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            status, _, answer = await served.post(body, path="/v1/chat/completions/")
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "a"


async def test_its_end_closes_the_gateway_and_writes_what_is_queued(tmp_path: Path) -> None:
    db = tmp_path / "l.db"
    kept = trace()
    with Ledger.open(db) as ledger:
        opened = Gateway.open(pool_at(NOWHERE), settings(), ledger, Keys(ledger))
        app = build(opened)
        async with app.router.lifespan_context(app):
            assert not opened.draining
            ledger.save_trace(kept)
        assert opened.draining
        with Ledger.open(db) as other:
            assert json.loads(other.trace_json(kept.id))["id"] == kept.id


def test_api_and_dashboard_do_not_hide_one_another(tmp_path: Path) -> None:
    with gateway(pool_at(NOWHERE), tmp_path / "l.db") as served:
        routes = build(served.gateway).routes
    taken = [
        (route.path, method)
        for route in routes
        if isinstance(route, Route)
        for method in route.methods or ()
    ]
    assert len(taken) == len(set(taken))
    assert {path for path, _ in taken} >= {"/", "/login", "/v1/models", "/healthz"}
