"""Requests in flight, and who follows them."""

import asyncio

from pools import plan_of
from r2reasoner.events import Answered, FellBack, Planned, SubtaskFinished
from r2reasoner.gateway.live import Live, as_line, as_object
from r2reasoner.plan import direct
from r2reasoner.types import Answer, AnswerStatus, Step

PLANNED = Planned(plan_of("a", "b #1"), (), failed=False)
STEP = Step(1, "small", "a", "x", None, 0.0, 1.0)
ANSWERED = Answered(Answer("x", AnswerStatus.COMPLETE))


async def test_who_comes_late_hears_all_and_everybody_hears_the_end() -> None:
    live = Live()
    running = live.start("t", "key")

    async def follow() -> list[str]:
        return [event["type"] async for event in running.follow()]

    early = asyncio.create_task(follow())
    running.tell(PLANNED)
    await asyncio.sleep(0)
    late = asyncio.create_task(follow())
    running.tell(SubtaskFinished(STEP))
    assert live.get("t") is running
    await asyncio.sleep(0)
    running.tell(ANSWERED)
    live.end("t")
    wanted = ["planned", "subtask_finished", "answered"]
    assert await early == await late == wanted
    assert live.get("t") is None
    live.end("t")


def test_events_as_json() -> None:
    told = as_object(PLANNED)
    assert told["type"] == "planned"
    assert [s["text"] for s in told["plan"]["subtasks"]] == ["a", "b #1"]


def test_events_as_lines() -> None:
    assert as_line(PLANNED) == "Plan:\n1. a\n2. b #1\n\n"
    assert as_line(Planned(direct("a"), (), failed=False)) == "Answering directly.\n"
    assert as_line(SubtaskFinished(STEP)) == "Step 1 (small): x\n"
    assert "asking b" in str(as_line(FellBack(1, "a", "b", "down")))
    assert as_line(ANSWERED) is None
