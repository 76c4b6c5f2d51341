"""A client with a memory, before a fake provider on a real socket and real models in process."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from calls import NoJitter, ask, card_at, until
from models import write_model
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.client.embedded import EmbeddedClient, checksum
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    CallFault,
    ConfigError,
    DeadlineExceeded,
    LedgerError,
    UnknownWords,
)
from r2reasoner.ledger import Ledger
from r2reasoner.mock import Fault, MockProvider
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.store import OutcomeStore, answer_key
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.types import CallOutcome, Message, Role


class World:
    """A provider, a store and the client between them."""

    def __init__(self, provider: MockProvider, store: OutcomeStore, ledger: Ledger) -> None:
        self.provider = provider
        self.store = store
        self.ledger = ledger
        self.client = RecordedClient(OpenAIClient(NoJitter()), store, "test")
        self.card = card_at(provider.base_url)
        self.meter = Meter(ledger, "q")

    async def get(self, request: ChatRequest | None = None, **more: Any) -> Completion:
        card = more.pop("card", self.card)
        meter = more.pop("meter", self.meter)
        return await self.client.complete(card, request or ask(), meter, **more)

    async def stream(self, request: ChatRequest | None = None) -> list[str | Completion]:
        pieces = self.client.stream(self.card, request or ask(), self.meter)
        return [piece async for piece in pieces]

    @property
    def asked(self) -> int:
        return len(self.provider.books)


Open = Callable[..., Any]


@pytest.fixture
def open_world(tmp_path: Path, ledger: Ledger) -> Open:
    @asynccontextmanager
    async def opened(**provider: Any) -> AsyncIterator[World]:
        with OutcomeStore.open(tmp_path / "store") as store:
            async with MockProvider(**provider) as running:
                world = World(running, store, ledger)
                try:
                    yield world
                finally:
                    await world.client.close()

    return opened


class TestHits:
    async def test_what_is_on_record_is_not_asked_again(self, open_world: Open) -> None:
        async with open_world() as world:
            first = await world.get()
            again = await world.get(ask(role=Role.FINAL, subtask=3, note="why"))
            assert world.asked == 1
            assert again == replace(
                first, attempts=0, ttft_s=first.latency_s, latency_s=first.latency_s
            )
            await world.ledger.flush()
            assert len(world.ledger.entries()) == 1
            paid, recorded = world.meter.calls
            assert recorded.cost == paid.cost == world.meter.spent > 0
            assert (recorded.usage, recorded.outcome) == (paid.usage, CallOutcome.OK)
            assert (recorded.role, recorded.subtask) == (Role.FINAL, 3)
            assert (recorded.attempt, recorded.note) == (0, "why; on record")

    async def test_it_outlives_the_process_and_needs_no_endpoint(self, open_world: Open) -> None:
        async with open_world() as world:
            first = await world.get()
            card = world.card
        async with open_world() as world:
            again = await world.get(card=card)  # whose provider is gone
            assert (again.text, again.usage, world.asked) == (first.text, first.usage, 0)

    async def test_what_is_kept_says_who_answered_what_at_which_price(
        self, open_world: Open
    ) -> None:
        async with open_world() as world:
            request = ask("ünd?", role=Role.CALIBRATION)
            before = time.time()
            completion = await world.get(request)
            kept = world.store.get(answer_key(world.card, request))
            assert kept is not None
            assert json.loads(kept.prompt) == [{"role": "user", "content": "ünd?"}]
            assert "ünd?" in kept.prompt
            assert (kept.answer, kept.usage, kept.cost) == (
                completion.text,
                completion.usage,
                completion.cost,
            )
            assert (kept.model, kept.revision) == ("small", "mock-small")
            assert (kept.input_price, kept.output_price) == ("0.15", "0.60")
            assert (kept.finish_reason, kept.source, kept.role) == (
                "stop",
                "test",
                Role.CALIBRATION,
            )
            assert kept.latency_s == completion.latency_s
            assert before <= kept.at <= time.time()

    async def test_a_hit_costs_what_the_card_says_today(self, open_world: Open) -> None:
        async with open_world() as world:
            first = await world.get()
            assert first.cost is not None
            dearer = replace(world.card, name="dear", price=Price(Decimal("1.5"), Decimal(6)))
            again = await world.get(card=dearer)
            assert (again.model, again.cost, world.asked) == ("dear", first.cost * 10, 1)
            unpriced = await world.get(card=replace(world.card, price=None))
            assert (unpriced.cost, world.meter.calls[-1].cost) == (None, None)

    async def test_a_hit_is_outside_the_cap_and_the_ledger(self, open_world: Open) -> None:
        async with open_world() as world:
            await world.get()
            world.ledger.close_sync()
            poor = Meter(world.ledger, "p", cap=0)
            assert (await world.get(meter=poor)).cost
            assert (poor.spent, poor.reserved, len(poor.calls)) == (0, 0, 1)

    @pytest.mark.parametrize(
        "other",
        [
            ask("other"),
            ask(max_tokens=49),
            ask(rank=1),
            ask(stop=("\n",)),
            ask(response_format={"type": "json_object"}),
        ],
    )
    async def test_what_is_not_the_same_is_asked(
        self, open_world: Open, other: ChatRequest
    ) -> None:
        async with open_world() as world:
            await world.get()
            await world.get(other)
            assert world.asked == len(world.store) == 2

    async def test_sampled_answers_are_kept_and_never_given_again(self, open_world: Open) -> None:
        async with open_world() as world:
            for _ in range(3):
                await world.get(ask(temperature=0.7))
            await world.stream(ask(temperature=0.7))
            assert world.asked == len(world.store) == 4
            key = answer_key(world.card, ask(temperature=0.7))
            assert {a.key[:32] for a in world.store.answers()} == {key}

    async def test_what_was_imported_without_an_answer_is_asked(self, open_world: Open) -> None:
        async with open_world() as world:
            await world.get()
            key = answer_key(world.card, ask())
            kept = world.store.get(key)
            world.store.put(replace(kept, answer=None))
            await world.get()
            assert world.asked == 2


class TestLogprobs:
    async def test_they_come_from_the_store(self, open_world: Open) -> None:
        async with open_world(logprob=lambda call: -0.25) as world:
            first = await world.get(ask(logprobs=True))
            again = await world.get(ask(logprobs=True))
            plain = await world.get()
            assert first.logprob == again.logprob == plain.logprob == pytest.approx(-0.25)
            assert world.asked == 1

    async def test_an_answer_without_them_is_asked_again_for_them(self, open_world: Open) -> None:
        async with open_world(logprob=lambda call: -0.25) as world:
            assert (await world.get()).logprob is None
            assert (await world.get(ask(logprobs=True))).logprob == pytest.approx(-0.25)
            assert (await world.get(ask(logprobs=True))).logprob == pytest.approx(-0.25)
            assert (world.asked, len(world.store)) == (2, 1)

    async def test_an_endpoint_that_does_not_tell_is_not_asked_for_ever(
        self, open_world: Open
    ) -> None:
        async with open_world() as world:
            for _ in range(3):
                assert (await world.get(ask(logprobs=True))).logprob is None
            assert world.asked == 1


class TestInFlight:
    async def test_equal_requests_share_one_call(self, open_world: Open) -> None:
        async with open_world(latency_s=0.05) as world:
            meters = [Meter(world.ledger, f"q{n}") for n in range(20)]
            got = await asyncio.gather(*(world.get(meter=meter) for meter in meters))
            assert world.asked == 1
            assert len({c.text for c in got}) == 1
            assert sorted(c.attempts for c in got) == [0] * 19 + [1]
            assert sum(meter.spent for meter in meters) == got[0].cost
            assert all(meter.calls[0].cost == got[0].cost for meter in meters)
            await world.ledger.flush()
            assert len(world.ledger.entries()) == 1

    async def test_streams_share_with_whole_answers(self, open_world: Open) -> None:
        async with open_world(latency_s=0.05) as world:
            streamed, whole, other = await asyncio.gather(
                world.stream(), world.get(), world.stream()
            )
            assert world.asked == 1
            assert "".join(map(str, streamed[:-1])) == whole.text == other[0]

    async def test_different_requests_do_not_wait_for_each_other(self, open_world: Open) -> None:
        async with open_world(latency_s=0.05) as world:
            await asyncio.gather(*(world.get(ask(str(n))) for n in range(5)))
            starts = [entry.started_at for entry in world.provider.books]
            ends = [entry.finished_at for entry in world.provider.books]
            assert max(starts) < min(ends)

    async def test_a_failure_that_would_be_theirs_is_shared(self, open_world: Open) -> None:
        async with open_world(latency_s=0.05, faults=lambda call: Fault.NOT_FOUND) as world:
            got = await asyncio.gather(*(world.get() for _ in range(9)), return_exceptions=True)
            assert {getattr(error, "fault", None) for error in got} == {CallFault.NOT_FOUND}
            assert world.asked == 1
            assert len(world.store) == 0
            with pytest.raises(CallError):  # a failure is not on record
                await world.get()
            assert world.asked == 2

    async def test_who_is_cancelled_does_not_take_the_others_along(self, open_world: Open) -> None:
        async with open_world(latency_s=0.1) as world:
            first = asyncio.create_task(world.get())
            await until(lambda: world.asked == 1)
            second = asyncio.create_task(world.get(meter=Meter(world.ledger, "r")))
            third = asyncio.create_task(world.get(meter=Meter(world.ledger, "s")))
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).text == (await third).text
            assert world.asked == 2
            with pytest.raises(asyncio.CancelledError):
                await first

    async def test_an_empty_purse_is_not_the_others(self, open_world: Open) -> None:
        async with open_world() as world:
            poor = Meter(world.ledger, "p", cap=0)
            purses = (poor, world.meter)
            got = await asyncio.gather(
                *(world.get(meter=meter) for meter in purses), return_exceptions=True
            )
            assert isinstance(got[0], BudgetExceeded)
            assert isinstance(got[1], Completion)
            assert world.asked == 1

    async def test_nobody_waits_past_a_deadline(self, open_world: Open) -> None:
        async with open_world(latency_s=0.3) as world:
            first = asyncio.create_task(world.get())
            await until(lambda: world.asked == 1)
            with pytest.raises(DeadlineExceeded):
                await world.get(deadline=time.monotonic() + 0.01)
            assert (await first).attempts == 1

    async def test_a_stream_left_early_is_not_kept_and_keeps_nobody_waiting(
        self, open_world: Open
    ) -> None:
        async with open_world(token_s=0.005) as world:
            async with aclosing(world.client.stream(world.card, ask(), world.meter)) as pieces:
                async for _ in pieces:
                    waiting = asyncio.create_task(world.get())
                    await asyncio.sleep(0)
                    break
            assert len(world.meter.calls) == 1  # settled at once, not when memory is cleared
            assert (await waiting).attempts == 1
            assert (world.asked, len(world.store)) == (2, 1)

    def test_one_client_serves_event_loops_one_after_the_other(
        self, tmp_path: Path, ledger: Ledger
    ) -> None:
        with OutcomeStore.open(tmp_path / "store") as store:
            client = RecordedClient(OpenAIClient(), store)

            async def once() -> tuple[int, int]:
                async with MockProvider() as provider:
                    card = card_at(provider.base_url)
                    await asyncio.gather(
                        *(client.complete(card, ask(), Meter(ledger, "q")) for _ in range(3))
                    )
                    await client.close()
                    return len(provider.books), len(store)

            assert [asyncio.run(once()) for _ in range(2)] == [(1, 1), (1, 2)]


class TestStreams:
    async def test_what_was_streamed_is_on_record_and_comes_in_one_piece(
        self, open_world: Open
    ) -> None:
        async with open_world() as world:
            first = await world.stream()
            again = await world.stream()
            assert len(first) > 3
            text, completion = again
            assert isinstance(completion, Completion)
            assert text == completion.text == "".join(map(str, first[:-1]))
            assert world.asked == 1

    async def test_a_cut_stream_is_not_on_record(self, open_world: Open) -> None:
        async with open_world(faults=[Fault.HALF_CLOSE_MID_CHUNK]) as world:
            with pytest.raises(CallError):
                await world.stream()
            assert len(world.store) == 0
            await world.stream()
            assert world.asked == 2


class TestFailures:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_an_empty_answer_was_paid_for_and_is_not_asked_again(
        self, open_world: Open, stream: bool
    ) -> None:
        async with open_world(answer=lambda call: "") as world:
            for _ in range(2):
                with pytest.raises(CallError) as caught:
                    await (world.stream() if stream else world.get())
                assert caught.value.fault is CallFault.EMPTY
            assert world.asked == 1
            paid, recorded = world.meter.calls
            assert paid.cost == recorded.cost > 0
            assert paid.usage == recorded.usage

    async def test_equal_requests_hear_of_an_empty_answer_too(self, open_world: Open) -> None:
        async with open_world(answer=lambda call: "", latency_s=0.05) as world:
            meters = [Meter(world.ledger, f"q{n}") for n in range(5)]
            got = await asyncio.gather(
                *(world.get(meter=meter) for meter in meters), return_exceptions=True
            )
            assert {getattr(error, "fault", None) for error in got} == {CallFault.EMPTY}
            assert world.asked == 1
            assert len({meter.calls[0].cost for meter in meters}) == 1

    async def test_an_answer_that_cannot_be_kept_stops_who_pays(self, open_world: Open) -> None:
        async with open_world() as world:
            folder = world.store.folder
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            with pytest.raises(ConfigError, match=r"cannot be opened: No such file"):
                await world.get()

    async def test_a_ledger_that_cannot_record_stops_the_asking(self, open_world: Open) -> None:
        async with open_world() as world:
            world.ledger.close_sync()
            with pytest.raises(LedgerError):
                await world.get()
            assert world.asked == 0


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    words = ["walk", "run"]
    chain = {"<sep>": ["run", "walk"], "run": ["<eos>"], "walk": ["<eos>"]}
    write_model(tmp_path / "models" / "runner", words, chain)
    return tmp_path / "models"


def local(weights: Path, sha256: str | None) -> Card:
    return Card(
        name="runner",
        endpoint=Endpoint(name="local", kind="embedded", path=weights),
        model="runner",
        price=Price(Decimal(1), Decimal(2)),
        context=64,
        max_tokens=8,
        prompt="plain",
        sha256=sha256,
    )


class TestInProcess:
    @pytest.mark.parametrize("told", [True, False])
    async def test_a_model_in_process_is_kept_under_its_weights(
        self, weights: Path, tmp_path: Path, ledger: Ledger, told: bool
    ) -> None:
        sha256 = checksum(weights / "runner")
        card = local(weights, sha256 if told else None)
        request = ChatRequest(messages=(Message("user", "walk"),), max_tokens=8, role=Role.WORKER)
        with OutcomeStore.open(tmp_path / "store") as store:
            client = RecordedClient(EmbeddedClient(), store)
            got = [await client.complete(card, request, Meter(ledger, "q")) for _ in range(3)]
            await client.close()
            assert [(c.text, c.attempts) for c in got] == [("run", 1), ("run", 0), ("run", 0)]
            (kept,) = store.answers()
            assert kept.revision == sha256
            assert kept.key == answer_key(local(weights, sha256), request)

    async def test_words_that_a_model_lacks_are_lacking_for_all(
        self, weights: Path, tmp_path: Path, ledger: Ledger
    ) -> None:
        request = ChatRequest(messages=(Message("user", "swim"),), max_tokens=8, role=Role.WORKER)
        with OutcomeStore.open(tmp_path / "store") as store:
            client = RecordedClient(EmbeddedClient(), store)
            card = local(weights, None)
            got = await asyncio.gather(
                *(client.complete(card, request, Meter(ledger, "q")) for _ in range(3)),
                return_exceptions=True,
            )
            await client.close()
            assert all(isinstance(error, UnknownWords) for error in got)
            assert len(store) == 0
