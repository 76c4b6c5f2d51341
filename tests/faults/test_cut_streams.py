"""A stream cut at every byte is never taken for an answer."""

import asyncio
from decimal import Decimal

import pytest

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import CallError
from r2reasoner.ledger import Ledger
from r2reasoner.mock import BookEnd, ChatCall, Cut, Ending, MockProvider
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.types import Message, Role

PRICE = Price(Decimal(1), Decimal(2))
REQUEST = ChatRequest(messages=(Message("user", "hi ü"),), max_tokens=9, role=Role.WORKER)


async def ending_of(client: OpenAIClient, card: Card, meter: Meter) -> bool:
    """Return whether a stream was reported as a success."""
    try:
        async for piece in client.stream(card, REQUEST, meter):
            if isinstance(piece, Completion):
                return True
    except CallError:
        return False
    raise AssertionError("the stream ended without a completion and without an error")


@pytest.mark.parametrize(
    ("ending", "chunked", "step"),
    [
        (Ending.CLOSE, False, 1),  # only the format itself can show this cut
        (Ending.CLOSE, True, 7),
        (Ending.RESET, False, 13),
    ],
)
async def test_no_cut_is_a_success(ending: Ending, chunked: bool, step: int) -> None:
    cuts: dict[str, Cut] = {}

    def cut(call: ChatCall) -> Cut | None:
        return cuts.get(call.model)

    with Ledger.in_memory() as ledger:
        meter = Meter(ledger, "query")
        client = OpenAIClient()
        async with MockProvider(faults=cut) as provider:
            endpoint = Endpoint(name="e", kind="openai", base_url=provider.base_url)

            def card_of(model: str) -> Card:
                return Card(name="m", endpoint=endpoint, model=model, price=PRICE)

            # A cut beyond the end cuts nothing, and shows how long the body is.
            cuts["cut-999"] = Cut(10**6, chunked=chunked)
            assert await ending_of(client, card_of("cut-999"), meter)
            length = provider.books[0].body_bytes
            # In chunked form the last bytes only close the transfer: `[DONE]` came before.
            last = length - len(b"\r\n0\r\n\r\n") if chunked else length
            cuts |= {f"cut-{n:03}": Cut(n, ending, chunked) for n in range(0, last, step)}
            models = [model for model in cuts if model != "cut-999"]
            successes = await asyncio.gather(
                *(ending_of(client, card_of(model), meter) for model in models)
            )
            await client.close()
    assert len(models) * step > 700
    assert [m for m, success in zip(models, successes, strict=True) if success] == []
    assert len(meter.calls) == len(provider.books) == len(models) + 1
    assert {entry.end for entry in provider.books[1:]} == {BookEnd.CUT}
    assert meter.spent >= sum(PRICE.cost(entry.usage) for entry in provider.books)
