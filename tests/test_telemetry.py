"""Spans of a query: their tree, names, times, errors; when they are sent, what never leaves."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from typer.testing import CliRunner

from collector import Collector, collector
from pools import answers, endpoint_at, plan_json, plan_of, pool_at, pool_file, routing, serving
from r2reasoner.cli.app import app
from r2reasoner.errors import ConfigError
from r2reasoner.events import (
    Allocated,
    Answered,
    Event,
    FellBack,
    Planned,
    SubtaskFailed,
    SubtaskFinished,
    SubtaskStarted,
)
from r2reasoner.ledger import Ledger
from r2reasoner.mock import MockProvider
from r2reasoner.pool.cards import Pool
from r2reasoner.telemetry import CONTENT_ENV, open_spans
from r2reasoner.telemetry.spans import CLOSE_S, Spans
from r2reasoner.telemetry.told import Told, error_of, phases
from r2reasoner.types import (
    Allocation,
    Answer,
    AnswerStatus,
    Call,
    CallOutcome,
    Choice,
    Message,
    Role,
    Step,
    Usage,
)

START = 1_700_000_000.0
PROMPT, ANSWER = "words-of-the-user", "words-of-a-model"
PLAN = plan_of("first", "second of #1")
GIVEN = Allocation((Choice("small", "cheap", 0.9), Choice("large", "hard")), "ladder", True)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def call(role: Role, model: str, at: float, *, subtask: int | None = None, **more: Any) -> Call:
    given: dict[str, Any] = {
        "id": f"{role}-{model}-{at}",
        "attempt": 1,
        "outcome": CallOutcome.OK,
        "usage": Usage(10, 20, 4, 5),
        "cost": 3 * 10**9,
        "bound": 10**10,
        "latency_s": 0.5,
        "ttft_s": 0.25,
        "finish_reason": "stop",
        "error": None,
        "note": f"a note about {PROMPT}",
    }
    return Call(role=role, model=model, subtask=subtask, started_at=START + at, **given | more)


def step(number: int, model: str | None, answer: str | None, error: str | None = None) -> Step:
    return Step(number, model, PROMPT, answer, error, 0.0, 1.0)


def timed(*events: tuple[float, Event]) -> list[tuple[float, Event]]:
    return [(START + at, event) for at, event in events]


WHOLE = Told(
    trace_id="abc",
    model="r2reasoner:0.3",
    started_at=START,
    begun_at=START + 0.1,
    ended_at=START + 6,
    events=timed(
        (1.0, Planned(PLAN, (f"a note about {PROMPT}",), failed=False)),
        (2.0, Allocated(GIVEN)),
        (2.1, SubtaskStarted(1, "small", PROMPT)),
        (3.0, FellBack(1, "small", "medium", f"small said {PROMPT}")),
        (3.1, SubtaskStarted(1, "medium", PROMPT)),
        (4.0, SubtaskFinished(step(1, "medium", ANSWER))),
        (4.1, SubtaskStarted(2, "large", PROMPT)),
        (5.0, SubtaskFinished(step(2, "large", ANSWER))),
        (5.5, Answered(Answer(ANSWER, AnswerStatus.COMPLETE))),
    ),
    calls=[
        call(Role.DECOMPOSER, "planner", 0.2),
        call(Role.ALLOCATOR, "planner", 1.2),
        call(
            Role.WORKER,
            "small",
            2.2,
            subtask=1,
            outcome=CallOutcome.FAILED,
            error=f"small: the provider answered 500: {PROMPT} (server_error)",
            usage=Usage(),
            cost=0,
        ),
        call(Role.WORKER, "medium", 3.2, subtask=1),
        call(Role.FINAL, "large", 4.2, subtask=2),
        call(Role.CHECK, "large", 5.1),
    ],
    served=True,
    attributes={"r2.way": "routed", "r2.status": None},
    messages=[Message("user", PROMPT)],
)


@pytest.fixture
def kept() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(kept: InMemorySpanExporter) -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(kept))
    yield made
    made.shutdown()


@pytest.fixture
def pool() -> Pool:
    return pool_at("https://api.openai.com/v1")


def tree(spans: tuple[ReadableSpan, ...]) -> dict[str, list[str]]:
    """Return the names of each span's children, in the order of their start."""
    names = {span.context.span_id: span.name for span in spans if span.context}
    found: dict[str, list[str]] = {}
    for span in sorted(spans, key=lambda each: each.start_time or 0):
        if span.parent is not None and span.parent.span_id in names:
            found.setdefault(names[span.parent.span_id], []).append(span.name)
    return found


def of(spans: tuple[ReadableSpan, ...], name: str) -> ReadableSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return round(span.start_time / 1e9 - START, 3), round(span.end_time / 1e9 - START, 3)


def test_the_tree_of_a_query(
    provider: TracerProvider, kept: InMemorySpanExporter, pool: Pool
) -> None:
    trace_id = Spans(provider, pool).record(WHOLE)
    spans = kept.get_finished_spans()
    assert tree(spans) == {
        "invoke_agent r2reasoner": [
            "plan r2reasoner",
            "allocate",
            "subtask 1",
            "subtask 2",
            "chat large",
        ],
        "plan r2reasoner": ["chat planner"],
        "allocate": ["chat planner"],
        "subtask 1": ["chat small", "chat medium"],
        "subtask 2": ["chat large"],
    }
    assert {f"{span.context.trace_id:032x}" for span in spans if span.context} == {trace_id}
    assert seconds(of(spans, "invoke_agent r2reasoner")) == (0.0, 6.0)
    assert seconds(of(spans, "plan r2reasoner")) == (0.1, 1.0)
    assert seconds(of(spans, "allocate")) == (1.0, 2.0)
    assert seconds(of(spans, "subtask 1")) == (2.1, 4.0)
    assert seconds(of(spans, "chat medium")) == (3.2, 3.7)


def test_the_attributes_of_a_query(
    provider: TracerProvider, kept: InMemorySpanExporter, pool: Pool
) -> None:
    Spans(provider, pool).record(WHOLE)
    root = of(kept.get_finished_spans(), "invoke_agent r2reasoner")
    assert root.kind is SpanKind.SERVER
    assert root.status.is_unset
    assert dict(root.attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "r2reasoner",
        "gen_ai.agent.name": "r2reasoner",
        "gen_ai.request.model": "r2reasoner:0.3",
        "r2.trace_id": "abc",
        "r2.pool": "mock",
        "r2.calls": 6,
        "r2.input_tokens": 50,
        "r2.output_tokens": 100,
        "r2.cost_dollars": 0.015,
        "r2.way": "routed",
    }


def test_the_attributes_of_a_call(
    provider: TracerProvider, kept: InMemorySpanExporter, pool: Pool
) -> None:
    Spans(provider, pool).record(WHOLE)
    medium = of(kept.get_finished_spans(), "chat medium")
    assert medium.kind is SpanKind.CLIENT
    assert medium.status.is_unset
    assert dict(medium.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "medium",
        "server.address": "api.openai.com",
        "server.port": 443,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "r2.call_id": "worker-medium-3.2",
        "r2.model": "medium",
        "r2.role": "worker",
        "r2.subtask": 1,
        "r2.attempt": 1,
        "r2.outcome": "ok",
        "r2.cost_dollars": 0.003,
    }


def test_a_failed_call_and_the_fall_back_after_it(
    provider: TracerProvider, kept: InMemorySpanExporter, pool: Pool
) -> None:
    Spans(provider, pool).record(WHOLE)
    spans = kept.get_finished_spans()
    small = of(spans, "chat small")
    assert not small.status.is_ok
    assert small.attributes is not None
    assert small.attributes["error.type"] == "server_error"
    assert small.status.description is None
    assert "gen_ai.usage.input_tokens" not in small.attributes
    subtask = of(spans, "subtask 1")
    (event,) = subtask.events
    assert event.name == "r2.fell_back"
    assert event.timestamp == int((START + 3.0) * 1e9)
    assert event.attributes == {"r2.from_model": "small", "r2.to_model": "medium"}
    assert subtask.attributes == {
        "r2.subtask": 1,
        "r2.model": "medium",
        "r2.allocated": "small",
        "r2.p_right": 0.9,
    }


def test_no_word_of_anybody_leaves(
    provider: TracerProvider, kept: InMemorySpanExporter, pool: Pool
) -> None:
    Spans(provider, pool).record(WHOLE)
    everything = "".join(span.to_json() for span in kept.get_finished_spans())
    assert "invoke_agent" in everything
    for word in (PROMPT, ANSWER, "second of"):
        assert word not in everything


def test_content_leaves_where_it_is_asked_for(
    provider: TracerProvider, kept: InMemorySpanExporter, pool: Pool
) -> None:
    Spans(provider, pool, content=True).record(WHOLE)
    spans = kept.get_finished_spans()
    root = of(spans, "invoke_agent r2reasoner").attributes or {}
    said = [{"type": "text", "content": ANSWER}]
    assert json.loads(str(root["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": PROMPT}]}
    ]
    assert json.loads(str(root["gen_ai.output.messages"])) == [
        {"role": "assistant", "parts": said, "finish_reason": "stop"}
    ]
    subtask = of(spans, "subtask 2").attributes or {}
    assert json.loads(str(subtask["gen_ai.output.messages"]))[0]["parts"] == said
    assert "second of #1" in str((of(spans, "plan r2reasoner").attributes or {}).values())


@pytest.mark.parametrize(
    ("seen", "names", "errors"),
    [
        (0, ["plan r2reasoner"], ["cancelled"]),
        (1, ["plan r2reasoner", "allocate"], [None, "cancelled"]),
        (2, ["plan r2reasoner", "allocate"], [None, None]),
        (3, ["plan r2reasoner", "allocate", "subtask 1"], [None, None, "cancelled"]),
        (6, ["plan r2reasoner", "allocate", "subtask 1"], [None, None, None]),
    ],
)
def test_a_query_that_was_broken_off(seen: int, names: list[str], errors: list[str | None]) -> None:
    cut = Told(
        trace_id="abc",
        model="r2reasoner",
        started_at=START,
        ended_at=START + 9,
        events=WHOLE.events[:seen],
        calls=WHOLE.calls[:1],
        error="cancelled",
    )
    found = list(phases(cut))
    assert [phase.name for phase in found] == names
    assert [phase.error for phase in found] == errors
    assert all(phase.ended_at == START + 9 for phase in found if phase.error)


def test_a_plan_that_failed_and_a_subtask_without_an_answer() -> None:
    told = Told(
        trace_id="abc",
        model="r2reasoner",
        started_at=START,
        ended_at=START + 3,
        events=timed(
            (1.0, Planned(plan_of("all"), (), failed=True)),
            (1.1, Allocated(Allocation((Choice("small", ""),), "ladder", False))),
            (1.2, SubtaskStarted(1, "small", PROMPT)),
            (2.0, SubtaskFailed(step(1, None, None, PROMPT))),
        ),
        error="no_answer",
    )
    plan, allocation, subtask = phases(told)
    assert (plan.error, allocation.error, subtask.error) == ("no_plan", None, "no_answer")
    assert told.answer is None


def test_one_model_without_a_plan() -> None:
    """Asked by name: no plan, no allocation; by `direct`: an allocation, though no plan."""
    asked = timed((0.1, SubtaskStarted(1, "small", PROMPT)))
    done = timed((1.0, SubtaskFinished(step(1, "small", ANSWER))))
    planned = timed((0.0, Planned(plan_of("all"), ("direct",), failed=False)))
    given = timed((0.0, Allocated(Allocation((Choice("small", ""),), "ladder", False))))
    for events, names in (
        ([*asked, *done], ["subtask 1"]),
        ([*planned, *given, *asked, *done], ["allocate", "subtask 1"]),
    ):
        told = Told(
            trace_id="a", model="small", started_at=START, ended_at=START + 2, events=events
        )
        assert [phase.name for phase in phases(told)] == names
        assert told.answer == ANSWER


@pytest.mark.parametrize(
    ("outcome", "error", "name"),
    [
        (CallOutcome.OK, None, None),
        (CallOutcome.OK, "an odd finish reason", None),
        (CallOutcome.FAILED, "small: no connection (connect)", "connect"),
        (CallOutcome.FAILED, f"small: {PROMPT} ({PROMPT})", "_OTHER"),
        (CallOutcome.UNKNOWN, "broken off at the deadline", "deadline_exceeded"),
        (CallOutcome.UNKNOWN, "broken off: CancelledError", "cancelled"),
        (CallOutcome.OK, "broken off: GeneratorExit", "cancelled"),
        (CallOutcome.FAILED, "cancelled before dispatch", "cancelled"),
        (CallOutcome.FAILED, None, "_OTHER"),
    ],
)
def test_names_of_what_calls_fail_with(
    outcome: CallOutcome, error: str | None, name: str | None
) -> None:
    assert error_of(call(Role.WORKER, "small", 0, outcome=outcome, error=error)) == name


def test_a_callers_trace_goes_on(
    provider: TracerProvider, kept: InMemorySpanExporter, pool: Pool
) -> None:
    spans = Spans(provider, pool)
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    assert spans.record(WHOLE, headers) == "0af7651916cd43dd8448eb211c80319c"
    root = of(kept.get_finished_spans(), "invoke_agent r2reasoner")
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == "b7ad6b7169203331"
    assert root.context is not None
    assert root.context.trace_state.get("vendor") == "1"


@pytest.mark.parametrize("broken", ["", "x", TRACEPARENT[:-3], "00-" + "0" * 32 + "-" + "0" * 16])
def test_a_header_that_is_none_begins_a_trace(
    provider: TracerProvider, kept: InMemorySpanExporter, pool: Pool, broken: str
) -> None:
    Spans(provider, pool).record(WHOLE, {"traceparent": broken})
    assert of(kept.get_finished_spans(), "invoke_agent r2reasoner").parent is None


def test_a_caller_that_samples_nothing_is_heeded(
    provider: TracerProvider, kept: InMemorySpanExporter, pool: Pool
) -> None:
    trace_id = Spans(provider, pool).record(WHOLE, {"traceparent": TRACEPARENT[:-1] + "0"})
    assert trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert kept.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("base_url", "provider_name", "address", "port"),
    [
        ("https://api.mistral.ai/v1", "mistral_ai", "api.mistral.ai", 443),
        ("https://us-aiplatform.googleapis.com/v1", "gcp.vertex_ai", None, 443),
        ("http://key:secret@127.0.0.1:8000/v1", "mock", "127.0.0.1", 8000),
    ],
)
def test_where_a_model_is(
    provider: TracerProvider,
    kept: InMemorySpanExporter,
    base_url: str,
    provider_name: str,
    address: str | None,
    port: int,
) -> None:
    Spans(provider, pool_at(base_url)).record(WHOLE)
    attributes = of(kept.get_finished_spans(), "chat medium").attributes or {}
    assert attributes["gen_ai.provider.name"] == provider_name
    assert attributes["server.address"] == address or address is None
    assert attributes["server.port"] == port
    assert "secret" not in str(attributes.values())


def test_a_call_in_process_is_internal_and_odd_words_of_providers_stay_here(
    provider: TracerProvider, kept: InMemorySpanExporter, tmp_path: Path
) -> None:
    endpoint = endpoint_at("", path=tmp_path)
    object.__setattr__(endpoint, "kind", "embedded")
    pool = pool_at("https://x.invalid/v1", endpoint=endpoint)
    told = Told(
        trace_id="a",
        model="small",
        started_at=START,
        ended_at=START + 1,
        calls=[
            call(Role.CHECK, "small", 0, finish_reason="\ud800 odd"),
            call(Role.CHECK, "unknown", 0, cost=None),
        ],
    )
    Spans(provider, pool).record(told)
    spans = kept.get_finished_spans()
    small = of(spans, "chat small")
    assert small.kind is SpanKind.INTERNAL
    assert small.attributes is not None
    assert "server.address" not in small.attributes
    assert small.attributes["gen_ai.response.finish_reasons"] == ("other",)
    root = of(spans, "invoke_agent r2reasoner")
    assert root.kind is SpanKind.INTERNAL
    assert "r2.cost_dollars" not in (root.attributes or {})
    assert "r2.cost_dollars" not in (of(spans, "chat unknown").attributes or {})


def test_spans_that_cannot_be_made_fail_nothing_and_are_told_of_once(
    provider: TracerProvider, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    spans = Spans(provider, pool)
    impossible = Told(trace_id="a", model="b", started_at=float("nan"), ended_at=0.0)
    assert spans.record(impossible) is None
    assert spans.record(impossible) is None
    assert [record.message for record in caplog.records] == [
        "the spans of a query were not made: ValueError"
    ]


# --- the environment ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", CONTENT_ENV):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ],
)
def test_without_a_collector_there_is_nothing(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert open_spans(pool) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
)
def test_what_is_not_spoken_is_refused(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, name: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=value):
        open_spans(pool)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, pool: Pool) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setitem(sys.modules, "r2reasoner.telemetry.spans", None)
    with pytest.raises(ConfigError, match=r"r2reasoner\[otel\]"):
        open_spans(pool)


def sent(monkeypatch: pytest.MonkeyPatch, pool: Pool, to: Collector, **environment: str) -> None:
    for name, value in (to.environment | environment).items():
        monkeypatch.setenv(name, value)
    spans = open_spans(pool)
    assert spans is not None
    spans.record(WHOLE)
    spans.close()


def test_a_collector_gets_them_and_who_sends_them(
    monkeypatch: pytest.MonkeyPatch, pool: Pool
) -> None:
    with collector() as to:
        sent(monkeypatch, pool, to, OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test")
    assert len(to.spans) == 11
    resource = to.spans[0].resource
    assert resource["service.name"] == "r2reasoner"
    assert resource["service.version"]
    assert resource["deployment.environment.name"] == "test"
    assert to.one("plan").end == int((START + 1.0) * 1e9)


def test_the_operator_names_the_service_and_asks_for_content(
    monkeypatch: pytest.MonkeyPatch, pool: Pool
) -> None:
    with collector() as to:
        sent(monkeypatch, pool, to, OTEL_SERVICE_NAME="ours", **{CONTENT_ENV: "true"})
    assert to.spans[0].resource["service.name"] == "ours"
    assert PROMPT in to.one("invoke_agent").attributes["gen_ai.input.messages"]


def test_a_collector_that_refuses_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    caplog.set_level(logging.INFO)
    with collector() as to:
        to.answer = 400
        for _ in range(2):
            sent(monkeypatch, pool, to)
    assert [(r.name, r.levelname) for r in caplog.records] == [
        ("r2reasoner.telemetry", "WARNING")
    ] * 2


def test_a_collector_that_is_away_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, pool: Pool
) -> None:
    monkeypatch.setattr("r2reasoner.telemetry.spans.CLOSE_S", 0.05)
    assert CLOSE_S <= 5
    with collector() as to:
        pass
    sent(monkeypatch, pool, to)
    assert to.spans == []


def test_nothing_of_opentelemetry_is_imported_where_it_is_not_asked_for() -> None:
    code = (
        "import sys; from r2reasoner.telemetry import open_spans;"
        "from r2reasoner.pool.load import load_pool;"
        "import r2reasoner.telemetry.told;"
        "assert open_spans(load_pool('paper')) is None;"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_events_are_told_at_their_moment_however_slowly_they_are_taken(
    ledger: Ledger,
) -> None:
    seen: list[str] = []
    async with routing(MockProvider(answer=answers(plan_json("a", ("b #1", [1])))), ledger) as it:
        events = it.run(PROMPT, watch=lambda event: seen.append(type(event).__name__))
        await anext(events)
        async with asyncio.timeout(30):
            while "Answered" not in seen:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await events.aclose()
    assert seen[:2] == ["Planned", "Allocated"]
    assert seen.count("SubtaskFinished") == 2


@pytest.mark.parametrize("how", [["--json"], []])
def test_asking_in_a_shell_goes_on_in_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    mock = MockProvider(answer=answers(plan_json("a b", ("c #1", [1]))))
    with collector() as to, serving(mock) as base_url:
        for name, value in (to.environment | {"TRACEPARENT": TRACEPARENT}).items():
            monkeypatch.setenv(name, value)
        files = ["--pool", str(pool_file(tmp_path, base_url)), "--db", str(tmp_path / "l.db")]
        done = CliRunner().invoke(app, ["ask", PROMPT, *files, *how], catch_exceptions=False)
    assert done.exit_code == 0
    root = to.one("invoke_agent")
    assert (root.trace_id, root.parent) == tuple(TRACEPARENT.split("-")[1:3])
    assert (root.attributes["r2.status"], root.failed) == ("complete", False)
    assert root.attributes["r2.trade_off"] == 0.3
    assert [span.name for span in to.children(root)] == [
        "plan r2reasoner",
        "allocate",
        "subtask 1",
        "subtask 2",
    ]
    with Ledger.open(tmp_path / "l.db") as ledger:
        assert ledger.trace(root.attributes["r2.trace_id"]).query.text == PROMPT
    assert not any(PROMPT.encode() in body for body in to.bodies)
