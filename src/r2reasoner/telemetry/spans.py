"""The spans of a query: the query, its plan, its allocation, its subtasks, its calls.

Names are those of OpenTelemetry's conventions for generative AI where they have one, else `r2.*`.
No word of a query, plan, answer or error stands in them, unless content is asked for.
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, Self
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from r2reasoner.pool.cards import Card, Pool
from r2reasoner.telemetry.told import (
    AGENT,
    Attributes,
    Phase,
    Told,
    error_of,
    loose_calls,
    phases,
)
from r2reasoner.types import Call, CallOutcome, Message, Pico, Usage, to_dollars

LOG: Final = logging.getLogger("r2reasoner.telemetry")
CLOSE_S: Final = 5.0
"""How long the end of the process may wait for a collector that does not answer."""

PROVIDERS: Final = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "api.anthropic.com": "anthropic",
    "amazonaws.com": "aws.bedrock",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}
"""The conventions' names of providers by the end of their hosts; others go by their endpoint's."""


class Spans:
    """Makes spans of queries that have ended. Nothing it does fails or waits, but `close`."""

    def __init__(
        self,
        provider: TracerProvider,
        pool: Pool,
        *,
        content: bool = False,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._tracer = provider.get_tracer(AGENT, version(AGENT))
        self._propagator = TraceContextTextMapPropagator()
        self._pool = pool.name
        cards = (*pool.workers, *pool.policies.values())
        self._models = {card.name: (_kind(card), _of_model(card)) for card in cards}
        self._content = content
        self._close = close
        self._failed = False

    @classmethod
    def to_collector(cls, pool: Pool, *, content: bool = False) -> Self:
        """Return one that sends to the collector of OpenTelemetry's environment variables.

        They also set the sampler, the batches, and what is said of this service.
        """
        # `_Exporter` says it once; they say it for each batch
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        ours = Resource({SERVICE_NAME: AGENT, SERVICE_VERSION: version(AGENT)})
        resource = Resource.create().merge(ours).merge(OTELResourceDetector().detect())
        provider = SdkTracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_Exporter(OTLPSpanExporter())))
        return cls(provider, pool, content=content, close=provider.shutdown)

    def record(self, told: Told, headers: Mapping[str, str] | None = None) -> str | None:
        """Make a query's spans, and return OpenTelemetry's id of its trace.

        `headers` may have the `traceparent` and `tracestate` of who asked, whose trace goes on.
        """
        try:
            return self._record(told, headers or {})
        except Exception as error:
            if not self._failed:
                LOG.error("the spans of a query were not made: %s", type(error).__name__)
            self._failed = True
            return None

    def close(self) -> None:
        """Send what waits, for at most `CLOSE_S` seconds."""
        closing = threading.Thread(target=self._close, name="r2-spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def _record(self, told: Told, headers: Mapping[str, str]) -> str:
        kind = SpanKind.SERVER if told.served else SpanKind.INTERNAL
        root = self._tracer.start_span(
            f"invoke_agent {AGENT}",
            self._propagator.extract(headers, Context()),
            kind,
            _known(self._of_query(told)),
            start_time=_ns(told.started_at),
        )
        if root.is_recording():
            within = set_span_in_context(root, Context())
            for phase in phases(told):
                self._phase(phase, within)
            for call in loose_calls(told):
                self._call(call, within)
            _end(root, told.ended_at, told.error)
        return f"{root.get_span_context().trace_id:032x}"

    def _phase(self, phase: Phase, within: Context) -> None:
        asked = [] if phase.prompt is None else [Message("user", phase.prompt)]
        attributes = {**phase.attributes, **self._texts(asked, phase.answer)}
        span = self._tracer.start_span(
            phase.name, within, attributes=_known(attributes), start_time=_ns(phase.started_at)
        )
        for at, old, new in phase.fell_back:
            span.add_event("r2.fell_back", {"r2.from_model": old, "r2.to_model": new}, _ns(at))
        inner = set_span_in_context(span, Context())
        for call in phase.calls:
            self._call(call, inner)
        _end(span, phase.ended_at, phase.error)

    def _call(self, call: Call, within: Context) -> None:
        kind, model = self._models.get(call.model, (SpanKind.CLIENT, {}))
        span = self._tracer.start_span(
            f"chat {model.get('gen_ai.request.model', call.model)}",
            within,
            kind,
            _known({**model, **_of_call(call)}),
            start_time=_ns(call.started_at),
        )
        _end(span, call.started_at + call.latency_s, error_of(call))

    def _of_query(self, told: Told) -> Attributes:
        usage = sum((call.usage for call in told.calls), Usage())
        costs = [call.cost for call in told.calls]
        known = [cost for cost in costs if cost is not None]
        return {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": AGENT,
            "gen_ai.agent.name": AGENT,
            "gen_ai.request.model": told.model,
            "r2.trace_id": told.trace_id,
            "r2.pool": self._pool,
            "r2.calls": len(told.calls),
            "r2.input_tokens": usage.input_tokens,
            "r2.output_tokens": usage.output_tokens,
            "r2.cost_dollars": _dollars(sum(known)) if len(known) == len(costs) else None,
            **told.attributes,
            **self._texts(told.messages, told.answer),
        }

    def _texts(self, asked: Sequence[Message], answer: str | None) -> Attributes:
        """Return what was asked and answered, where content is asked for."""
        if not self._content:
            return {}
        said = [] if answer is None else [Message("assistant", answer)]
        return {
            "gen_ai.input.messages": _messages(asked) if asked else None,
            "gen_ai.output.messages": _messages(said) if said else None,
        }


class _Exporter(SpanExporter):
    """Passes batches on, and says once when they begin to fail, and once when they arrive again."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Pass a batch on."""
        result = self._inner.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            LOG.warning("the collector takes no spans; until it does, they are dropped")
        elif self._failing and not failing:
            LOG.warning("the collector takes spans again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        """Close what is within."""
        self._inner.shutdown()


def _kind(card: Card) -> SpanKind:
    return SpanKind.INTERNAL if card.endpoint.kind == "embedded" else SpanKind.CLIENT


def _of_model(card: Card) -> dict[str, Any]:
    """Return what every call to a model has in common."""
    endpoint = card.endpoint
    place = urlsplit(endpoint.base_url)
    host = place.hostname
    provider = next((n for end, n in PROVIDERS.items() if host and host.endswith(end)), None)
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider or endpoint.name,
        "gen_ai.request.model": card.model,
        "server.address": host,
        "server.port": host and (place.port or (443 if place.scheme == "https" else 80)),
    }


def _of_call(call: Call) -> Attributes:
    answered = call.outcome is CallOutcome.OK
    usage = call.usage
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens if answered else None,
        "gen_ai.usage.output_tokens": usage.output_tokens if answered else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens or None,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens or None,
        "gen_ai.response.finish_reasons": _reasons(call),
        "gen_ai.response.time_to_first_chunk": call.ttft_s,
        "r2.call_id": call.id,
        "r2.model": call.model,
        "r2.role": call.role.value,
        "r2.subtask": call.subtask,
        "r2.attempt": call.attempt,
        "r2.outcome": call.outcome.value,
        "r2.cost_dollars": _dollars(call.cost),
    }


def _reasons(call: Call) -> list[str] | None:
    """Return why a model ended, in the provider's word if it is a word."""
    reason = call.finish_reason
    if reason is None:
        return None
    return [reason if re.fullmatch("[a-z_]{1,32}", reason) else "other"]


def _messages(messages: Sequence[Message]) -> str:
    """Return messages as the conventions write them."""
    return json.dumps(
        [
            {
                "role": message.role,
                "parts": [{"type": "text", "content": message.content}],
                **({"finish_reason": "stop"} if message.role == "assistant" else {}),
            }
            for message in messages
        ]
    )


def _end(span: Span, at: float, error: str | None) -> None:
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)
    span.end(_ns(at))


def _known(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _dollars(pico: Pico | None) -> float | None:
    return None if pico is None else float(to_dollars(pico))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
