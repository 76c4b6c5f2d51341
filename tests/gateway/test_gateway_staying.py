"""Who answers a turn of a conversation."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talks import asked, call, said, trace

from gateways import able_pool
from pools import card_at, plan_of
from pools import given as allocation_of
from r2reasoner.budget import Meter
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.config import settings
from r2reasoner.gateway.conversation import Memory, Outlook, Seen, Talk
from r2reasoner.gateway.gateway import Gateway, Options
from r2reasoner.gateway.keys import Keys
from r2reasoner.gateway.routing import Direct, Routed, Way, way_of
from r2reasoner.gateway.staying import TRIVIAL, Staying, keeper, steer
from r2reasoner.gateway.wire import Asked
from r2reasoner.ledger import Ledger
from r2reasoner.plan import direct
from r2reasoner.pool.cards import Card, Pool, Price
from r2reasoner.types import Allocation, Plan, Query, Subtask, Usage

URL = "http://mock/v1"
LONG = "a" * 40_000
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def card(name: str, rate: str, cached: str | None = None, **more: Any) -> Card:
    rates = Price(Decimal(rate), Decimal(rate), None if cached is None else Decimal(cached))
    return card_at(URL, name, price=rates, **more)


LADDER = [card("small", "1"), card("medium", "10", "0.5"), card("large", "100", "0.5")]
SMALL, MEDIUM, LARGE = LADDER


def pool_of(*workers: Card) -> Pool:
    return replace(able_pool(URL), workers=workers)


def seen_by(*names: str, tokens: int = 9900) -> Outlook:
    return Outlook(10_000, 1, {name: Seen(tokens, 1, kept=True) for name in names})


class TestKeeper:
    def test_a_stronger_model_that_is_no_dearer_keeps_the_work(self) -> None:
        outlook = seen_by("medium")
        assert outlook.cost(MEDIUM) == 5_960 * 10**6
        assert outlook.cost(SMALL) == 10_001 * 10**6
        assert keeper(SMALL, LADDER, outlook) == MEDIUM

    def test_not_where_it_is_dearer(self) -> None:
        assert keeper(SMALL, LADDER, seen_by("large")) == SMALL
        assert keeper(SMALL, LADDER, seen_by("medium", tokens=5000)) == SMALL

    def test_never_a_weaker_one(self) -> None:
        assert keeper(LARGE, LADDER, seen_by("medium")) == LARGE
        assert keeper(MEDIUM, LADDER, seen_by("small", "medium")) == MEDIUM

    def test_not_for_a_cheap_rate_alone(self) -> None:
        assert keeper(SMALL, LADDER, Outlook(10_000, 1)) == SMALL
        cheap = [SMALL, card("medium", "0.1", "0.01")]
        assert keeper(SMALL, cheap, seen_by("small")) == SMALL

    def test_the_chosen_model_has_a_cache_too(self) -> None:
        assert keeper(MEDIUM, LADDER, seen_by("medium", "large")) == MEDIUM

    def test_of_several_the_cheapest(self) -> None:
        ladder = [SMALL, card("a", "2", "0.05"), card("b", "2", "0.01"), card("c", "2", "0.02")]
        assert keeper(SMALL, ladder, seen_by("a", "b", "c")).name == "b"

    def test_unknown_prices_are_not_compared(self) -> None:
        unknown = replace(SMALL, price=None)
        assert keeper(unknown, [unknown, MEDIUM], seen_by("medium")) == unknown
        without = replace(MEDIUM, price=None)
        assert keeper(SMALL, [SMALL, without], seen_by("medium")) == SMALL

    def test_who_is_not_on_the_ladder_stays(self) -> None:
        assert keeper(card("plain", "9"), LADDER, seen_by("medium")).name == "plain"

    @given(
        rates=st.lists(
            st.tuples(st.integers(0, 99), st.none() | st.integers(0, 99)), min_size=1, max_size=5
        ),
        chosen=st.integers(0, 4),
        tokens=st.lists(st.integers(0, 12_000), min_size=5, max_size=5),
    )
    def test_it_is_never_weaker_and_never_dearer(
        self, rates: list[tuple[int, int | None]], chosen: int, tokens: list[int]
    ) -> None:
        ladder = [
            card(f"m{n}", str(rate), None if cached is None else str(min(rate, cached)))
            for n, (rate, cached) in enumerate(rates)
        ]
        now = ladder[min(chosen, len(ladder) - 1)]
        seen = {c.name: Seen(t, 9, kept=True) for c, t in zip(ladder, tokens, strict=False)}
        outlook = Outlook(10_000, 100, seen)
        kept = keeper(now, ladder, outlook)
        before, after = outlook.cost(now), outlook.cost(kept)
        assert before is not None
        assert after is not None
        assert after <= before
        assert ladder.index(kept) >= ladder.index(now)


class Given:
    """An allocator that always says the same."""

    def __init__(self, *models: str) -> None:
        self.models = models

    async def allocate(
        self, query: Query, plan: Plan, client: Any, meter: Any, deadline: float | None
    ) -> Allocation:
        return allocation_of(plan, *self.models)


def ask(*texts: str, **more: Any) -> Asked:
    """Return the request with these turns, the user's first."""
    return asked(*said(*texts), **more)


class TestAllocation:
    async def chosen(
        self, pool: Pool, plan: Plan, memory: Memory, request: Asked, *models: str
    ) -> list[tuple[str, str] | None]:
        talk = Talk(memory, "me", request)
        query = Query(request.text, "q", request.earlier)
        with Ledger.in_memory() as ledger:
            allocation = await Staying(Given(*models), pool, talk).allocate(
                query, plan, OpenAIClient(), Meter(ledger, "q"), None
            )
        return [None if c is None else (c.model, c.reason) for c in allocation.choices]

    def memory(self, plan: Plan, *texts: str) -> Memory:
        """Return what is known when the medium model has answered a turn by the last subtask."""
        memory = Memory(300)
        last = call("medium", Usage(9900, 1), subtask=len(plan.subtasks))
        Talk(memory, "me", ask(*texts)).note(trace(last, plan=plan))
        return memory

    async def test_a_direct_answer_stays(self) -> None:
        memory = self.memory(direct("c"), "a")
        got = await self.chosen(pool_of(*LADDER), direct("c"), memory, ask("a", "b", "c"), "small")
        assert got == [
            (
                "medium",
                "stays with medium: of about 9,915 input tokens its cache should have 9,900, which"
                " makes it 5,110.00 µ$ instead of 9,916.00 µ$ by small",
            )
        ]

    async def test_the_last_step_stays_and_the_others_do_not(self) -> None:
        plan = plan_of("x", "y", "#1 #2", "z #3")
        memory = self.memory(plan, LONG, "b", "c")
        later = ask(LONG, "b", "c", "d", "e")
        got = await self.chosen(pool_of(*LADDER), plan, memory, later, "small")
        assert [None if c is None else c[0] for c in got] == ["small", "small", None, "medium"]

    async def test_a_last_step_without_the_conversation_does_not(self) -> None:
        memory = self.memory(plan_of("x", "y #1"), LONG, "b", "c")
        plan = Plan((Subtask("x"), Subtask("y #1", needs_conversation=False)), "#2")
        later = ask(LONG, "b", "c", "d", "e")
        got = await self.chosen(pool_of(*LADDER), plan, memory, later, "small")
        assert got == [("small", "given"), ("small", "given")]

    async def test_who_reads_the_conversation_has_room_for_it(self) -> None:
        pool = pool_of(replace(SMALL, context=1000), replace(MEDIUM, context=2000), LARGE)
        alone = Subtask("y", needs_conversation=False)
        plan = Plan((Subtask("x"), alone, Subtask("z #1 #2")), "#3")
        long = ask("a" * 9000, "b", "c")
        got = await self.chosen(pool, plan, Memory(0), long, "small")
        why = "its context takes the conversation, that of small does not"
        assert got == [("large", why), ("small", "given"), ("large", why)]
        short = ask("a" * 900, "b", "c")
        assert await self.chosen(pool, plan, Memory(0), short, "small") == [("small", "given")] * 3

    async def test_where_nobody_has_room_the_choice_stands(self) -> None:
        pool = pool_of(*(replace(c, context=1000) for c in LADDER))
        got = await self.chosen(pool, direct("c"), Memory(0), ask("a" * 9000, "b", "c"), "small")
        assert got == [("small", "given")]

    async def test_a_plain_model_reads_no_conversation(self) -> None:
        pool = pool_of(replace(SMALL, context=100, prompt="plain"), MEDIUM, LARGE)
        memory = self.memory(direct("c"), "a" * 9000)
        got = await self.chosen(pool, direct("c"), memory, ask("a" * 9000, "b", "c"), "small")
        assert got == [("small", "given")]


class TestSteering:
    @pytest.fixture
    def ladder(self) -> Pool:
        capable = frozenset({"tools"})
        return pool_of(*(replace(c, capabilities=capable) for c in LADDER))

    def steer(
        self,
        tmp_path: Path,
        pool: Pool,
        *requests: Asked,
        bypass: bool = False,
        options: Options | None = None,
        seen: str | None = None,
    ) -> list[Way]:
        """Return the ways of requests; `seen` has answered each of them before the next."""
        with Ledger.in_memory() as ledger:
            gateway = Gateway.open(pool, settings(), ledger, Keys(ledger), options=options)
            ways = []
            for request in requests:
                way = way_of(request, pool, settings(), bypass=bypass)
                ways.append(steer(gateway, "me", request, way))
                if seen is not None:
                    ways[-1].note(trace(call(seen, Usage(9900, 1))))
        return ways

    def names(self, way: Way) -> list[str]:
        assert isinstance(way, Direct)
        return [c.name for c in way.candidates]

    @pytest.mark.parametrize(
        ("dial", "names"),
        [
            (0.0, ["large", "medium", "small"]),
            (0.1, ["small", "medium", "large"]),
            (1.0, ["small", "medium", "large"]),
        ],
    )
    def test_a_trivial_turn_goes_to_the_cheapest_without_a_plan(
        self, tmp_path: Path, ladder: Pool, dial: float, names: list[str]
    ) -> None:
        request = ask("a", "b", "thanks!", r2={"trade_off": dial})
        (way,) = self.steer(tmp_path, ladder, request)
        assert self.names(way) == names
        assert isinstance(way, Direct)
        assert way.reason == TRIVIAL
        assert way.conversation is not None

    def test_other_turns_are_planned_and_so_are_trivial_ones_where_that_is_off(
        self, tmp_path: Path, ladder: Pool
    ) -> None:
        (work,) = self.steer(tmp_path, ladder, ask("a", "b", "thanks, now 3 * 4"))
        assert isinstance(work, Routed)
        assert work.conversation is not None
        off = Options(trivial=False)
        (off_way,) = self.steer(tmp_path, ladder, ask("a", "b", "thanks!"), options=off)
        assert isinstance(off_way, Routed)

    def test_a_trivial_turn_needs_room_and_a_chat_model(self, tmp_path: Path, ladder: Pool) -> None:
        plain, small, large = ladder.workers
        workers = (replace(plain, prompt="plain"), replace(small, context=1000), large)
        pool = replace(ladder, workers=workers)
        (short,) = self.steer(tmp_path, pool, ask("a", "b", "thanks!"))
        (long,) = self.steer(tmp_path, pool, ask("a" * 9000, "b", "thanks!"))
        assert self.names(short) == ["medium", "large"]
        assert self.names(long) == ["large", "medium"]

    def test_a_pool_of_plain_models_has_no_conversations(
        self, tmp_path: Path, ladder: Pool
    ) -> None:
        workers = tuple(replace(c, prompt="plain") for c in ladder.workers)
        (way,) = self.steer(tmp_path, replace(ladder, workers=workers), ask("a", "b", "thanks!"))
        assert way == Routed(way.settings, direct=False)

    def test_what_the_dial_chose_stays_with_a_stronger_one(
        self, tmp_path: Path, ladder: Pool
    ) -> None:
        requests = [
            ask(*texts, tools=[TOOL], r2={"trade_off": 1})
            for texts in (["a"], ["a", "b", "c"], ["x"])
        ]
        first, second, other = self.steer(tmp_path, ladder, *requests, seen="medium")
        assert self.names(first) == self.names(other) == ["small", "medium", "large"]
        assert self.names(second) == ["medium", "small", "large"]
        assert isinstance(second, Direct)
        assert second.reason.startswith("one of 3 models that can do: tools; stays with medium:")

    def test_a_trivial_turn_stays_too(self, tmp_path: Path, ladder: Pool) -> None:
        _, way = self.steer(tmp_path, ladder, ask("a"), ask("a", "b", "ok"), seen="medium")
        assert self.names(way) == ["medium", "small", "large"]
        assert isinstance(way, Direct)
        assert way.reason.startswith(f"{TRIVIAL}; stays with medium:")

    def test_who_is_asked_for_answers(self, tmp_path: Path, ladder: Pool) -> None:
        named = [ask(*t, model="small") for t in (["a"], ["a", "b", "c"])]
        ways = self.steer(tmp_path, ladder, *named, seen="medium")
        assert [self.names(way) for way in ways] == [["small"], ["small"]]
        past = [ask("a"), ask("a", "b", "c")]
        ways = self.steer(tmp_path, ladder, *past, bypass=True, seen="medium")
        assert [self.names(way)[0] for way in ways] == ["large", "large"]

    def test_without_time_or_cached_rates_nothing_stays(self, tmp_path: Path, ladder: Pool) -> None:
        requests = [ask(*t, tools=[TOOL], r2={"trade_off": 1}) for t in (["a"], ["a", "b", "c"])]
        off = Options(stay_s=0)
        _, way = self.steer(tmp_path, ladder, *requests, seen="medium", options=off)
        assert self.names(way)[0] == "small"
        workers = tuple(replace(c, price=Price(Decimal(1), Decimal(1))) for c in ladder.workers)
        _, way = self.steer(tmp_path, replace(ladder, workers=workers), *requests, seen="medium")
        assert self.names(way)[0] == "small"
