"""Who takes part in a trial."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.gateway.trial import MOST_SHADOWS, Trial
from r2reasoner.gateway.wire import Asked, read_asked


def asked(*said: str, **more: Any) -> Asked:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    return read_asked(json.dumps({"model": "m", "messages": messages} | more).encode())


@given(first=st.text(min_size=1), share=st.floats(0, 1))
def test_a_conversation_stays_on_its_side(first: str, share: float) -> None:
    trial = Trial(share, share)
    later = asked(first, "yes", "and then")
    assert trial.is_canary(asked(first), "me") == trial.is_canary(later, "me")
    assert trial.is_shadowed(asked(first), "me") == trial.is_shadowed(later, "me")


def test_the_share_is_about_what_was_said() -> None:
    trial = Trial(0.0, 0.25)
    drawn = sum(trial.is_canary(asked(f"question {n}"), "me") for n in range(2000))
    assert 400 < drawn < 600
    assert not any(trial.is_shadowed(asked(f"question {n}"), "me") for n in range(200))


def test_what_needs_one_model_takes_no_part() -> None:
    image = asked("a", response_format={"type": "json_object"})
    assert not Trial(1.0, 1.0).is_canary(image, "me")
    assert not Trial(1.0, 1.0).is_shadowed(image, "me")


async def test_shadows_are_few_and_end_with_it() -> None:
    trial = Trial(1.0, 0.0)
    ended = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(1)

    for _ in range(MOST_SHADOWS):
        assert trial.is_shadowed(asked("a"), "me")
        trial.run(work())
    assert not trial.is_shadowed(asked("a"), "me")
    await asyncio.sleep(0)
    await trial.aclose()
    assert len(ended) == MOST_SHADOWS
