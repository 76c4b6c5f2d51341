"""Who has seen how a request begins."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talks import asked, call, said, trace

from pools import card_at, plan_of
from r2reasoner.gateway.conversation import Form, Memory, Outlook, Seen, Talk, writer_of
from r2reasoner.plan import direct
from r2reasoner.pool.cards import Card, Price
from r2reasoner.types import CallOutcome, Plan, Role, Subtask, Usage

SYSTEM = {"role": "system", "content": "be brief"}
SEEN = Seen(2000, 50, kept=True)


class Turns:
    """A conversation's turns, one after the other."""

    def __init__(self, memory: Memory | None = None, who: str = "me") -> None:
        self.memory = memory or Memory(300)
        self.who = who

    def talk(self, *messages: dict[str, Any], **more: Any) -> Talk:
        return Talk(self.memory, self.who, asked(*messages, **more))

    def note(
        self,
        messages: Sequence[dict[str, Any]],
        usage: Usage,
        *,
        model: str = "large",
        plan: Plan | None = None,
        **more: Any,
    ) -> None:
        self.talk(*messages).note(trace(call(model, usage, **more), plan=plan))


class TestMemory:
    def test_it_forgets_after_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr("r2reasoner.gateway.conversation.time.monotonic", lambda: now[0])
        memory = Memory(10)
        memory.put(b"place", "a", SEEN)
        now[0] = 109.9
        assert memory.get(b"place") == {"a": SEEN}
        memory.put(b"place", "b", SEEN)
        now[0] = 110.1
        assert memory.get(b"place") == {"a": SEEN, "b": SEEN}
        now[0] = 120
        assert memory.get(b"place") == {}

    def test_the_longest_unused_makes_room(self) -> None:
        memory = Memory(10, most=2)
        for place in (b"1", b"2", b"1", b"3"):
            memory.put(place, "a", SEEN)
        assert [bool(memory.get(place)) for place in (b"1", b"2", b"3")] == [True, False, True]

    def test_without_time_it_is_off(self) -> None:
        turns = Turns(Memory(0))
        turns.note(said("a"), Usage(5000, 10))
        assert turns.talk(*said("a", "b", "c")).outlook(Form.AS_IT_CAME) == Outlook()


class TestOutlook:
    def card(self, **price: Any) -> Card:
        rates = {"input": Decimal(10), "output": Decimal(20), "cached": Decimal(1)} | price
        return card_at("http://m/v1", "large", price=Price(**rates))

    def test_cost_is_at_the_cached_rate_where_a_cache_is_expected(self) -> None:
        outlook = Outlook(3000, 100, {"large": SEEN})
        assert outlook.cached(self.card()) == 2000
        # per token: 1 µ$ for 2,000, 10 µ$ for 1,000, 20 µ$ for 100
        assert outlook.cost(self.card()) == 14_000 * 10**6
        assert Outlook(3000, 100).cost(self.card()) == 32_000 * 10**6

    def test_no_cache_is_expected_of_what_is_short_or_was_missed(self) -> None:
        card = self.card()
        assert Outlook(3000, 1, {"large": SEEN._replace(tokens=1023)}).cached(card) == 0
        assert Outlook(3000, 1, {"large": SEEN._replace(kept=False)}).cached(card) == 0
        assert Outlook(1500, 1, {"large": SEEN}).cached(card) == 1500

    def test_an_unknown_price_is_an_unknown_cost(self) -> None:
        assert Outlook(1, 1).cost(replace(self.card(), price=None)) is None


class TestTalk:
    def test_the_next_turn_knows_who_was_sent_what(self) -> None:
        turns = Turns()
        first = [SYSTEM, *said("a" * 400)]
        turns.note(first, Usage(4000, 60))
        new = said("", "b" * 400, "c" * 400)[1:]
        outlook = turns.talk(*first, *new).outlook(Form.AS_IT_CAME)
        assert outlook.seen == {"large": Seen(4000, 60, kept=True)}
        assert 4200 <= outlook.input_tokens <= 4240
        assert outlook.answer_tokens == 60

    @pytest.mark.parametrize(
        "other",
        [
            [SYSTEM, *said("A", "b", "c")],
            [SYSTEM | {"content": "be kind"}, *said("a", "b", "c")],
            said("a", "b", "c"),
            [SYSTEM, *said("x", "y")[::-1], *said("a", "b", "c")],
        ],
    )
    def test_another_beginning_is_another_conversation(self, other: list[dict[str, Any]]) -> None:
        turns = Turns()
        turns.note([SYSTEM, *said("a")], Usage(4000, 60))
        assert turns.talk(*other).outlook(Form.AS_IT_CAME) == Outlook()

    def test_callers_forms_and_tools_are_kept_apart(self) -> None:
        turns = Turns()
        turns.note(said("a"), Usage(4000, 60))
        later = said("a", "b", "c")
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        assert turns.talk(*later).outlook(Form.AS_IT_CAME).seen
        assert not turns.talk(*later).outlook(Form.LAST_STEP).seen
        assert not turns.talk(*later, tools=[tool]).outlook(Form.AS_IT_CAME).seen
        assert not Turns(turns.memory, "you").talk(*later).outlook(Form.AS_IT_CAME).seen

    def test_each_model_counts_by_what_it_saw_last(self) -> None:
        turns = Turns()
        turns.note(said("a"), Usage(2000, 1), model="small")
        turns.note(said("a", "b", "c"), Usage(2500, 2), model="large")
        outlook = turns.talk(*said("a", "b", "c", "d", "e")).outlook(Form.AS_IT_CAME)
        assert {name: seen.tokens for name, seen in outlook.seen.items()} == {
            "small": 2000,
            "large": 2500,
        }
        assert outlook.answer_tokens == 2

    def test_a_cache_that_misses_is_not_expected_again(self) -> None:
        turns, texts = Turns(), ["a"]
        kept = []
        for cached in (0, 0, 0, 1024, 2048, 0):
            turns.note(said(*texts), Usage(4000, 1, cached))
            texts += ["b", "c"]
            outlook = turns.talk(*said(*texts)).outlook(Form.AS_IT_CAME)
            kept.append(outlook.seen["large"].kept)
        assert kept == [True, False, False, True, True, False]

    def test_a_short_prompt_says_nothing_of_the_cache(self) -> None:
        turns = Turns()
        turns.note(said("a"), Usage(500, 1))
        turns.note(said("a", "b", "c"), Usage(1500, 1))
        outlook = turns.talk(*said("a", "b", "c", "d", "e")).outlook(Form.AS_IT_CAME)
        assert outlook.seen["large"].kept

    def test_of_the_last_step_only_what_stands_before_the_query_counts(self) -> None:
        turns = Turns()
        plan = plan_of("x", "y #1")
        first = [SYSTEM, *said("a" * 4000, "b" * 4000, "the query")]
        turns.note(first, Usage(9000, 70), plan=plan, subtask=2, role=Role.FINAL)
        later = turns.talk(*first, *said("", "d", "e")[1:])
        assert not later.outlook(Form.AS_IT_CAME).seen
        seen = later.outlook(Form.LAST_STEP).seen["large"]
        assert 2000 < seen.tokens < 2200
        edited = [*first[:-1], *said("another query", "d", "e")]
        assert turns.talk(*edited).outlook(Form.LAST_STEP).seen == {"large": seen}

    def test_only_the_call_that_wrote_the_answer_counts(self) -> None:
        turns = Turns()
        talk = turns.talk(*said("a"))
        usage = Usage(4000, 1)
        talk.note(
            trace(
                call("planner", usage, role=Role.DECOMPOSER, subtask=None),
                call("small", usage, outcome=CallOutcome.FAILED),
                call("other", usage, subtask=2),
                call("large", usage),
            )
        )
        assert talk.outlook(Form.AS_IT_CAME).seen.keys() == {"large"}
        talk.note(trace(call("lost", usage, outcome=CallOutcome.UNKNOWN)))
        assert talk.outlook(Form.AS_IT_CAME).seen.keys() == {"large"}

    def test_the_key_is_that_of_the_beginning(self) -> None:
        turns = Turns()
        keys = [turns.talk(SYSTEM, *said(*texts)).key for texts in (["a"], ["a", "b", "c"], ["b"])]
        assert keys[0] == keys[1] != keys[2]
        assert Turns(who="you").talk(SYSTEM, *said("a")).key != keys[0]
        assert turns.talk(*said("a")).key != keys[0]
        assert len(keys[0]) == 32

    @given(texts=st.lists(st.text(), min_size=1, max_size=9), cut=st.integers(1, 9))
    def test_any_text_has_its_place(self, texts: list[str], cut: int) -> None:
        turns = Turns()
        turns.note(said(*texts[: max(1, min(cut, len(texts)))]), Usage(4000, 1))
        assert turns.talk(*said(*texts)).outlook(Form.AS_IT_CAME).seen


class TestWriter:
    def test_the_one_subtask_that_is_the_answer(self) -> None:
        assert writer_of(direct("q")) == (1, Form.AS_IT_CAME)
        assert writer_of(plan_of("a", "b #1")) == (2, Form.LAST_STEP)
        assert writer_of(plan_of("a", "b", answer="#1")) == (1, Form.LAST_STEP)

    def test_nobody_where_several_are_or_the_conversation_is_not_needed(self) -> None:
        assert writer_of(plan_of("a", "b", answer="#1 #2")) is None
        assert writer_of(plan_of("a", "#1 #1")) is None
        alone = Subtask("b #1", needs_conversation=False)
        assert writer_of(Plan((Subtask("a"), alone), "#2")) is None
