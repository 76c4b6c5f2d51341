"""The fake provider's prompt cache."""

import json
from typing import Any

import openai
import pytest

from r2reasoner.mock import ChatCall, Fault, MockProvider
from r2reasoner.mock.answers import read_call
from r2reasoner.mock.caching import PromptCache
from r2reasoner.types import Usage

WORDS = [f"w{n}" for n in range(3000)]


def call(*texts: str, model: str = "m") -> ChatCall:
    messages = [{"role": "user", "content": text} for text in texts]
    return read_call(json.dumps({"model": model, "messages": messages}).encode(), 1, None)


def words(count: int) -> str:
    return " ".join(WORDS[:count])


@pytest.mark.parametrize(
    ("again", "cached"),
    [
        (words(2000), 1920),
        (words(2500), 1920),
        (words(1500), 1408),
        (words(1020), 1024),  # four tokens stand around it
        (words(1019), 0),
        ("other " + words(1999), 0),
        (f"{words(1500)} other {words(900)}", 1408),
    ],
)
def test_a_beginning_is_cached_in_steps(again: str, cached: int) -> None:
    cache = PromptCache()
    assert cache.meet(call(words(2000))) == 0
    assert cache.meet(call(again)) == cached


def test_further_messages_keep_the_beginning() -> None:
    cache = PromptCache()
    cache.meet(call("hello", words(1500)))
    assert cache.meet(call("hello", words(1500), "and more")) == 1408
    assert cache.meet(call(words(1500), "and more")) == 0


def test_each_model_has_its_own() -> None:
    cache = PromptCache()
    cache.meet(call(words(1500)))
    assert cache.meet(call(words(1500), model="other")) == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_reported_and_booked(stream: bool) -> None:
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": words(1500)}]}
    usages = []
    async with (
        MockProvider(cache=True, answer=lambda call: "yes") as provider,
        openai.AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client,
    ):
        for _ in range(2):
            if stream:
                options: Any = {"stream": True, "stream_options": {"include_usage": True}}
                chunks = [c async for c in await client.chat.completions.create(**asked, **options)]
                usages.append(chunks[-1].usage)
            else:
                usages.append((await client.chat.completions.create(**asked)).usage)
        totals = provider.books_json()["totals"]
    assert [usage.prompt_tokens_details.cached_tokens for usage in usages] == [0, 1408]
    assert [entry.usage for entry in provider.books] == [Usage(1504, 1), Usage(1504, 1, 1408)]
    assert (totals["input_tokens"], totals["cached_tokens"]) == (3008, 1408)


async def test_a_usage_that_is_wrong_reports_no_cache() -> None:
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": words(1500)}]}
    async with (
        MockProvider(cache=True, faults=[None, Fault.WRONG_USAGE]) as provider,
        openai.AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client,
    ):
        for _ in range(2):
            answer = await client.chat.completions.create(**asked)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is None
    assert provider.books[1].cached_tokens == 0


async def test_without_it_nothing_is_said_of_it() -> None:
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": words(1500)}]}
    async with (
        MockProvider() as provider,
        openai.AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client,
    ):
        for _ in range(2):
            answer = await client.chat.completions.create(**asked)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is None
