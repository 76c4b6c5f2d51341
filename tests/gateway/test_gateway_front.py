"""What every request passes: the log without prompts or secrets, headers, draining, bad routes."""

import json
import logging
from pathlib import Path

import pytest

from gateways import gateway
from pools import pool_at
from r2reasoner.mock import MockProvider

SECRETS = ("sentence-of-the-user", "word-of-the-system")
BODY = {
    "model": "small",
    "messages": [
        {"role": "system", "content": SECRETS[1]},
        {"role": "user", "content": SECRETS[0]},
    ],
}


async def test_the_log_tells_of_a_request_and_nothing_of_its_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "r2reasoner.gateway")
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            _, secret = served.keys.create("alice")
            _, headers, _ = await served.post(BODY, key=secret)
            await served.post(BODY | {"model": "none"}, key=secret)
            await served.get(f"/v1/models?api_key={secret}")
    lines = [json.loads(r.message) for r in caplog.records if r.name.endswith("access")]
    first, second, third = lines
    assert headers["x-content-type-options"] == "nosniff"
    assert (first["status"], first["key"], first["model"]) == (200, "alice", "small")
    assert first["trace"] == headers["x-r2-trace-id"]
    assert first["cost"] == headers["x-r2-cost"]
    assert (second["status"], third["status"]) == (404, 400)
    for word in (*SECRETS, secret, secret[5:25]):
        assert word not in caplog.text


async def test_no_route_and_no_method(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            status, text = await served.get("/v1/nothing")
            assert (status, json.loads(text)["error"]["type"]) == (404, "invalid_request_error")
            status, text = await served.get("/v1/chat/completions")
            assert status == 405
            assert "GET /v1/chat/completions" in json.loads(text)["error"]["message"]
            _, figures = await served.get("/metrics", key="admin-of-the-tests")
    assert 'r2_requests_total{route="other",status="404"} 1.0' in figures


async def test_while_it_drains_nothing_new_is_begun(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            served.gateway.draining = True
            status, headers, error = await served.post(BODY)
            health, _ = await served.get("/healthz")
    assert (status, error["error"]["code"], health) == (503, "draining", 503)
    assert headers["retry-after"] == "1"
    assert mock.books == []
