"""Answers of the engine through the gateway: money, time, limits, stop words."""

from pathlib import Path
from typing import Any

import pytest

from gateways import gateway
from pools import answers, plan_json, pool_at
from r2reasoner.mock import ChatCall, Fault, MockProvider

PLANNER = plan_json("34 * 5", ("12 + #1", [1]))
BODY: dict[str, Any] = {"model": "r2reasoner", "messages": [{"role": "user", "content": "a b c"}]}


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [
        ({"max_cost": "0.0000001"}, 402, "budget_exceeded"),
        ({"deadline_s": 0.2}, 504, "deadline_exceeded"),
    ],
)
async def test_money_and_time_of_one_request(
    tmp_path: Path, wish: dict[str, Any], status: int, code: str
) -> None:
    async with MockProvider(answer=answers(PLANNER), latency_s=5) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            got, headers, body = await served.post(BODY | {"r2": wish})
    assert (got, body["error"]["code"]) == (status, code)
    assert body["error"]["trace_id"] == headers["x-r2-trace-id"]
    assert (mock.books == []) == (status == 402)


async def test_no_model_answers(tmp_path: Path) -> None:
    async with MockProvider(faults=lambda call: Fault.NOT_FOUND) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            status, _, body = await served.post(BODY)
    assert (status, body["error"]["code"]) == (502, "no_answer")
    assert len(mock.books) > 3


async def test_limits_concern_what_becomes_the_answer(tmp_path: Path) -> None:
    seen: list[ChatCall] = []

    def worker(call: ChatCall) -> str:
        seen.append(call)
        return "one two three END four"

    async with MockProvider(answer=answers(PLANNER, worker)) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            _, _, cut = await served.post(BODY | {"max_tokens": 2, "temperature": 0.9, "seed": 5})
            _, _, stopped = await served.post(BODY | {"stop": [" END"]})
            _, _, direct = await served.post(BODY | {"r2": {"direct": True}})
    assert [call.max_tokens for call in seen[:2]] == [50, 2]
    assert {call.body["temperature"] for call in seen[:2]} == {0.9}
    assert cut["choices"][0]["message"]["content"] == "one two"
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["r2"]["ignored"] == ["seed"]
    assert stopped["choices"][0]["message"]["content"] == "one two three"
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert [call["role"] for call in direct["r2"]["calls"]] == ["worker"]
