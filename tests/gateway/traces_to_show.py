"""Traces for the dashboard's tests: a plan with everything in it, and one of hostile texts."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from ledger_samples import closing, entry
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.pool.cards import Card, Endpoint, Pool, Price
from r2reasoner.types import (
    Allocation,
    Answer,
    AnswerStatus,
    Call,
    CallOutcome,
    Choice,
    Message,
    Plan,
    Query,
    Role,
    Step,
    Subtask,
    Trace,
    Usage,
)

MOST = Usage(500, 500)
RATES = {"planner": "2", "small": "1", "medium": "10", "large": "100"}
HOSTILE = (
    "</pre></svg></title><script>window.hit=1</script><img src=x onerror=window.hit=1>"
    "\" onfocus='window.hit=1' autofocus x=\" {{ 7*7 }} {% raw %} javascript:alert(1) &amp;"
    " \u202egnp.exe"
)


def card(name: str) -> Card:
    rate = Decimal(RATES.get(name, "5"))
    where = Endpoint(name="shop", kind="openai", base_url="http://127.0.0.1:9/v1")
    return Card(name=name, endpoint=where, model=name, price=Price(rate, rate))


def pool(*names: str, planner: str = "planner") -> Pool:
    names = names or ("small", "medium", "large")
    return Pool(
        name="shop",
        workers=tuple(map(card, names)),
        policies={"planner": card(planner)},
        decomposer=planner,
        allocator="ladder",
    )


def _call(
    role: Role,
    model: str,
    begun: float,
    took: float,
    subtask: int | None = None,
    outcome: CallOutcome = CallOutcome.OK,
    attempt: int = 1,
    tokens: tuple[int, int] = (120, 40),
    error: str | None = None,
) -> Call:
    usage = Usage() if outcome is CallOutcome.FAILED else Usage(*tokens)
    price = card(model).price
    assert price is not None
    opened = entry(
        role=role,
        model=model,
        subtask=subtask,
        attempt=attempt,
        bound=price.cost(MOST),
        started_at=begun,
    )
    return closing(
        opened,
        outcome=outcome,
        usage=usage,
        cost=price.cost(usage),
        latency_s=took,
        ttft_s=took / 3,
        finish_reason=None if error else "stop",
        error=error,
    )


def rich(text: str = "Compare three cities", at: float | None = None) -> Trace:
    """Eight subtasks in four layers, a long line, a join, a failed call and a fall-back."""
    at = time.time() - 60 if at is None else at
    subtasks = (
        Subtask("population of Lyon"),
        Subtask("population of Turin"),
        Subtask("population of Basel"),
        Subtask("the larger of #1 and #2"),
        Subtask("#2 divided by #3"),
        Subtask("#1 #2 #3"),
        Subtask("a sentence that compares #4 with #5"),
        Subtask("put #7 into French, with the figures #6", (1,)),
    )
    models = ["small", "small", "medium", "medium", "small", None, "medium", "large"]
    begun = [0.9, 0.9, 0.92, 1.9, 2.4, 2.41, 3.2, 4.0]
    ended = [1.6, 1.8, 2.4, 2.9, 3.1, 2.41, 3.9, 5.2]
    calls = [_call(Role.DECOMPOSER, "planner", at + 0.05, 0.7, tokens=(300, 150))]
    calls += [_call(Role.ALLOCATOR, "planner", at + 0.76, 0.1, tokens=(90, 8))]
    for number, (model, start, end) in enumerate(zip(models, begun, ended, strict=True), 1):
        if model is None:
            continue
        role = Role.FINAL if number == 8 else Role.WORKER
        if number == 3:
            failed = "503: overloaded, try again"
            calls.append(_call(role, "small", at + 0.93, 0.5, 3, CallOutcome.FAILED, error=failed))
            start += 0.52
        calls.append(_call(role, model, at + start + 0.02, end - start - 0.04, number))
    steps = tuple(
        Step(n, m, s.text, f"answer {n}", None, b, e, ("small",) if n == 3 else ())
        for n, (m, s, b, e) in enumerate(zip(models, subtasks, begun, ended, strict=True), 1)
    )
    choices = tuple(
        None if m is None else Choice(m, f"{m} is right 93% of the time at 10% of the top price")
        for m in models
    )
    identifier = f"{int(at * 1e6):013x}{new_id()[13:]}"
    return Trace(
        id=identifier,
        query=Query(text, identifier, (Message("user", "I plan a trip."),)),
        pool="shop",
        trade_off=0.3,
        plan=Plan(subtasks, "#8"),
        plan_notes=(),
        plan_failed=False,
        allocation=Allocation(choices, "ladder", calibrated=False),
        steps=steps,
        answer=Answer(
            "Lyon compte environ 520 000 habitants, Turin 850 000, Bâle 180 000. " * 16,
            AnswerStatus.COMPLETE,
        ),
        calls=tuple(calls),
        started_at=at,
        wall_s=5.25,
        settings={"trade_off": 0.3},
    )


def hostile(at: float | None = None) -> Trace:
    """Hostile text in every field that people, models or pool files can fill."""
    trace = rich(HOSTILE, at)
    plan = Plan(
        tuple(replace(s, text=f"{s.text} {HOSTILE}") for s in trace.plan.subtasks[:5]), "#4 #5"
    )
    choices = tuple(Choice(HOSTILE, HOSTILE) for _ in plan.subtasks)
    steps = (
        *(replace(s, prompt=HOSTILE, answer=HOSTILE, model=HOSTILE) for s in trace.steps[:4]),
        replace(trace.steps[4], answer=None, error=HOSTILE, fell_back_from=(HOSTILE,)),
    )
    return replace(
        trace,
        query=replace(trace.query, earlier=(Message("user", HOSTILE),)),
        plan=plan,
        plan_notes=(HOSTILE,),
        plan_failed=True,
        allocation=Allocation(choices, HOSTILE, calibrated=False),
        steps=steps,
        answer=Answer(HOSTILE, AnswerStatus.PARTIAL, HOSTILE),
        calls=tuple(
            replace(c, error=HOSTILE, note=HOSTILE, finish_reason=HOSTILE, model=HOSTILE)
            for c in trace.calls
        ),
        settings={HOSTILE: HOSTILE},
    )


def put(ledger: Ledger, *traces: Trace, other: Callable[[Call], Call] = lambda call: call) -> None:
    """Write traces and their calls as the engine does."""

    async def write() -> None:
        for trace in traces:
            for call in map(other, trace.calls):
                # what sorts by time must be of its time
                identifier = f"{int(call.started_at * 1e6):013x}{call.id[13:]}"
                opened = entry(
                    trace.id,
                    id=identifier,
                    role=call.role,
                    model=call.model,
                    subtask=call.subtask,
                    attempt=call.attempt,
                    bound=call.bound,
                    bound_usage=MOST,
                    price=None,
                    started_at=call.started_at,
                )
                await ledger.begin(opened)
                ledger.finish(replace(call, id=identifier))
            ledger.save_trace(trace)
        await ledger.flush()

    # from a thread, so that tests with an event loop of their own may call it too
    thread = threading.Thread(target=lambda: asyncio.run(write()))
    thread.start()
    thread.join()
