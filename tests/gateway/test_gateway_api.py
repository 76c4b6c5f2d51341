"""Traces by their id: while a request runs and after it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp

from gateways import ADMIN, gateway
from pools import answers, plan_json, pool_at
from r2reasoner.mock import MockProvider

PLANNER = plan_json("34 * 5", ("12 + #1", [1]))
BODY: dict[str, Any] = {
    "model": "r2reasoner",
    "stream": True,
    "messages": [{"role": "user", "content": "a b c"}],
}


def events_in(text: str) -> list[dict[str, Any]]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data")]
    assert data.pop() == "[DONE]"
    return [json.loads(line) for line in data]


async def test_events_while_it_runs_and_the_trace_after(tmp_path: Path) -> None:
    async with MockProvider(answer=answers(PLANNER), latency_s=0.2) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{served.base_url}/chat/completions", json=BODY) as answer,
            ):
                trace = answer.headers["x-r2-trace-id"]
                following = asyncio.create_task(served.get(f"/v1/traces/{trace}/events"))
                await answer.read()
            _, live = await following
            _, after = await served.get(f"/v1/traces/{trace}/events")
            missing, _ = await served.get("/v1/traces/none", key=ADMIN)
    kinds = [event["type"] for event in events_in(live)]
    assert kinds[:2] == ["planned", "allocated"]
    assert kinds[-1] == "answered"
    (ended,) = events_in(after)
    assert ended["trace"]["id"] == trace
    assert ended["trace"]["answer"]["text"] == "<12 + #1>"
    assert missing == 404


async def test_every_setting_of_the_dial_is_a_model(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            status, text = await served.get("/v1/models/r2reasoner:0.7")
            wrong, _ = await served.get("/v1/models/r2reasoner:7")
    assert (status, json.loads(text)["id"], wrong) == (200, "r2reasoner:0.7", 404)
