"""Spans of a gateway's requests, as a collector on a real socket gets them."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from collector import Arrived, Collector, collector
from gateways import Served, gateway
from pools import answers, plan_json, pool_at, pool_file
from r2reasoner.gateway import direct
from r2reasoner.gateway.gateway import Options
from r2reasoner.mock import Fault, MockProvider
from r2reasoner.pool.cards import Pool
from r2reasoner.telemetry import CONTENT_ENV, open_spans

QUERY = "canary-of-the-user 12 + 34 * 5"
WORKED = "canary-of-a-worker"
PLAN = plan_json("canary-of-the-plan", ("12 + #1", [1]))
PARENT_TRACE, PARENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{PARENT_TRACE}-{PARENT_SPAN}-01"}
SERVER, INTERNAL, CLIENT = 2, 1, 3


@pytest.fixture
def to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@contextmanager
def told(pool: Pool, folder: Path, **more: Any) -> Iterator[Served]:
    """Serve a pool; when it ends all spans have arrived."""
    with gateway(pool, folder / "l.db", spans=open_spans(pool), **more) as served:
        yield served


def body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": QUERY}], **more}


def planned(**more: Any) -> MockProvider:
    return MockProvider(answer=answers(PLAN, worker=lambda call: WORKED), **more)


def names(spans: list[Arrived]) -> list[str]:
    return sorted(span.name for span in spans)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_routed_request_goes_on_in_the_callers_trace(
    tmp_path: Path, to: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "r2reasoner.gateway")
    async with planned() as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            _, secret = served.keys.create("alice")
            status, headers, answer = await served.post(
                body("r2reasoner:0.5"), key=secret, headers=PARENT
            )
            trace = await served.trace(headers["x-r2-trace-id"])
    assert status == 200
    root = to.one("invoke_agent")
    assert (root.trace_id, root.parent, root.kind) == (PARENT_TRACE, PARENT_SPAN, SERVER)
    assert {span.trace_id for span in to.spans} == {PARENT_TRACE}
    assert names(to.children(root)) == ["allocate", "plan r2reasoner", "subtask 1", "subtask 2"]
    assert names(to.children(to.one("plan"))) == ["chat planner"]
    assert names(to.children(to.one("subtask 2"))) == ["chat medium"]
    told_of = root.attributes
    assert told_of["r2.trace_id"] == trace.id
    assert told_of["http.route"] == "/v1/chat/completions"
    assert (told_of["http.request.method"], told_of["http.response.status_code"]) == ("POST", 200)
    assert (told_of["r2.key"], told_of["r2.way"]) == ("alice", "routed")
    assert (told_of["r2.status"], told_of["r2.trade_off"]) == ("complete", 0.5)
    assert told_of["r2.cost_dollars"] == float(answer["r2"]["cost"])
    assert told_of["r2.saved_dollars"] == pytest.approx(float(answer["r2"]["saved_estimate"]))
    assert not root.failed
    ids = {call.id: call for call in trace.calls}
    for span in to.named("chat"):
        call = ids.pop(span.attributes["r2.call_id"])
        assert span.kind == CLIENT
        assert span.start == int(call.started_at * 1e9)
        assert span.end == int((call.started_at + call.latency_s) * 1e9)
        assert span.attributes["gen_ai.usage.input_tokens"] == call.usage.input_tokens
    assert ids == {}
    line = json.loads(caplog.records[-1].message)
    assert (line["trace"], line["otel_trace_id"]) == (trace.id, PARENT_TRACE)


async def test_children_lie_within_their_parents(tmp_path: Path, to: Collector) -> None:
    async with planned(latency_s=0.01) as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            await served.post(body("r2reasoner"))
    by_id = {span.id: span for span in to.spans}
    slack = 1_000_000  # a call is opened by another clock than its subtask
    for span in to.spans:
        if span.parent:
            parent = by_id[span.parent]
            assert parent.start - slack <= span.start <= span.end <= parent.end + slack


async def test_no_words_and_no_secrets_leave(tmp_path: Path, to: Collector) -> None:
    faults = {"medium": Fault.SERVER_ERROR}
    mock = planned(faults=lambda call: faults.get(call.model), retry_after_s=0)
    async with mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            _, secret = served.keys.create("alice")
            for stream in (True, False):
                await raw(served, body("r2reasoner", stream=stream), key=secret)
                await raw(served, body("large", stream=stream), key=secret)
    assert len(to.named("invoke_agent")) == 4
    for word in (QUERY, WORKED, "canary", secret, secret[5:25]):
        assert not any(word.encode() in each for each in to.bodies)


async def test_words_leave_where_the_operator_wants_it(
    tmp_path: Path, to: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONTENT_ENV, "true")
    async with planned() as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            await served.post(body("r2reasoner"))
            await served.post(body("large"))
    for root in to.named("invoke_agent"):
        assert QUERY in root.attributes["gen_ai.input.messages"]
        assert WORKED in root.attributes["gen_ai.output.messages"]


async def test_a_stream_that_falls_back(tmp_path: Path, to: Collector) -> None:
    down = lambda call: Fault.UNAVAILABLE if call.model == "large" else None  # noqa: E731
    async with MockProvider(faults=down, retry_after_s=0) as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            await raw(
                served, body("r2reasoner", stream=True), headers={"x-r2-bypass": "1", **PARENT}
            )
            figures = await figures_of(served)
    root, subtask = to.one("invoke_agent"), to.one("subtask")
    assert (root.parent, root.failed) == (PARENT_SPAN, False)
    assert (root.attributes["r2.way"], root.attributes["r2.stream"]) == ("direct", True)
    assert names(to.children(root)) == ["subtask 1"]
    tries = to.children(subtask)
    assert [span.name for span in tries] == ["chat large"] * 3 + ["chat medium"]
    assert [span.attributes["r2.attempt"] for span in tries] == [1, 2, 3, 1]
    assert [span.attributes.get("error.type") for span in tries] == ["overloaded"] * 3 + [None]
    assert [span.failed for span in tries] == [True] * 3 + [False]
    assert tries[-1].attributes["gen_ai.response.time_to_first_chunk"] > 0
    ((event, at, models),) = subtask.events
    assert (event, models) == ("r2.fell_back", {"r2.from_model": "large", "r2.to_model": "medium"})
    assert tries[2].end <= at <= tries[3].start
    assert 'r2_fallbacks_total{model="large"} 1.0' in figures


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["r2reasoner", "small"])
async def test_a_request_without_an_answer(
    tmp_path: Path, to: Collector, model: str, stream: bool
) -> None:
    async with MockProvider(faults=lambda call: Fault.BAD_GATEWAY, retry_after_s=0) as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            await raw(served, body(model, stream=stream))
    root = to.one("invoke_agent")
    named = "no_answer" if model == "r2reasoner" else "upstream_server_error"
    assert (root.failed, root.status, root.attributes["error.type"]) == (True, "", named)
    assert to.one("subtask 1").attributes["error.type"] == "no_answer"
    assert {span.attributes["error.type"] for span in to.named("chat")} == {"server_error"}


@pytest.mark.parametrize(
    ("limits", "wish", "code"),
    [
        ({"per_day": Decimal("0.000000001")}, {}, "insufficient_quota"),
        ({}, {"max_cost": "0.000000001"}, "budget_exceeded"),
    ],
)
@pytest.mark.parametrize("model", ["r2reasoner", "large"])
async def test_money_that_does_not_reach(
    tmp_path: Path,
    to: Collector,
    model: str,
    limits: dict[str, Any],
    wish: dict[str, str],
    code: str,
) -> None:
    async with planned() as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            _, secret = served.keys.create("poor", **limits)
            status, _, _ = await served.post(body(model, r2=wish), key=secret)
            figures = await figures_of(served)
    root = to.one("invoke_agent")
    assert (status, mock.books, to.named("chat")) == (402, [], [])
    assert (root.failed, root.attributes["error.type"]) == (True, code)
    assert root.attributes["http.response.status_code"] == 402
    assert to.one("subtask 1").attributes["error.type"] == "no_answer"
    assert [span.attributes["error.type"] for span in to.named("plan")] == (
        ["no_plan"] if model == "r2reasoner" else []
    )
    assert f'r2_errors_total{{code="{code}"}} 1.0' in figures


async def test_a_request_too_many(tmp_path: Path, to: Collector) -> None:
    """It is refused before there is any work, and has a span all the same."""
    async with planned() as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            _, secret = served.keys.create("eager", per_minute=1)
            answers = [await served.post(body("large"), key=secret) for _ in range(3)]
            figures = await figures_of(served)
    refused = [headers["x-r2-trace-id"] for status, headers, _ in answers if status == 429]
    spans = [span for span in to.named("invoke_agent") if span.failed]
    assert len(refused) >= 1
    assert [span.attributes["r2.trace_id"] for span in spans] == refused
    assert {span.attributes["error.type"] for span in spans} == {"rate_limit_exceeded"}
    assert all(to.children(span) == [] for span in spans)
    assert f'r2_errors_total{{code="rate_limit_exceeded"}} {len(refused)}.0' in figures


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["r2reasoner", "large"])
async def test_a_client_that_leaves(
    tmp_path: Path, to: Collector, model: str, stream: bool
) -> None:
    mock = planned(latency_s=lambda call: 0.0 if call.role == "decomposer" else 30.0)
    async with mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            asking = asyncio.create_task(raw(served, body(model, stream=stream), headers=PARENT))
            await until(lambda: any(b.role != "decomposer" for b in mock.books))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await until(lambda: not served.gateway.live._running)
            figures = await figures_of(served)
    root = to.one("invoke_agent")
    assert (root.trace_id, root.failed) == (PARENT_TRACE, True)
    assert root.attributes["error.type"] == "cancelled"
    if model == "r2reasoner":
        assert not to.one("plan").failed
        assert not to.one("allocate").failed
        assert not to.one("chat planner").failed
    assert to.one("subtask 1").attributes["error.type"] == "cancelled"
    (call,) = to.children(to.one("subtask 1"))
    assert (call.failed, call.attributes["error.type"]) == (True, "cancelled")
    assert call.attributes["r2.outcome"] == "unknown"
    assert call.attributes["r2.cost_dollars"] > 0
    assert "gen_ai.usage.input_tokens" not in call.attributes
    way = "routed" if model == "r2reasoner" else "direct"
    assert f'r2_answers_total{{status="cancelled",way="{way}"}} 1.0' in figures


async def test_a_request_that_was_also_routed(tmp_path: Path, to: Collector) -> None:
    async with planned() as mock:
        options = Options(shadow=1.0)
        with told(pool_at(mock.base_url), tmp_path, options=options) as served:
            _, headers, _ = await served.post(body("large"), headers=PARENT)
            await until(lambda: not served.gateway.trial._tasks)
    shadow, asked = sorted(to.named("invoke_agent"), key=lambda span: span.kind)
    assert (shadow.kind, asked.kind) == (INTERNAL, SERVER)
    assert (shadow.parent, asked.parent) == ("", PARENT_SPAN)
    assert shadow.attributes["r2.shadow_of"] == headers["x-r2-trace-id"]
    assert shadow.attributes["r2.status"] == "complete"
    assert "subtask 2" in names(to.children(shadow))
    assert names(to.children(asked)) == ["subtask 1"]


async def test_an_answer_from_the_cache(tmp_path: Path, to: Collector) -> None:
    async with planned() as mock:
        options = Options(cache_entries=5)
        with told(pool_at(mock.base_url), tmp_path, options=options) as served:
            for _ in range(2):
                _, headers, _ = await served.post(body("large", r2={"cache": True}))
    first, again = sorted(to.named("invoke_agent"), key=lambda span: span.start)
    assert len(to.named("chat")) == len(mock.books) == 1
    assert again.attributes["r2.cached"] is True
    assert first.attributes["r2.trace_id"] == again.attributes["r2.trace_id"]
    assert again.attributes["r2.trace_id"] == headers["x-r2-trace-id"]
    assert not again.failed


async def test_who_may_not_ask_makes_no_spans(tmp_path: Path, to: Collector) -> None:
    async with MockProvider() as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            _, secret = served.keys.create("alice")
            assert (await served.post(body("large"), key="r2-wrong"))[0] == 401
            assert (await served.post(b"{", key=secret))[0] == 400
            assert (await served.post(body("none"), key=secret))[0] == 404
            await served.get("/v1/models", key=secret)
    assert to.spans == []


async def test_our_own_failure(
    tmp_path: Path, to: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(QUERY)

    monkeypatch.setattr(direct, "answer", fail)
    async with MockProvider() as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            status, headers, answer = await served.post(body("large"))
            await served.get("/healthz")
    root = to.one("invoke_agent")
    assert (status, answer["error"]["code"]) == (500, "internal_error")
    assert (root.failed, root.attributes["error.type"]) == (True, "internal_error")
    assert root.attributes["r2.trace_id"] == headers["x-r2-trace-id"]
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    line = json.loads(record.message)
    assert (line["error"], line["trace"]) == ("builtins.RuntimeError", headers["x-r2-trace-id"])
    assert line["where"][-1].startswith("test_gateway_spans:")
    assert QUERY not in caplog.text


async def test_a_collector_that_is_away_harms_no_request(
    tmp_path: Path, to: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r2reasoner.telemetry.spans.CLOSE_S", 0.05)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    async with planned() as mock:
        with told(pool_at(mock.base_url), tmp_path) as served:
            status, _, _ = await served.post(body("r2reasoner"))
            assert status == 200


async def test_a_real_process_sends_what_waits_before_it_ends(
    tmp_path: Path, to: Collector
) -> None:
    command = "from r2reasoner.cli.app import main; main()"
    async with planned() as mock:
        file = pool_file(tmp_path, mock.base_url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", command, "serve", "--port", "0", "--json"),
            *("--pool", str(file), "--db", str(tmp_path / "l.db")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | to.environment,
        )
        assert process.stdout is not None
        base_url = json.loads(await process.stdout.readline())["base_url"]
        async with aiohttp.ClientSession() as session:
            where = f"{base_url}/chat/completions"
            async with session.post(where, json=body("r2reasoner"), headers=PARENT) as got:
                assert got.status == 200
        process.terminate()
        _, log = await process.communicate()
    assert process.returncode == 0
    (line,) = log.splitlines()
    assert json.loads(line)["otel_trace_id"] == PARENT_TRACE == to.one("invoke_agent").trace_id
    assert len(to.named("chat")) == 3


async def raw(served: Served, body: dict[str, Any], key: str | None = None, **more: Any) -> str:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{served.base_url}/chat/completions",
            json=body,
            headers=headers | more.get("headers", {}),
        ) as got,
    ):
        text: str = await got.text()
        return text


async def figures_of(served: Served) -> str:
    return (await served.get("/metrics", key="admin-of-the-tests"))[1]
