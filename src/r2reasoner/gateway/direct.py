"""A request answered by one model: passed on whole, and streamed as it comes.

Candidates are asked one after the other while nothing has reached the client; after that a failure
is the end. A model in process gets the conversation's text, like any subtask.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from r2reasoner.budget import Meter
from r2reasoner.chat import cut_at
from r2reasoner.client import ChatRequest, Completion, Relayed
from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    DeadlineExceeded,
    LedgerError,
    R2Error,
    UnknownWords,
)
from r2reasoner.events import FellBack, SubtaskFinished, SubtaskStarted
from r2reasoner.gateway.answers import choice_of
from r2reasoner.gateway.gateway import Gateway
from r2reasoner.gateway.gathered import Gathered
from r2reasoner.gateway.live import Running, as_line
from r2reasoner.gateway.parts import Delta, Done, Part, Progress
from r2reasoner.gateway.routing import Direct
from r2reasoner.gateway.wire import Asked
from r2reasoner.plan import direct as direct_plan
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.types import (
    Allocation,
    Answer,
    AnswerStatus,
    Choice,
    Message,
    Pico,
    Query,
    Role,
    Step,
    Trace,
    Usage,
)

NO_TEXT = "an answer without text"
BROKEN_OFF = "broken off: the client left, or the gateway ended"


@dataclass(slots=True)
class _Run:
    """One request on its way."""

    gateway: Gateway
    asked: Asked
    way: Direct
    query_id: str
    meter: Meter
    running: Running
    started: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    failed: list[str] = field(default_factory=list)
    reached: bool = False
    choices: list[dict[str, Any]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    by: str | None = None
    is_told: bool = False

    @property
    def deadline(self) -> float:
        return self.started + self.way.settings.deadline_s

    def trace(self, answer: Answer, error: str | None) -> Trace:
        """Return the trace of what happened, and keep it."""
        plan = direct_plan(self.asked.text or NO_TEXT)
        now = time.monotonic() - self.started
        said = None if error else answer.text
        step = Step(1, self.by, plan.subtasks[0].text, said, error, 0.0, now, tuple(self.failed))
        choice = Choice(self.way.candidates[0].name, self.way.reason)
        trace = Trace(
            id=self.query_id,
            query=Query(self.asked.text, self.query_id, self.asked.earlier, self.way.conversation),
            pool=self.gateway.pool.name,
            trade_off=self.way.settings.trade_off,
            plan=plan,
            plan_notes=(self.way.reason,),
            plan_failed=False,
            allocation=Allocation((choice,), "gateway", calibrated=False),
            steps=(step,),
            answer=answer,
            calls=tuple(self.meter.calls),
            started_at=self.started_at,
            wall_s=now,
            settings={"deadline_s": self.way.settings.deadline_s},
        )
        self.gateway.ledger.save_trace(trace)
        self.is_told = True
        return trace

    def end(self, answer: Answer, error: str | None = None) -> Trace:
        """As `trace`, and tell who watches."""
        trace = self.trace(answer, error)
        self.running.tell(SubtaskFinished(trace.steps[0]))
        return trace

    def break_off(self) -> None:
        """Keep a trace of what came before nobody waited for the rest."""
        if self.is_told:
            return
        text = "".join(self.text)
        status = AnswerStatus.PARTIAL if text else AnswerStatus.FAILED
        with suppress(LedgerError):  # closed: what was dispatched stands in it as unknown
            self.trace(Answer(text, status, BROKEN_OFF), BROKEN_OFF)


async def answer(
    gateway: Gateway, asked: Asked, way: Direct, query_id: str, meter: Meter, running: Running
) -> AsyncGenerator[Part, None]:
    """Yield the answer as it comes. Raises R2Error where there is none."""
    run = _Run(gateway, asked, way, query_id, meter, running)
    error: R2Error | None = None
    try:
        for card in way.candidates:
            if error is not None:
                fell = FellBack(1, run.failed[-1], card.name, str(error))
                running.tell(fell)
                yield Progress(as_line(fell) or "")
            running.tell(SubtaskStarted(1, card.name, asked.text))
            try:
                async with aclosing(_ask(run, card)) as parts:
                    async for part in parts:
                        run.reached = True
                        yield part
                return
            except (BudgetExceeded, CallError, UnknownWords) as failure:
                error = failure
                run.failed.append(card.name)
                if run.reached:
                    break
            except DeadlineExceeded as late:
                error = late
                break
    except (asyncio.CancelledError, GeneratorExit):
        run.break_off()
        raise
    assert error is not None
    run.end(Answer("".join(run.text), AnswerStatus.FAILED, str(error)), str(error))
    raise error


async def _ask(run: _Run, card: Card) -> AsyncGenerator[Part, None]:
    if card.endpoint.kind == "embedded":
        async for part in _in_process(run, card):
            yield part
        return
    asked = run.asked
    relayed = Relayed(
        fields=asked.forward,
        max_tokens=min(asked.max_tokens or card.max_tokens, card.context),
        choices=asked.choices,
        note=run.way.reason,
        cache_key=run.way.conversation,
    )
    client = run.gateway.client
    if not asked.stream:
        body, completion = await client.pass_on(card, relayed, run.meter, run.deadline)
        run.by, run.text, run.choices = card.name, [completion.text], body["choices"]
        yield _done(run, completion.usage)
        return
    gathered = Gathered()
    async with aclosing(client.relay(card, relayed, run.meter, run.deadline)) as answer:
        async for piece in answer:
            if isinstance(piece, Completion):
                run.by, run.choices = card.name, gathered.whole()
                yield _done(run, piece.usage)
            elif choices := piece.get("choices"):
                run.text.append(_text_of(choices))
                gathered.take(choices)
                yield Delta(choices)


async def _in_process(run: _Run, card: Card) -> AsyncGenerator[Part, None]:
    asked = run.asked
    request = ChatRequest(
        messages=(*asked.earlier, Message("user", asked.text)),
        max_tokens=min(asked.max_tokens or card.max_tokens, card.context),
        role=Role.WORKER,
        subtask=1,
        temperature=run.way.settings.temperature,
        stop=asked.stop,
        note=run.way.reason,
    )
    completion = await run.gateway.client.complete(card, request, run.meter, run.deadline)
    text, stopped = cut_at(completion.text, asked.stop)
    finish = "stop" if stopped else completion.finish_reason
    run.by, run.text = card.name, [text]
    message = {"role": "assistant", "content": text, "refusal": None}
    run.choices = [choice_of(message=message, finish_reason=finish)]
    if asked.stream:
        yield Delta([choice_of(delta={"role": "assistant", "content": text})])
        yield Delta([choice_of(delta={}, finish_reason=finish)])
    yield _done(run, completion.usage)


def _done(run: _Run, usage: Usage) -> Done:
    text = "".join(run.text) or _calls_of(run.choices)
    trace = run.end(Answer(text, AnswerStatus.COMPLETE))
    run.way.note(trace)
    return Done(
        trace=trace,
        choices=run.choices,
        finish=[],
        usage=sum((call.usage for call in trace.calls), Usage()),
        cost=trace.cost(),
        alone=_alone(run.gateway.pool, usage),
        notes={},
    )


def _alone(pool: Pool, usage: Usage) -> Pico | None:
    """Return what the strongest model would have cost for as many tokens."""
    price = pool.strongest.price
    return None if price is None else price.cost(usage)


def _text_of(choices: list[dict[str, Any]]) -> str:
    """Return what a chunk adds to the first choice."""
    first = next((choice for choice in choices if not choice.get("index")), {})
    content = (first.get("delta") or {}).get("content")
    return content if isinstance(content, str) else ""


def _calls_of(choices: list[dict[str, Any]]) -> str:
    """Return the tool calls of an answer as JSON, which is all it says."""
    message = choices[0].get("message") or {} if choices else {}
    calls = message.get("tool_calls")
    return json.dumps(calls) if calls else ""
