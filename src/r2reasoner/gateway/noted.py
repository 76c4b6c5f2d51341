"""What is noted of a request while it is answered: for its log line, the figures, its spans.

Nothing here changes an answer. What is noted is told when the request has ended.
"""

import time
from dataclasses import dataclass, replace
from typing import Any, Final

from r2reasoner.budget import Meter
from r2reasoner.chat import Refusal
from r2reasoner.errors import R2Error
from r2reasoner.events import FellBack
from r2reasoner.gateway.errors import refusal_of
from r2reasoner.gateway.live import Running
from r2reasoner.gateway.metrics import Metrics
from r2reasoner.gateway.parts import Delta, Done, Part
from r2reasoner.gateway.routing import ROUTER, Routed, Way
from r2reasoner.gateway.wire import Asked
from r2reasoner.telemetry.told import CANCELLED, Attributes, Told
from r2reasoner.types import Message, Pico, to_dollars

BROKEN: Final = "internal_error"
TOLD: Final = ("key", "stream", "cached", "canary")
"""What the log and the spans both tell."""


@dataclass(slots=True)
class Work:
    """What is done for one request. `error` names what it ended with; until it ends: cancelled.

    `status`, `cost` and `alone` are those of an answer, `text_at` is when its first text came
    (monotonic seconds).
    """

    asked: Asked
    way: Way
    meter: Meter
    running: Running
    error: str | None = CANCELLED
    status: str | None = None
    cost: Pico | None = None
    alone: Pico | None = None
    text_at: float | None = None

    @property
    def kind(self) -> str:
        """Who answers: models by a plan, or one."""
        return "routed" if isinstance(self.way, Routed) else "direct"

    def saw(self, part: Part) -> None:
        """Note a part of the answer."""
        match part:
            case Delta() if self.text_at is None and _says_something(part):
                self.text_at = time.monotonic()
            case Done():
                self.error, self.status = None, part.trace.answer.status.value
                self.cost, self.alone = part.cost, part.alone

    def failed(self, error: Exception) -> str:
        """Note why there is no answer; return its name."""
        self.error = code_of(error)
        return self.error

    def count(self, metrics: Metrics) -> None:
        """Count what was done, whatever for."""
        metrics.count(tuple(self.meter.calls))
        for _, event in self.running.events:
            if isinstance(event, FellBack):
                metrics.fallbacks.labels(event.from_model).inc()

    def count_answer(self, metrics: Metrics, began: float) -> None:
        """Count the answer to a client that began to ask at a moment (monotonic seconds)."""
        broken = CANCELLED if self.error == CANCELLED else "failed"
        metrics.answers.labels(self.kind, self.status or broken).inc()
        if self.asked.stream and self.text_at is not None:
            metrics.first_text.labels(self.kind).observe(self.text_at - began)
        if self.cost is not None and self.alone is not None:
            metrics.answered_dollars.inc(float(to_dollars(self.cost)))
            metrics.alone_dollars.inc(float(to_dollars(self.alone)))

    def tell(self, told: Told) -> Told:
        """Add to what is told of a request what was done for it."""
        saved = None if self.cost is None or self.alone is None else self.alone - self.cost
        return replace(
            told,
            begun_at=self.running.begun_at,
            events=self.running.events,
            calls=tuple(self.meter.calls),
            error=told.error or self.error,
            messages=(*self.asked.earlier, Message("user", self.asked.text)),
            attributes={
                "r2.way": self.kind,
                "r2.trade_off": self.way.settings.trade_off,
                "r2.status": self.status,
                "r2.alone_dollars": _dollars(self.alone),
                "r2.saved_dollars": _dollars(saved),
                **told.attributes,
            },
        )

    def told_in_background(self, trace_id: str, shadow_of: str) -> Told:
        """Return what is told of work that repeated a request which was answered otherwise."""
        return self.tell(
            Told(
                trace_id=trace_id,
                model=ROUTER,
                started_at=self.running.begun_at,
                ended_at=time.time(),
                attributes={"r2.shadow_of": shadow_of},
            )
        )


class Notes(dict[str, Any]):
    """What the log tells of a request. `work` is what was done for it, once that has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.at = time.time()
        self.began = time.monotonic()
        self.work: Work | None = None

    def tell(self, seconds: float, more: Attributes) -> Told | None:
        """Return what is told of a request that took so long; None of one that asked no model."""
        if "trace" not in self:
            return None
        told = Told(
            trace_id=self["trace"],
            model=self["model"],
            started_at=self.at,
            ended_at=self.at + seconds,
            error=self.get("error"),
            served=True,
            attributes={f"r2.{name}": self.get(name) for name in TOLD} | {**more},
        )
        return told if self.work is None else self.work.tell(told)


def code_of(error: Exception) -> str:
    """Return the name of an error, one of few."""
    if not isinstance(error, R2Error | Refusal):
        return BROKEN
    refusal = refusal_of(error)
    return refusal.code or f"http_{refusal.status}"


def _dollars(pico: Pico | None) -> float | None:
    return None if pico is None else float(to_dollars(pico))


def _says_something(part: Delta) -> bool:
    deltas = [choice.get("delta") or {} for choice in part.choices]
    return any(value for delta in deltas for name, value in delta.items() if name != "role")
