"""Answers in OpenAI's forms, read by the official client's own types, and the `r2` block."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ledger_samples import closing, entry, trace
from pools import pool_at
from r2reasoner.gateway.answers import Writer, choice_of, dollars, full_usage, r2_block
from r2reasoner.gateway.parts import Done
from r2reasoner.types import Usage

POOL = pool_at("http://127.0.0.1:9/v1")
CHOICE = choice_of(message={"role": "assistant", "content": "a"}, finish_reason="stop")


def done(**changes: Any) -> Done:
    found = Done(
        trace=trace(),
        choices=[CHOICE],
        finish=[choice_of(delta={}, finish_reason="stop")],
        usage=Usage(400, 100, 10, 5),
        cost=120_000_000,
        alone=900_000_000,
        notes={},
    )
    return replace(found, **changes)


def test_a_completion_and_its_chunks_are_one_answer() -> None:
    writer = Writer("t1", "r2reasoner:0.5", POOL)
    whole = ChatCompletion.model_validate(writer.completion(done()), strict=False)
    sent = [
        writer.delta({"role": "assistant", "content": ""}),
        writer.delta({"reasoning_content": "Plan:"}),
        writer.chunk(done().finish, {"r2": {}}),
        writer.chunk([], {"usage": full_usage(done().usage)}),
    ]
    chunks = [
        ChatCompletionChunk.model_validate_json(data.removeprefix(b"data: ")) for data in sent
    ]
    assert {c.id for c in chunks} == {whole.id} == {"chatcmpl-t1"}
    assert {(c.created, c.model) for c in chunks} == {(whole.created, "r2reasoner:0.5")}
    assert chunks[0].choices[0].finish_reason is None
    assert chunks[2].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert chunks[3].choices == []
    assert chunks[3].usage == whole.usage


def test_usage_has_its_details() -> None:
    assert full_usage(Usage(400, 100, 10, 5)) == {
        "prompt_tokens": 400,
        "completion_tokens": 100,
        "total_tokens": 500,
        "prompt_tokens_details": {"cached_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "0"),
        (1, "0.000000000001"),
        (-1, "-0.000000000001"),
        (120_000_000, "0.00012"),
        (25 * 10**11, "2.5"),
        (10**22, "10000000000"),
        (None, None),
    ],
)
def test_money_is_exact_and_plain(pico: int | None, text: str | None) -> None:
    said = dollars(pico)
    assert (said is None) == (text is None)
    if said is not None and text is not None:
        assert Decimal(said) == Decimal(text)
        assert "E" not in said


def test_what_was_saved_and_what_was_lost() -> None:
    assert r2_block(done(), POOL)["saved_estimate"] == "0.00078"
    assert r2_block(done(alone=1), POOL)["saved_estimate"] == "-0.000119999999"


@pytest.mark.parametrize("unknown", [{"cost": None}, {"alone": None}])
def test_of_unknown_money_nothing_is_saved(unknown: dict[str, None]) -> None:
    block = r2_block(done(**unknown), POOL)
    assert block["saved_estimate"] is None
    assert [block["cost"], block["strongest_alone_estimate"]].count(None) == 1


def test_who_did_what() -> None:
    """The sample's second subtask only joins: it has neither a model nor a step."""
    block = r2_block(done(notes={"ignored": ["seed"]}), POOL)
    first, joined = block["plan"]["subtasks"]
    assert (first["model"], first["allocated"], first["why"]) == ("small", "small", "cheapest")
    assert first["fell_back_from"] == ["tiny"]
    assert joined["needs"] == [1]
    assert (joined["model"], joined["allocated"], joined["why"]) == (None, None, None)
    assert joined["fell_back_from"] == []
    assert block["plan"]["notes"] == ["repaired once"]
    assert block["strongest"] == "large"
    assert block["ignored"] == ["seed"]
    json.dumps(block)


def test_calls_are_listed_with_what_each_cost() -> None:
    calls = (closing(entry()), closing(entry(attempt=2), cost=None))
    listed = r2_block(done(trace=trace(calls=calls)), POOL)["calls"]
    assert [(c["attempt"], c["cost"]) for c in listed] == [(1, "0.00012"), (2, None)]
    assert {(c["input_tokens"], c["output_tokens"], c["cached_tokens"]) for c in listed} == {
        (400, 100, 10)
    }
