"""Conversations by the official client: who answers, what is sent, and that it is booked."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateways import Served, gateway
from pools import answers, pool_at, step_of
from r2reasoner import prompts
from r2reasoner.gateway.gateway import Options
from r2reasoner.mock import ChatCall, MockProvider, count_tokens
from r2reasoner.mock.answers import TOKENS_PER_MESSAGE
from r2reasoner.pool.cards import Pool
from r2reasoner.types import Pico, to_dollars

LONG = " ".join(f"word{n}" for n in range(1500))
SYSTEM = {"role": "system", "content": "Be brief."}
DIRECT = '{"subtasks": [{"text": "the query itself", "needs": []}], "answer": "#1"}'


def plan(*needs_conversation: bool | None) -> str:
    """Return a chain of two steps; None does not say whether it needs the conversation."""
    flags = [
        "" if n is None else f', "needs_conversation": {n}'.lower() for n in needs_conversation
    ]
    return (
        f'{{"subtasks": [{{"text": "find it", "needs": []{flags[0]}}},'
        f' {{"text": "say it", "needs": [1]{flags[1]}}}], "answer": "#2"}}'
    )


def pool_with_caches(base_url: str, **more: Any) -> Pool:
    """Return a pool whose models charge a hundredth for input that is in their cache."""
    pool = pool_at(base_url, **more)
    workers = [
        replace(card, price=replace(card.price, cached=card.price.input / 100))
        for card in pool.workers
        if card.price is not None
    ]
    return replace(pool, workers=tuple(workers))


class Conversation:
    """A conversation with the gateway, turn by turn."""

    def __init__(self, served: Served, *before: dict[str, str]) -> None:
        self.served = served
        self.messages: list[Any] = list(before)

    async def say(self, text: str, dial: float = 1, *, stream: bool = False, **more: Any) -> Any:
        """Ask, keep the answer as the conversation's, and return the `r2` block."""
        self.messages.append({"role": "user", "content": text})
        asked: Any = {"model": f"r2reasoner:{dial}", "messages": self.messages, **more}
        async with self.served.client() as client:
            if stream:
                chunks = await client.chat.completions.create(**asked, stream=True)
                got = [chunk async for chunk in chunks]
                answer = "".join(c.choices[0].delta.content or "" for c in got if c.choices)
                block = (got[-1].model_extra or {})["r2"]
            else:
                whole = await client.chat.completions.create(**asked)
                answer = whole.choices[0].message.content
                block = (whole.model_extra or {})["r2"]
        self.messages.append({"role": "assistant", "content": answer})
        return block


class Models:
    """A provider with a prompt cache, and what it was asked."""

    def __init__(self, planner: str | Callable[[ChatCall], str] = DIRECT, **more: Any) -> None:
        self.asked: list[ChatCall] = []
        self.provider = MockProvider(answer=answers(planner, self.work, **more), cache=True)

    def work(self, call: ChatCall) -> str:
        self.asked.append(call)
        return f"answer {len(self.asked)}"

    def bill(self, pool: Pool) -> tuple[Pico, Pico]:
        """Return what the provider's books come to, and what its caches saved."""
        total = saved = 0
        for entry in self.provider.books:
            card = pool.card(entry.model or "")
            assert card.price is not None
            total += card.price.cost(entry.usage)
            cached = card.price.input if card.price.cached is None else card.price.cached
            saved += int(entry.cached_tokens * (card.price.input - cached) * 10**6)
        return total, saved


def begins_alike(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return list(first) == list(second[: len(first)])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_stays_where_its_cache_pays_and_the_saving_is_booked(
    tmp_path: Path, stream: bool
) -> None:
    models = Models()
    async with models.provider as mock:
        pool = pool_with_caches(mock.base_url)
        with gateway(pool, tmp_path / "l.db") as served:
            talk = Conversation(served, SYSTEM)
            first = await talk.say(LONG, 0.5, stream=stream)
            second = await talk.say("and the second", 1, stream=stream)
            other = await Conversation(served, SYSTEM).say(f"not {LONG}", 1, stream=stream)
            trace = await served.trace(second["trace_id"])
            entry = served.ledger.entries(query_id=second["trace_id"])[-1]
    assert [c.model for c in models.asked] == ["medium", "medium", "small"]
    one, two, _ = models.asked
    assert begins_alike(one.messages, two.messages)
    assert begins_alike([SYSTEM], [{"role": m.role, "content": m.content} for m in two.messages])
    # the provider's books, the ledger and the answer say the same
    cached = [c["cached_tokens"] for c in second["calls"]]
    assert cached[-1] == entry.usage.cached_tokens == 1408
    total, saved = models.bill(pool)
    blocks = (first, second, other)
    assert sum(Decimal(b["cost"]) for b in blocks) == to_dollars(total)
    assert sum(Decimal(b["cache_saved"]) for b in blocks) == to_dollars(saved)
    assert to_dollars(saved) == Decimal("1408") * Decimal("9.9") / 10**6
    # and why it stayed is told
    (subtask,) = second["plan"]["subtasks"]
    assert subtask["model"] == "medium"
    assert subtask["why"].startswith("stays with medium: of about 1,5")
    assert trace.query.conversation is not None


async def test_without_a_cache_in_sight_the_dial_decides(tmp_path: Path) -> None:
    models = Models()
    async with models.provider as mock:
        pool = pool_with_caches(mock.base_url)
        with gateway(pool, tmp_path / "l.db", options=Options(stay_s=0)) as served:
            talk = Conversation(served)
            await talk.say(LONG, 0.5)
            await talk.say("and the second", 1)
            short = Conversation(served)
            await short.say("a short one", 0.5)
            await short.say("and the second", 1)
    assert [c.model for c in models.asked] == ["medium", "small"] * 2


async def test_the_last_step_stays_with_its_model(tmp_path: Path) -> None:
    models = Models(plan(False, True))
    async with models.provider as mock:
        pool = pool_with_caches(mock.base_url)
        with gateway(pool, tmp_path / "l.db") as served:
            talk = Conversation(served, SYSTEM)
            for text, dial in (("begin", 0.5), (LONG, 0.5), ("go", 0.5), ("and then", 1)):
                block = await talk.say(text, dial)
    steps = [c for c in models.asked if step_of(c) == "say it"]
    assert [c.model for c in steps] == ["medium"] * 4
    assert [c.model for c in models.asked if step_of(c) == "find it"][-1] == "small"
    for one, two in pairwise(steps):
        assert begins_alike(one.messages[:-1], two.messages)
    assert block["calls"][-1]["cached_tokens"] >= 1408
    assert block["plan"]["subtasks"][1]["why"].startswith("stays with medium")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_trivial_turn_costs_no_plan_and_no_allocation(tmp_path: Path, stream: bool) -> None:
    models = Models(allocator='{"models": ["large"]}')
    async with models.provider as mock:
        with gateway(pool_at(mock.base_url, allocator="planner"), tmp_path / "l.db") as served:
            talk = Conversation(served, SYSTEM)
            hello = await talk.say("Hello!", 0.5, stream=stream)
            work = await talk.say("what is 3 * 4", 0.5, stream=stream)
            thanks = await talk.say("Vielen Dank!", 0.5, stream=stream)
            more = await talk.say("thanks, now compute 3 * 5", 0.5, stream=stream)
    roles = [[call["role"] for call in b["calls"]] for b in (hello, work, thanks, more)]
    assert roles == [["worker"], ["decomposer", "allocator", "worker"]] * 2
    assert [c.model for c in models.asked] == ["small", "large"] * 2
    assert hello["plan"]["notes"] == thanks["plan"]["notes"] == ["a trivial turn: no plan"]
    assert [m.content for m in models.asked[2].messages][:2] == ["Be brief.", "Hello!"]


async def test_a_subtask_gets_the_conversation_where_it_needs_it(tmp_path: Path) -> None:
    tokens = {}
    for needs in ((None, None), (False, True), (False, False)):
        models = Models(plan(*needs))
        async with models.provider as mock:
            with gateway(pool_at(mock.base_url), tmp_path / f"{needs}.db") as served:
                talk = Conversation(served, SYSTEM)
                talk.messages += [
                    {"role": "user", "content": LONG},
                    {"role": "assistant", "content": "read"},
                ]
                block = await talk.say("what is the first word")
        find, say = models.asked
        for call, flag in ((find, needs[0]), (say, needs[1])):
            assert (LONG in [m.content for m in call.messages]) == (flag is not False)
        assert "Be brief." in say.messages[0].content
        assert ("Be brief." in find.messages[0].content) == (needs[0] is not False)
        told = [s["needs_conversation"] for s in block["plan"]["subtasks"]]
        assert told == [flag is not False for flag in needs]
        tokens[needs] = sum(call.input_tokens for call in models.asked)
    everything, last, nothing = tokens.values()
    conversation = 1500 + 1 + 2 * TOKENS_PER_MESSAGE
    assert last - nothing == conversation
    assert everything - last == conversation + count_tokens(f"{prompts.OWN} Be brief.")


@pytest.mark.parametrize("large_rules", [False, True])
async def test_the_planner_is_asked_who_needs_a_long_conversation(
    tmp_path: Path, large_rules: bool
) -> None:
    planned: list[ChatCall] = []

    def planner(call: ChatCall) -> str:
        planned.append(call)
        return DIRECT

    models = Models(planner)
    async with models.provider as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            rules = {"role": "system", "content": "y" * 40_000}
            talk = Conversation(served, SYSTEM | rules if large_rules else SYSTEM)
            await talk.say("first")
            await talk.say(LONG)
            for _ in range(12):
                await talk.say("x" * 3000)
    asks = ["needs_conversation" in str(call.body["response_format"]) for call in planned]
    assert asks == ["needs_conversation" in call.last_user for call in planned]
    assert asks == [large_rules] * 2 + [True] * 12
    sizes = [sum(len(m.content) for m in call.messages[1:-1]) for call in planned]
    assert max(sizes) <= 32_768
    assert sizes[-1] > 20_000
    # of a long turn the middle is left out, and the newest are those that are kept
    assert "[…]" in planned[2].messages[3].content
    assert planned[-1].messages[-2].content == "answer 13"


async def test_a_key_for_the_cache_goes_to_whom_it_means_something(tmp_path: Path) -> None:
    models = Models(plan(None, None))
    async with models.provider as mock:
        pool = pool_at(mock.base_url)
        small, *others = pool.workers
        able = replace(small, capabilities=frozenset({"prompt_cache_key"}))
        with gateway(replace(pool, workers=(able, *others)), tmp_path / "l.db") as served:
            talk = Conversation(served)
            await talk.say("first", 1)
            await talk.say("thanks", 1)
            await talk.say("second", 0)
            await Conversation(served).say("another", 1)
    keys = [(c.model, c.body.get("prompt_cache_key")) for c in models.asked]
    mine, theirs = keys[0][1], keys[-1][1]
    assert keys == [
        *[("small", mine)] * 3,
        *[("large", None)] * 2,
        *[("small", theirs)] * 2,
    ]
    assert mine is not None
    assert theirs not in (None, mine)


async def test_a_conversation_that_fits_nowhere_is_cut_and_that_is_told(tmp_path: Path) -> None:
    models = Models()
    async with models.provider as mock:
        pool = pool_at(mock.base_url, context=1050)
        with gateway(pool, tmp_path / "l.db") as served:
            talk = Conversation(served, SYSTEM)
            for n in range(8):
                await talk.say(f"question {n} " + "x" * 600)
            block = await talk.say("the last question")
            await served.ledger.flush()
            *_, entry = served.ledger.entries(query_id=block["trace_id"])
    sent = models.asked[-1].messages
    assert sent[0].content == "Be brief."
    assert sent[-1].content == "the last question"
    assert sum(len(m.content) for m in sent) <= 3000
    assert 2 < len(sent) < len(talk.messages) - 1
    assert entry.note == f"the newest {len(sent) - 2} of 16 earlier turns fit"
