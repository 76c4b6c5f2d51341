"""What Prometheus reads: requests, time, tokens, money, errors, what is in flight and waits.

No prompts, no keys: each label has few values, known beforehand.
"""

from typing import Final, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from r2reasoner import __version__
from r2reasoner.types import Call, CallOutcome, to_dollars

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class _OfModel(NamedTuple):
    """The figures of one model's calls."""

    seconds: Histogram
    first_text: Histogram
    input_tokens: Counter
    output_tokens: Counter
    dollars: Counter


class Metrics:
    """The figures of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._models: dict[str, _OfModel] = {}
        self.requests = Counter(
            "r2_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "r2_request_seconds",
            "Time to the end of an answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_text = Histogram(
            "r2_time_to_first_token_seconds",
            "Time to the first text of an answer that is streamed.",
            ("way",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.answers = Counter(
            "r2_answers",
            "Requests for an answer, by who answered and how whole the answer was.",
            ("way", "status"),
            registry=self.registry,
        )
        self.errors = Counter(
            "r2_errors", "Errors that clients were told.", ("code",), registry=self.registry
        )
        self.in_flight = Gauge("r2_in_flight", "Requests being answered.", registry=self.registry)
        self.calls = Counter(
            "r2_calls", "Calls to models.", ("model", "role", "outcome"), registry=self.registry
        )
        self.call_seconds = Histogram(
            "r2_call_seconds",
            "Time to the end of a call.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.call_first_text = Histogram(
            "r2_call_time_to_first_token_seconds",
            "Time to a call's first text.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.fallbacks = Counter(
            "r2_fallbacks",
            "Subtasks given to another model because this one gave no answer.",
            ("model",),
            registry=self.registry,
        )
        self.tokens = Counter(
            "r2_tokens", "Tokens billed.", ("model", "direction"), registry=self.registry
        )
        self.dollars = Counter(
            "r2_cost_dollars", "Money billed.", ("model",), registry=self.registry
        )
        self.answered_dollars = Counter(
            "r2_answered_cost_dollars",
            "Cost of answers that can be compared with the strongest model.",
            registry=self.registry,
        )
        self.alone_dollars = Counter(
            "r2_strongest_alone_dollars",
            "What the strongest model alone would have cost for these answers: an estimate.",
            registry=self.registry,
        )
        self.cache_hits = Counter(
            "r2_cache_hits", "Answers given from the cache.", registry=self.registry
        )
        self.shadow_dollars = Counter(
            "r2_shadow_dollars",
            "Cost of the requests that were also routed in the background, by way.",
            ("way",),
            registry=self.registry,
        )
        self.breaker_open = Gauge(
            "r2_breaker_open",
            "1 while an endpoint is left alone.",
            ("endpoint",),
            registry=self.registry,
        )
        self.ledger_waiting = Gauge(
            "r2_ledger_waiting",
            "Writes that wait for the ledger's thread, or for another try.",
            registry=self.registry,
        )
        Info("r2_build", "What runs.", registry=self.registry).info({"version": __version__})
        ProcessCollector(registry=self.registry)

    def count(self, calls: tuple[Call, ...]) -> None:
        """Count the calls of one request."""
        for call in calls:
            self.calls.labels(call.model, call.role.value, call.outcome.value).inc()
            of = self._of(call.model)
            of.seconds.observe(call.latency_s)
            if call.ttft_s is not None:
                of.first_text.observe(call.ttft_s)
            if call.outcome is CallOutcome.FAILED:
                continue
            of.input_tokens.inc(call.usage.input_tokens)
            of.output_tokens.inc(call.usage.output_tokens)
            of.dollars.inc(float(to_dollars(call.cost or 0)))

    def _of(self, model: str) -> "_OfModel":
        found = self._models.get(model)
        if found is None:  # looked up once: finding a label costs more than counting
            found = self._models[model] = _OfModel(
                self.call_seconds.labels(model),
                self.call_first_text.labels(model),
                self.tokens.labels(model, "input"),
                self.tokens.labels(model, "output"),
                self.dollars.labels(model),
            )
        return found

    def text(self) -> bytes:
        """Return the figures as Prometheus reads them."""
        return generate_latest(self.registry)
