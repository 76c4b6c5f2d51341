"""Answers as OpenAI has them: completions, chunks, usage over all calls, and our `r2` block."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r2reasoner.bill import cache_saved
from r2reasoner.chat import envelope, event, usage_object
from r2reasoner.gateway.parts import Done
from r2reasoner.pool.cards import Pool
from r2reasoner.types import Call, Pico, Plan, Trace, Usage, to_dollars


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the answer to one request, in either of OpenAI's two forms."""

    trace_id: str
    model: str
    pool: Pool
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, done: Done) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        return {
            **self._head("chat.completion"),
            "choices": done.choices,
            "usage": full_usage(done.usage),
            "r2": r2_block(done, self.pool),
        }

    def chunk(self, choices: list[dict[str, Any]], more: Mapping[str, Any] | None = None) -> bytes:
        """Return one chunk as an event."""
        head = self._head("chat.completion.chunk")
        return event({**head, "choices": choices, **(more or {})})

    def delta(self, delta: Mapping[str, Any]) -> bytes:
        """Return a chunk with one choice."""
        return self.chunk([choice_of(delta=delta)])

    def _head(self, kind: str) -> dict[str, Any]:
        return envelope(kind, f"chatcmpl-{self.trace_id}", self.created, self.model)


def choice_of(
    *, delta: Mapping[str, Any] | None = None, finish_reason: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return the one choice of a chunk or, with `message`, of a completion."""
    inner = more if delta is None else {"delta": dict(delta), **more}
    return {"index": 0, **inner, "finish_reason": finish_reason, "logprobs": None}


def full_usage(usage: Usage) -> dict[str, Any]:
    """Return a usage with its details."""
    return usage_object(usage) | {
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def dollars(pico: Pico | None) -> str | None:
    """Return an amount in dollars as an exact decimal; None for an unknown one."""
    return None if pico is None else f"{to_dollars(pico):f}"


def r2_block(done: Done, pool: Pool) -> dict[str, Any]:
    """Return how an answer was made and what it cost. Money is dollars, as exact decimals."""
    trace = done.trace
    saved = None
    if done.cost is not None and done.alone is not None:
        saved = dollars(done.alone - done.cost)
    return {
        "trace_id": trace.id,
        "status": trace.answer.status.value,
        "note": trace.answer.note,
        "pool": trace.pool,
        "trade_off": trace.trade_off,
        "plan": _plan(trace.plan, trace),
        "allocator": trace.allocation.allocator,
        "calls": [_call(call) for call in trace.calls],
        "cost": dollars(done.cost),
        "strongest": pool.strongest.name,
        "strongest_alone_estimate": dollars(done.alone),
        "saved_estimate": saved,
        "cache_saved": dollars(cache_saved(trace.calls, pool)),
        "wall_s": round(trace.wall_s, 3),
        **done.notes,
    }


def _plan(plan: Plan, trace: Trace) -> dict[str, Any]:
    steps = {step.subtask: step for step in trace.steps}
    subtasks = []
    for number, (subtask, choice) in enumerate(
        zip(plan.subtasks, trace.allocation.choices, strict=True), 1
    ):
        step = steps.get(number)
        subtasks.append(
            {
                "text": subtask.text,
                "needs": list(subtask.dependencies),
                "needs_conversation": subtask.needs_conversation,
                "model": None if step is None else step.model,
                "allocated": None if choice is None else choice.model,
                "why": None if choice is None else choice.reason,
                "fell_back_from": [] if step is None else list(step.fell_back_from),
            }
        )
    return {
        "subtasks": subtasks,
        "answer": plan.answer,
        "notes": list(trace.plan_notes),
        "failed": trace.plan_failed,
    }


def _call(call: Call) -> dict[str, Any]:
    return {
        "role": call.role.value,
        "model": call.model,
        "subtask": call.subtask,
        "attempt": call.attempt,
        "outcome": call.outcome.value,
        "input_tokens": call.usage.input_tokens,
        "cached_tokens": call.usage.cached_tokens,
        "output_tokens": call.usage.output_tokens,
        "cost": dollars(call.cost),
        "latency_s": round(call.latency_s, 3),
    }
