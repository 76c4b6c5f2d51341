"""Who gets in: every route by bad credentials; limits of keys by the official client."""

import asyncio
import json
import time
from decimal import Decimal
from pathlib import Path

import openai
import pytest
from starlette.routing import Route

from gateways import ADMIN, gateway
from pools import pool_at
from r2reasoner.gateway import api
from r2reasoner.gateway.gateway import Options
from r2reasoner.mock import MockProvider
from r2reasoner.types import to_dollars, to_pico

BODY = {"model": "small", "messages": [{"role": "user", "content": "a b c"}]}
OPEN = {"/healthz", "/openapi.json"}
API = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/small"),
    ("GET", "/v1/traces/x"),
    ("GET", "/v1/traces/x/events"),
    ("GET", "/metrics"),
]
BAD = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer r2-wrong",
    "Basic r2-wrong",
    "r2-wrong",
    "Bearer " + "x" * 5000,
    "Bearer " + ADMIN[:-1],
]


async def ask(client: openai.AsyncOpenAI, *models: str) -> None:
    for model in models:
        await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "a b c"}]
        )


async def test_every_route_of_the_api_refuses_bad_credentials(tmp_path: Path) -> None:
    import aiohttp

    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            served.keys.create("one")
            async with aiohttp.ClientSession() as session:
                for method, path in API:
                    for bad in BAD:
                        headers = {"authorization": bad} if bad else {}
                        url = served.root + path
                        async with session.request(
                            method, url, headers=headers, json=BODY if method == "POST" else None
                        ) as response:
                            assert response.status == 401, (path, bad)
                            assert (await response.json())["error"]["code"] == "invalid_api_key"
    assert mock.books == []


async def test_no_route_of_the_api_is_open_but_these(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            served.keys.create("one")
            found = set()
            for route in api.routes(served.gateway):
                assert isinstance(route, Route)
                if "POST" in (route.methods or ()):
                    status, *_ = await served.post(BODY, path=route.path)
                else:
                    status, _ = await served.get(route.path)
                if status != 401:
                    found.add(route.path)
    assert found == OPEN


async def test_a_gateway_beyond_this_machine_is_never_open(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        closed = Options(open_access=False)
        with gateway(pool_at(mock.base_url), tmp_path / "l.db", options=closed) as served:
            assert (await served.post(BODY))[0] == 401
        with gateway(pool_at(mock.base_url), tmp_path / "m.db") as served:
            assert (await served.post(BODY))[0] == 200


@pytest.mark.parametrize("query", ["api_key=r2-x", "key=1", "a=b&ACCESS_TOKEN=x", "x=r2-abc"])
async def test_a_key_in_the_query_string_is_refused(tmp_path: Path, query: str) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            for path in ("/v1/models", "/healthz", "/"):
                status, text = await served.get(f"{path}?{query}")
                assert status == 400
                assert json.loads(text)["error"]["code"] == "key_in_query"
            assert (await served.get("/v1/models?limit=3"))[0] == 200


async def test_a_key_gets_in_and_its_limits_hold(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            _, narrow = served.keys.create("narrow", models=["small"])
            _, slow = served.keys.create("slow", per_minute=2)
            _, old = served.keys.create("old", expires_at=time.time() - 1)
            async with served.client(narrow) as client:
                assert [m.id async for m in client.models.list()] == ["small"]
                await ask(client, "small")
                with pytest.raises(openai.PermissionDeniedError) as forbidden:
                    await ask(client, "r2reasoner:0.2")
            async with served.client(slow) as client:
                with pytest.raises(openai.RateLimitError) as limited:
                    await ask(client, *["small"] * 5)
            async with served.client(old) as client:
                with pytest.raises(openai.AuthenticationError, match="expired"):
                    await client.models.list()
    assert forbidden.value.code == "model_not_allowed"
    assert limited.value.code == "rate_limit_exceeded"
    assert 1 <= int(limited.value.response.headers["retry-after"]) <= 60


async def test_a_key_whose_money_is_gone(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            _, poor = served.keys.create("poor", per_day=Decimal("0.000001"))
            for model in ("small", "r2reasoner"):
                status, headers, error = await served.post(BODY | {"model": model}, key=poor)
                assert status == 402
                assert error["error"]["code"] == "insufficient_quota"
                assert error["error"]["left_dollars"] == "0.000001"
                assert headers["x-should-retry"] == "false"
            async with served.client(poor, max_retries=2) as client:
                with pytest.raises(openai.APIStatusError) as gone:
                    await ask(client, "small")
    assert gone.value.status_code == 402
    assert mock.books == []


@pytest.mark.parametrize(("model", "budget"), [("small", "0.0006"), ("r2reasoner", "0.004")])
async def test_no_overshoot_with_a_hundred_in_flight(
    tmp_path: Path, model: str, budget: str
) -> None:
    """The key's budget has room for some calls: so many are made, and none more."""
    async with MockProvider(latency_s=0.05) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            key, secret = served.keys.create("one", per_day=Decimal(budget))
            ends = await asyncio.gather(
                *(served.post(BODY | {"model": model}, key=secret) for _ in range(100))
            )
            await served.keys.flush()
            spending = await served.keys.spending(key)
            await served.ledger.flush()
            entries = served.ledger.entries()
    answered = [body for status, _, body in ends if status == 200]
    refused = [body for status, _, body in ends if status == 402]
    assert len(answered) + len(refused) == 100
    assert answered
    assert refused
    assert len(entries) == len(mock.books)
    spent = sum(e.cost or 0 for e in entries)
    assert spending.day_spent == spent <= to_pico(budget)
    assert spending.day_held == 0
    costs = sum(Decimal(body["r2"]["cost"]) for body in answered)
    assert costs <= to_dollars(spent)


async def test_traces_are_seen_by_their_key_and_the_admin(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            _, one = served.keys.create("one")
            _, two = served.keys.create("two")
            _, headers, _ = await served.post(BODY, key=one)
            trace = headers["x-r2-trace-id"]
            seen = {
                who: [
                    (await served.get(f"/v1/traces/{trace}{tail}", key=key))[0]
                    for tail in ("", "/events")
                ]
                for who, key in {"one": one, "two": two, "admin": ADMIN}.items()
            }
            assert (await served.get(f"/v1/traces/{trace[:20]}", key=ADMIN))[0] == 404
            _, text = await served.get(f"/v1/traces/{trace}", key=one)
            metrics = [(await served.get("/metrics", key=key))[0] for key in (one, ADMIN)]
    assert seen == {"one": [200, 200], "two": [404, 404], "admin": [200, 200]}
    assert json.loads(text)["id"] == trace
    assert metrics == [403, 200]
