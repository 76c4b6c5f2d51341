"""Requests that are being answered: their events so far, for who watches them.

A request leaves here when it ends; from then on its trace in the ledger says the same.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

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
from r2reasoner.telemetry.told import Timed


class Running:
    """One request in flight. `key_id` says whose it is.

    `events` are what happened, each with its moment (seconds since 1970), as is `begun_at`.
    """

    def __init__(self, key_id: str | None) -> None:
        self.key_id = key_id
        self.begun_at = time.time()
        self.events: list[Timed] = []
        self._ended = False
        self._changed = asyncio.Event()

    def tell(self, event: Event) -> None:
        """Note what happened."""
        self.events.append((time.time(), event))
        self._wake()

    def end(self) -> None:
        """Say that nothing more will come."""
        self._ended = True
        self._wake()

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what happened and what happens, until it ends."""
        seen = 0
        while True:
            changed = self._changed
            while seen < len(self.events):
                seen += 1
                yield as_object(self.events[seen - 1][1])
            if self._ended:
                return
            await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Live:
    """All requests in flight, by trace id."""

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}

    def start(self, trace_id: str, key_id: str | None) -> Running:
        """Begin to keep a request's events."""
        running = self._running[trace_id] = Running(key_id)
        return running

    def end(self, trace_id: str) -> None:
        """Let go of a request."""
        running = self._running.pop(trace_id, None)
        if running is not None:
            running.end()

    def get(self, trace_id: str) -> Running | None:
        """Return a request in flight."""
        return self._running.get(trace_id)


_NAMES = {
    Planned: "planned",
    Allocated: "allocated",
    SubtaskStarted: "subtask_started",
    SubtaskFinished: "subtask_finished",
    SubtaskFailed: "subtask_failed",
    FellBack: "fell_back",
    Answered: "answered",
}


def as_object(event: Event) -> dict[str, Any]:
    """Return an event as JSON has it, its name as `type`."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(event), default=str))
    return {"type": _NAMES[type(event)], **plain}


def as_line(event: Event) -> str | None:
    """Return what a chat front end shows of an event as progress; None for nothing."""
    match event:
        case Planned(plan=plan, failed=failed):
            if failed or plan.is_direct:
                return "Answering directly.\n"
            steps = "\n".join(f"{n}. {s.text}" for n, s in enumerate(plan.subtasks, 1))
            return f"Plan:\n{steps}\n\n"
        case Allocated(allocation=allocation):
            given = [f"{n} → {c.model}" for n, c in enumerate(allocation.choices, 1) if c]
            return f"Models: {', '.join(given)}\n"
        case SubtaskFinished(step=step):
            return f"Step {step.subtask} ({step.model}): {step.answer}\n"
        case SubtaskFailed(step=step):
            return f"Step {step.subtask} failed.\n"
        case FellBack(subtask=subtask, from_model=old, to_model=new):
            return f"Step {subtask}: {old} gave no answer, asking {new}.\n"
        case _:
            return None
