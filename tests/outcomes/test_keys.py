from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import ask, card_at
from models import write_model
from r2reasoner.client.base import ChatRequest
from r2reasoner.client.embedded import checksum
from r2reasoner.errors import ConfigError
from r2reasoner.outcomes.keys import answer_key, revision
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.types import Message, Role

CARD = card_at("http://one/v1")
MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text("a 1\n:")),
    max_size=3,
).map(tuple)
REQUESTS = st.builds(
    ChatRequest,
    messages=MESSAGES,
    max_tokens=st.integers(1, 3),
    role=st.sampled_from(Role),
    temperature=st.sampled_from([0.0, 0.5]),
    stop=st.lists(st.text("a\n", max_size=2), max_size=2).map(tuple),
    response_format=st.none() | st.dictionaries(st.text("a", max_size=2), st.integers(0, 1)),
    rank=st.integers(0, 1),
)


@given(REQUESTS, REQUESTS)
def test_two_requests_have_one_key_just_if_they_ask_the_same(
    one: ChatRequest, two: ChatRequest
) -> None:
    def asked(request: ChatRequest) -> ChatRequest:
        shape = request.response_format or None
        return replace(request, role=Role.WORKER, response_format=shape)

    same = asked(one) == asked(two)
    assert (answer_key(CARD, one) == answer_key(CARD, two)) == same


def test_labels_are_not_in_the_key() -> None:
    key = answer_key(CARD, ask())
    assert len(key) == 32
    assert key == answer_key(CARD, ask(role=Role.FINAL, subtask=3, note="x", logprobs=True))
    assert key == answer_key(CARD, ask(temperature=0))
    assert key == answer_key(replace(CARD, name="other", price=None, max_tokens=3), ask())
    assert key == answer_key(card_at("http://one/v1/"), ask())


def test_the_model_and_where_it_is_are_in_the_key() -> None:
    cards = [CARD, replace(CARD, model="other"), card_at("http://two/v1")]
    assert len({answer_key(card, ask()) for card in cards}) == 3
    assert revision(CARD) == "mock-small"


def test_text_that_utf_8_cannot_hold_has_a_key_too() -> None:
    assert answer_key(CARD, ask("\ud83d")) != answer_key(CARD, ask("?"))


def embedded(folder: Path, sha256: str | None = None) -> Card:
    return Card(
        name="tiny",
        endpoint=Endpoint(name="local", kind="embedded", path=folder),
        model="tiny",
        price=Price(Decimal(1), Decimal(1)),
        sha256=sha256,
    )


def test_a_model_in_process_is_known_by_its_weights_wherever_they_lie(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        write_model(tmp_path / folder / "tiny", ["a"], {"<sep>": ["a"], "a": ["<eos>"]})
    here, there = tmp_path / "here", tmp_path / "there"
    sha256 = checksum(here / "tiny")
    keys = {
        answer_key(card, ask())
        for card in (embedded(here), embedded(there), embedded(here, sha256))
    }
    assert len(keys) == 1
    assert revision(embedded(here)) == revision(embedded(here, sha256)) == sha256
    assert answer_key(embedded(here, "0" * 64), ask()) not in keys


def test_other_weights_in_the_same_place_are_another_model(tmp_path: Path) -> None:
    card = embedded(tmp_path)
    write_model(tmp_path / "tiny", ["a", "b"], {"<sep>": ["a"], "a": ["<eos>"]})
    before = answer_key(card, ask()), revision(card)
    write_model(tmp_path / "new", ["a", "b"], {"<sep>": ["b"], "b": ["<eos>"]})
    for path in (tmp_path / "new").iterdir():
        path.replace(tmp_path / "tiny" / path.name)
    after = answer_key(card, ask()), revision(card)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiny: no converted model here"):
        answer_key(embedded(tmp_path), ask())
    with pytest.raises(ConfigError, match="an embedded one needs a path"):
        answer_key(replace(CARD, endpoint=Endpoint(name="e", kind="embedded")), ask())


def test_no_text_can_pass_for_two_messages() -> None:
    def key(*texts: str) -> str:
        messages = tuple(Message("user", text) for text in texts)
        return answer_key(CARD, ChatRequest(messages=messages, max_tokens=9, role=Role.WORKER))

    assert len({key("a", "b"), key("a\nuser b"), key("a\nuser 1 b"), key("a\nuser 1", "b")}) == 4
