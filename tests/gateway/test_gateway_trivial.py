"""Small talk, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivial_phrases import AFTER_A_QUESTION, SMALL_TALK, WORK

from r2reasoner.gateway.trivial import is_trivial
from r2reasoner.types import Message

ASKED = Message("user", "what is 3 * 4")
ANSWERED = (ASKED, Message("assistant", "It is 12."))
ASKED_BACK = (ASKED, Message("assistant", "It is 12. Shall I show how?"))
RULES = Message("system", "Classify the sentiment of each text.")


@pytest.mark.parametrize("text", WORK)
def test_work_is_never_taken_for_small_talk(text: str) -> None:
    for earlier in ((), ANSWERED, ASKED_BACK, (RULES, *ANSWERED)):
        assert not is_trivial(text, earlier)


@pytest.mark.parametrize("text", AFTER_A_QUESTION)
def test_an_acknowledgement_may_be_a_go_ahead(text: str) -> None:
    assert is_trivial(text, ANSWERED)
    assert not is_trivial(text, ASKED_BACK)
    assert not is_trivial(text, (ASKED, Message("assistant", "続けますか。")))


def test_small_talk_is_found() -> None:
    missed = [text for text in SMALL_TALK if not is_trivial(text, ANSWERED)]
    assert missed == ["k"]  # a letter may be an answer


@pytest.mark.parametrize("text", ["thanks", "Merci beaucoup !", "谢谢", "bye", "hello"])
def test_thanks_and_greetings_answer_no_question(text: str) -> None:
    assert is_trivial(text, ASKED_BACK)


def test_what_waits_for_an_answer_is_work() -> None:
    assert not is_trivial("thanks", (ASKED,))
    assert not is_trivial("hi", (*ANSWERED, ASKED))


def test_instructions_may_make_a_task_of_every_text() -> None:
    assert not is_trivial("great, thanks", (RULES,))
    assert is_trivial("hello there", (RULES,))
    assert is_trivial("great, thanks", (RULES, *ANSWERED))


@given(
    talk=st.sampled_from(SMALL_TALK),
    more=st.lists(st.characters(categories=["L"]), min_size=16, max_size=24, unique=True),
    before=st.booleans(),
)
def test_an_unknown_word_makes_it_work(talk: str, more: list[str], before: bool) -> None:
    word = "".join(more)
    assert not is_trivial(f"{word} {talk}" if before else f"{talk} {word}", ANSWERED)


@given(talk=st.sampled_from(SMALL_TALK), number=st.integers(0, 999))
def test_a_number_makes_it_work(talk: str, number: int) -> None:
    assert not is_trivial(f"{talk} {number}", ANSWERED)


@given(text=st.text(max_size=200))
def test_any_text_is_judged(text: str) -> None:
    assert is_trivial(text, ANSWERED) in (True, False)
