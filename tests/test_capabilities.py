"""What models can do, asked of a provider that shows it, ignores it, refuses it, or fails."""

import json

import pytest

from pools import card_at
from r2reasoner.budget import Meter
from r2reasoner.capabilities import CAPABILITIES, Found, can_be_probed, line, probe
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, Fault, MockProvider
from r2reasoner.mock.faults import Trouble
from r2reasoner.pool.cards import Endpoint
from r2reasoner.types import CallOutcome


def able(call: ChatCall) -> str:
    if "response_format" in call.body:
        return json.dumps({"greeting": "hello"})
    return "Red." if isinstance(call.body["messages"][0]["content"], list) else "hello"


def calls_tools(call: ChatCall) -> Trouble | None:
    return Fault.TOOL_CALL if "tools" in call.body else None


async def asked(provider: MockProvider, ledger: Ledger, max_tokens: int = 50) -> dict[str, Found]:
    async with provider:
        client = OpenAIClient()
        card = card_at(provider.base_url, "small", max_tokens=max_tokens)
        try:
            return await probe(client, card, Meter(ledger, "check"), None)
        finally:
            await client.close()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger.in_memory()


async def test_what_the_answers_show(ledger: Ledger) -> None:
    provider = MockProvider(answer=able, faults=calls_tools)
    found = await asked(provider, ledger)
    assert found == dict.fromkeys(CAPABILITIES, Found(True))
    await ledger.flush()
    assert [e.outcome for e in ledger.entries()] == [CallOutcome.OK] * len(provider.books)
    assert len(provider.books) == len(CAPABILITIES)
    await ledger.close()


async def test_fields_that_are_ignored_are_not_taken_for_understood(ledger: Ledger) -> None:
    def ignores(call: ChatCall) -> str:
        return "I have not rendered a hundred such pictures."

    found = await asked(MockProvider(answer=ignores), ledger)
    assert {name for name, one in found.items() if one.can is False} == {"tools", "images", "json"}
    await ledger.close()


@pytest.mark.parametrize(("fault", "can"), [(Fault.BAD_REQUEST, False), (Fault.FORBIDDEN, None)])
async def test_a_refusal_is_a_no_and_a_failure_no_answer(
    fault: Fault, can: bool | None, ledger: Ledger
) -> None:
    found = await asked(MockProvider(faults=lambda call: fault), ledger)
    assert {one.can for one in found.values()} == {can}
    assert all(one.why for one in found.values())
    await ledger.close()


async def test_an_answer_that_was_cut_shows_nothing(ledger: Ledger) -> None:
    found = await asked(MockProvider(answer=lambda call: "well, " * 9), ledger, max_tokens=3)
    assert found["json"] == Found(None, "no answer within 3 tokens")
    await ledger.close()


def test_the_line_keeps_what_was_not_asked_and_what_was_not_found_out() -> None:
    card = card_at("http://x/v1", "m", capabilities=frozenset({"no_logprobs", "tools", "json"}))
    found = {"tools": Found(None, "away"), "json": Found(False), "n": Found(True)}
    assert line(card, found) == 'capabilities = ["n", "no_logprobs", "tools"]'


def test_only_chat_models_at_endpoints_are_asked() -> None:
    assert can_be_probed(card_at("http://x/v1", "m"))
    assert not can_be_probed(card_at("http://x/v1", "m", prompt="plain"))
    embedded = Endpoint(name="here", kind="embedded")
    assert not can_be_probed(card_at("", "m", endpoint=embedded))
