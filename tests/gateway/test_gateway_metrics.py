"""The figures that Prometheus reads."""

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateways import ADMIN, Served, gateway
from pools import answers, plan_json, pool_at
from r2reasoner import __version__
from r2reasoner.gateway.gateway import Options
from r2reasoner.gateway.metrics import Metrics
from r2reasoner.mock import Fault, MockProvider
from r2reasoner.types import Call, CallOutcome, Role, Usage


def call(outcome: CallOutcome, cost: int | None) -> Call:
    return Call(
        id="1",
        role=Role.WORKER,
        model="small",
        subtask=1,
        attempt=1,
        outcome=outcome,
        usage=Usage(3, 4),
        cost=cost,
        bound=9,
        started_at=0.0,
        latency_s=0.1,
        ttft_s=0.03,
        finish_reason=None,
        error=None,
        note=None,
    )


def test_calls_tokens_and_money() -> None:
    metrics = Metrics()
    metrics.count((call(CallOutcome.OK, 5 * 10**12), call(CallOutcome.FAILED, 0)))
    metrics.count((call(CallOutcome.UNKNOWN, None),))
    lines = metrics.text().decode().splitlines()
    for line in (
        'r2_calls_total{model="small",outcome="ok",role="worker"} 1.0',
        'r2_calls_total{model="small",outcome="failed",role="worker"} 1.0',
        'r2_tokens_total{direction="input",model="small"} 6.0',
        'r2_tokens_total{direction="output",model="small"} 8.0',
        'r2_cost_dollars_total{model="small"} 5.0',
        'r2_call_seconds_bucket{le="0.05",model="small"} 0.0',
        'r2_call_seconds_bucket{le="0.1",model="small"} 3.0',
        'r2_call_time_to_first_token_seconds_bucket{le="0.02",model="small"} 0.0',
        'r2_call_time_to_first_token_seconds_bucket{le="0.05",model="small"} 3.0',
    ):
        assert line in lines


def test_two_gateways_share_no_figures() -> None:
    one, two = Metrics(), Metrics()
    one.cache_hits.inc()
    assert b"r2_cache_hits_total 1.0" in one.text()
    assert b"r2_cache_hits_total 0.0" in two.text()


PLAN = plan_json("34 * 5", ("12 + #1", [1]))
QUERY = "words-of-the-user"
Figures = dict[str, float]


def asking(model: str, *, stream: bool = False, **more: object) -> dict[str, object]:
    turns = [{"role": "user", "content": QUERY}]
    return {"model": model, "messages": turns, "stream": stream, **more}


async def figures_of(served: Served) -> Figures:
    _, text = await served.get("/metrics", key=ADMIN)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_answers_by_who_gave_them_and_what_they_saved(tmp_path: Path) -> None:
    options = Options(cache_entries=5)
    async with MockProvider(answer=answers(PLAN)) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db", options=options) as served:
            blocks = []
            for model in ("r2reasoner", "small"):
                _, _, answer = await served.post(asking(model))
                blocks.append(answer["r2"])
            for _ in range(3):
                await served.post(asking("large", r2={"cache": True}))
            figures = await figures_of(served)
    assert figures['r2_answers_total{status="complete",way="routed"}'] == 1
    assert figures['r2_answers_total{status="complete",way="direct"}'] == 2
    assert figures["r2_cache_hits_total"] == 2
    large = figures['r2_cost_dollars_total{model="large"}']
    paid = sum(float(block["cost"]) for block in blocks)
    alone = sum(float(block["strongest_alone_estimate"]) for block in blocks)
    assert figures["r2_answered_cost_dollars_total"] == pytest.approx(paid + large)
    assert figures["r2_strongest_alone_dollars_total"] == pytest.approx(alone + large)


@pytest.mark.parametrize("model", ["r2reasoner", "small"])
async def test_time_to_the_first_text_of_streams_alone(tmp_path: Path, model: str) -> None:
    way = "routed" if model == "r2reasoner" else "direct"
    name = f'r2_time_to_first_token_seconds_count{{way="{way}"}}'
    late = f'r2_time_to_first_token_seconds_bucket{{le="0.02",way="{way}"}}'
    async with MockProvider(answer=answers(PLAN), latency_s=0.03) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            await served.post(asking(model))
            assert name not in await figures_of(served)
            async with served.client() as client:
                stream = await client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": QUERY}], stream=True
                )
                async for _ in stream:
                    pass
            figures = await figures_of(served)
    assert figures[name] == 1
    assert figures[late] == 0


async def test_errors_by_their_name(tmp_path: Path) -> None:
    down = lambda call: Fault.BAD_GATEWAY if call.model == "small" else None  # noqa: E731
    async with MockProvider(faults=down, retry_after_s=0) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            _, secret = served.keys.create("alice")
            await served.post(asking("small"), key=secret)
            await served.post(asking("none"), key=secret)
            await served.post(asking("large"), key="r2-wrong")
            await served.post(b"{", key=secret)
            await served.get(f"/v1/models?key={secret}")
            await served.get("/nowhere")
            figures = await figures_of(served)
    for code in (
        "upstream_server_error",
        "model_not_found",
        "invalid_api_key",
        "http_400",
        "key_in_query",
        "http_404",
    ):
        assert figures[f'r2_errors_total{{code="{code}"}}'] == 1
    assert figures['r2_answers_total{status="failed",way="direct"}'] == 1


async def test_subtasks_that_fell_back(tmp_path: Path) -> None:
    down = lambda call: Fault.BAD_GATEWAY if call.model == "medium" else None  # noqa: E731
    async with MockProvider(answer=answers(PLAN), faults=down, retry_after_s=0) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            await served.post(asking("r2reasoner:0.5"))
            figures = await figures_of(served)
    assert figures['r2_fallbacks_total{model="medium"}'] == 2
    assert figures['r2_calls_total{model="medium",outcome="failed",role="worker"}'] == 3


async def test_what_runs_and_what_it_uses(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            figures = await figures_of(served)
    assert figures[f'r2_build_info{{version="{__version__}"}}'] == 1
    assert figures["r2_ledger_waiting"] == 0
    assert figures["process_resident_memory_bytes"] > 0
    assert figures["r2_in_flight"] == 1


async def test_writes_that_wait(tmp_path: Path) -> None:
    file = tmp_path / "l.db"
    async with MockProvider(answer=answers(PLAN)) as mock:
        with gateway(pool_at(mock.base_url), file) as served:
            await served.post(asking("small"))
            await served.ledger.flush()
            with closing(sqlite3.connect(file, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                asked = []
                while (await figures_of(served))["r2_ledger_waiting"] < 1:
                    asked.append(asyncio.create_task(served.post(asking("small"))))
                other.execute("ROLLBACK")
            assert {status for status, _, _ in await asyncio.gather(*asked)} == {200}
            await served.ledger.flush()
            assert (await figures_of(served))["r2_ledger_waiting"] == 0


async def test_labels_have_few_values_and_no_ones_name(tmp_path: Path) -> None:
    async with MockProvider(answer=answers(PLAN)) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            _, secret = served.keys.create("alice")
            for n in range(3):
                _, headers, _ = await served.post(asking(f"r2reasoner:0.{n}"), key=secret)
                await served.get(f"/v1/traces/{headers['x-r2-trace-id']}", key=secret)
                await served.get(f"/nowhere/{n}")
                await served.post(asking(f"made-up-{n}"), key=secret)
            _, text = await served.get("/metrics", key=ADMIN)
    labels = set(re.findall(r"[a-z_]+(?==\")", text))
    assert labels <= {
        *("route", "status", "way", "code", "model", "role", "outcome", "direction", "le"),
        *("endpoint", "version"),
    }
    for word in ("alice", secret, QUERY, headers["x-r2-trace-id"], "made-up", "nowhere"):
        assert word not in text
