"""Models in process: real CTranslate2 models that say what a test wants, and the shipped ones."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from math import exp, log
from pathlib import Path
from typing import Any

import pytest

from models import write_model
from r2reasoner.budget import Meter
from r2reasoner.client import PoolClient
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.client.embedded import EmbeddedClient, EmbeddedModel, checksum
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
from r2reasoner.pool.cards import Card, Endpoint, Pool, Price
from r2reasoner.types import CallOutcome, Message, Role, Usage

PRICE = Price(Decimal(1), Decimal(2))
CHAIN = {
    "<sep>": ["run", "walk"],
    "run": ["left"],
    "walk": ["right"],
    "left": ["<eos>"],
    "right": ["<eos>"],
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    words = ["walk", "run", "left", "right"]
    write_model(folder / "runner", words, CHAIN)
    write_model(folder / "endless", words, {"<sep>": ["run"], "run": ["run"]})
    write_model(folder / "mute", words, {"<sep>": ["<eos>"]})
    return folder


@pytest.fixture
def card(folder: Path) -> Card:
    return Card(
        name="runner",
        endpoint=Endpoint(name="local", kind="embedded", path=folder),
        model="runner",
        price=PRICE,
        context=64,
        max_tokens=20,
        prompt="plain",
    )


@pytest.fixture
async def client() -> AsyncIterator[EmbeddedClient]:
    client = EmbeddedClient()
    yield client
    await client.close()


@pytest.fixture
def meter(ledger: Ledger) -> Meter:
    return Meter(ledger, "q")


def ask(text: str = "walk left", **more: Any) -> ChatRequest:
    settings: dict[str, Any] = {"max_tokens": 20, "role": Role.WORKER} | more
    return ChatRequest(messages=(Message("user", text),), **settings)


class TestAnswers:
    async def test_a_whole_answer_and_its_entry(
        self, client: EmbeddedClient, card: Card, meter: Meter, ledger: Ledger
    ) -> None:
        got = await client.complete(card, ask(subtask=3, note="why"), meter)
        usage = Usage(4, 3)  # <bos> walk left <sep>, then run left <eos>
        assert (got.text, got.usage, got.finish_reason) == ("run left", usage, "stop")
        assert got.cost == PRICE.cost(usage) == meter.spent
        assert (got.model, got.attempts) == ("runner", 1)
        await ledger.flush()
        (entry,) = ledger.entries()
        assert (entry.outcome, entry.usage, entry.cost) == (CallOutcome.OK, usage, got.cost)
        assert (entry.subtask, entry.note, entry.role) == (3, "why", Role.WORKER)
        assert entry.bound == PRICE.cost(Usage(4, 20))

    async def test_rank_asks_for_the_next_beam(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        assert (await client.complete(card, ask(rank=1), meter)).text == "walk right"

    async def test_a_rank_that_there_is_not(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        got = await client.complete(card, ask(rank=5), meter)
        assert got.text  # the last beam that there is

    async def test_what_does_not_end_is_cut_and_says_so(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        got = await client.complete(replace(card, model="endless"), ask(max_tokens=5), meter)
        assert (got.text, got.finish_reason) == ("run run run run run", "length")
        assert got.usage == Usage(4, 5)

    async def test_an_empty_answer_is_a_failure_that_cost_money(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        with pytest.raises(CallError) as caught:
            await client.complete(replace(card, model="mute"), ask(), meter)
        assert caught.value.fault is CallFault.EMPTY
        assert meter.spent == PRICE.cost(Usage(4, 1))

    async def test_a_stream_is_one_piece_and_its_completion(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        pieces = [piece async for piece in client.stream(card, ask(), meter)]
        assert pieces[0] == "run left"
        assert isinstance(pieces[1], Completion)
        assert len(meter.calls) == 1

    async def test_many_at_once_get_each_their_own(
        self, client: EmbeddedClient, card: Card, meter: Meter, ledger: Ledger
    ) -> None:
        requests = [ask("walk " * (1 + n % 7), rank=n % 2) for n in range(300)]
        got = await asyncio.gather(*(client.complete(card, r, meter) for r in requests))
        assert [g.text for g in got] == ["run left", "walk right"] * 150
        assert [g.usage.input_tokens for g in got] == [3 + n % 7 for n in range(300)]
        await ledger.flush()
        assert len(ledger.entries()) == 300
        assert meter.reserved == 0

    async def test_the_pool_client_finds_it_by_the_cards_endpoint(
        self, card: Card, meter: Meter
    ) -> None:
        client = PoolClient()
        assert (await client.complete(card, ask(), meter)).text == "run left"
        pieces = [piece async for piece in client.stream(card, ask(), meter)]
        assert pieces[0] == "run left"
        await client.close()
        assert (await client.complete(card, ask(), meter)).text == "run left"  # opened anew
        await client.close()

    def test_one_client_serves_one_event_loop_after_the_other(
        self, card: Card, ledger: Ledger
    ) -> None:
        client = EmbeddedClient()
        for n in range(3):
            got = asyncio.run(client.complete(card, ask(), Meter(ledger, f"q{n}")))
            assert got.text == "run left"
        asyncio.run(client.close())


class TestLogProbabilities:
    async def test_the_mean_over_the_answers_tokens(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        got = await client.complete(card, ask(logprobs=True), meter)
        # the test model adds 3 to the logit of what may follow first, 2 to the second: the
        # embedding is normalised, a one-hot of 9 tokens becomes 3
        first = 9 - log(exp(9) + exp(6) + 7)
        second = 9 - log(exp(9) + 8)
        assert got.text == "run left"
        assert got.logprob == pytest.approx((first + second) / 2, abs=1e-3)

    async def test_only_when_asked_for(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        assert (await client.complete(card, ask(), meter)).logprob is None

    async def test_the_next_beam_is_less_likely(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        first, second = [
            (await client.complete(card, ask(logprobs=True, rank=rank), meter)).logprob
            for rank in (0, 1)
        ]
        assert first is not None
        assert second is not None
        assert second < first

    async def test_asked_for_or_not_in_one_batch(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        requests = [ask("walk " * (1 + n % 7), logprobs=n % 2 == 1) for n in range(100)]
        got = await asyncio.gather(*(client.complete(card, r, meter) for r in requests))
        assert {g.text for g in got} == {"run left"}
        assert {g.logprob is None for g in got[::2]} == {True}
        # what follows depends on the last token alone in this model
        assert {round(g.logprob or 0, 4) for g in got[1::2]} == {round(got[1].logprob or 0, 4)}

    async def test_a_long_prompt_is_not_cut(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        long = replace(card, context=5000)
        short = await client.complete(card, ask(logprobs=True), meter)
        got = await client.complete(long, ask("walk " * 2000, logprobs=True), meter)
        assert got.logprob == pytest.approx(short.logprob, abs=1e-3)


class TestRefusals:
    async def test_unknown_words_are_refused_before_anything_is_recorded(
        self, client: EmbeddedClient, card: Card, meter: Meter, ledger: Ledger
    ) -> None:
        with pytest.raises(UnknownWords, match="France"):
            await client.complete(card, ask("capital of France"), meter)
        await ledger.flush()
        assert ledger.entries() == []

    async def test_what_does_not_fit_the_context(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        with pytest.raises(CallError, match="context of 64") as caught:
            await client.complete(card, ask("walk " * 50), meter)
        assert caught.value.fault is CallFault.REFUSED_INPUT
        assert meter.calls == []

    async def test_money(self, client: EmbeddedClient, card: Card, ledger: Ledger) -> None:
        cap = PRICE.cost(Usage(4, 20))
        with pytest.raises(BudgetExceeded):
            await client.complete(card, ask(), Meter(ledger, "q", cap - 1))
        assert (await client.complete(card, ask(), Meter(ledger, "q", cap))).text == "run left"

    async def test_a_deadline_that_has_passed_lets_nothing_start(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        with pytest.raises(DeadlineExceeded):
            await client.complete(card, ask(), meter, time.monotonic() - 0.1)
        assert meter.calls == []

    async def test_a_closed_ledger_lets_nothing_start(
        self, client: EmbeddedClient, card: Card, meter: Meter, ledger: Ledger
    ) -> None:
        ledger.close_sync()
        with pytest.raises(LedgerError):
            await client.complete(card, ask(), meter)

    async def test_an_answer_that_comes_too_late_is_charged_at_its_bound(
        self, client: EmbeddedClient, card: Card, meter: Meter, folder: Path
    ) -> None:
        slow = replace(card, model="endless", context=100_000)
        request = ask(max_tokens=50_000)
        with pytest.raises(DeadlineExceeded, match="runner"):
            await client.complete(slow, request, meter, time.monotonic() + 0.2)
        (call,) = meter.calls
        assert call.outcome is CallOutcome.UNKNOWN
        assert call.cost == call.bound == PRICE.cost(Usage(4, 50_000))

    async def test_a_cancelled_call_is_settled(
        self, client: EmbeddedClient, card: Card, meter: Meter, ledger: Ledger
    ) -> None:
        slow = replace(card, model="endless", context=100_000)
        task = asyncio.create_task(client.complete(slow, ask(max_tokens=50_000), meter))
        while not meter.reserved:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ledger.flush()
        (entry,) = ledger.entries()
        assert entry.outcome in (CallOutcome.UNKNOWN, CallOutcome.FAILED)
        assert meter.reserved == 0

    async def test_nobody_waits_for_what_nobody_wants_any_more(
        self, client: EmbeddedClient, card: Card, meter: Meter
    ) -> None:
        endless = replace(card, model="endless", context=10**9)
        with pytest.raises(DeadlineExceeded):
            # years of tokens: closing would never return if it were not stopped between two
            await client.complete(endless, ask(max_tokens=10**8), meter, time.monotonic() + 0.1)
        async with asyncio.timeout(30):
            await asyncio.to_thread(client.model(endless).close)


class TestClosing:
    async def test_a_call_after_closing_fails_and_does_not_hang(self, folder: Path) -> None:
        model = EmbeddedModel(folder / "runner", None)
        model.close()
        with pytest.raises(RuntimeError, match="closed"):
            await model.generate(["<bos>", "walk", "<sep>"], 5, 0)

    async def test_what_is_queued_is_still_answered(self, folder: Path) -> None:
        model = EmbeddedModel(folder / "runner", None)
        wishes = [
            asyncio.create_task(model.generate(["<bos>", "walk", "<sep>"], 5, 0)) for _ in range(9)
        ]
        await asyncio.sleep(0)
        await asyncio.to_thread(model.close)
        assert [wish.tokens for wish in await asyncio.gather(*wishes)] == [["run", "left"]] * 9

    async def test_a_call_that_meets_a_closing_client_fails_with_a_typed_error(
        self, card: Card, meter: Meter
    ) -> None:
        client = EmbeddedClient()
        model = client.model(card)
        model.close()
        with pytest.raises(CallError, match="closed"):
            await client.complete(card, ask(), meter)
        assert meter.reserved == 0

    async def test_no_thread_is_left(self, card: Card, meter: Meter) -> None:
        client = EmbeddedClient()
        await client.complete(card, ask(), meter)
        assert any(t.name == "r2-runner" for t in threading.enumerate())
        await client.close()
        assert not any(t.name == "r2-runner" for t in threading.enumerate())

    async def test_a_broken_request_does_not_stop_the_model(self, folder: Path) -> None:
        model = EmbeddedModel(folder / "runner", None)
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            await model.generate([], -5, 0)
        assert (await model.generate(["<bos>", "walk", "<sep>"], 5, 0)).tokens == ["run", "left"]
        model.close()


class TestFiles:
    def test_the_checksum_is_of_all_that_decides_an_answer(
        self, folder: Path, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(folder / "runner", copy)
        before = checksum(copy)
        assert before == checksum(folder / "runner")
        for name in ("model.bin", "vocabulary.json", "config.json"):
            original = (copy / name).read_bytes()
            (copy / name).write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
            assert checksum(copy) != before
            (copy / name).write_bytes(original)
        assert checksum(copy) == before

    def test_a_checksum_that_does_not_match(self, folder: Path) -> None:
        EmbeddedModel(folder / "runner", checksum(folder / "runner")).close()
        with pytest.raises(ConfigError, match="sha256"):
            EmbeddedModel(folder / "runner", checksum(folder / "mute"))

    @pytest.mark.parametrize("missing", ["model.bin", "vocabulary.json", "config.json"])
    def test_a_missing_file_is_named(self, folder: Path, tmp_path: Path, missing: str) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(folder / "runner", copy)
        (copy / missing).unlink()
        with pytest.raises(ConfigError, match=missing):
            EmbeddedModel(copy, None)

    @pytest.mark.parametrize("content", [b"", b"no model", b"\x06\x00\x00\x00" + b"\xff" * 100])
    def test_foreign_weights(self, folder: Path, tmp_path: Path, content: bytes) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(folder / "runner", copy)
        (copy / "model.bin").write_bytes(content)
        with pytest.raises(ConfigError, match="CTranslate2"):
            EmbeddedModel(copy, None)

    def test_cards_that_name_no_model(self, card: Card, tmp_path: Path) -> None:
        client = EmbeddedClient()
        with pytest.raises(ConfigError, match="needs a path"):
            client.model(replace(card, endpoint=replace(card.endpoint, path=None)))
        with pytest.raises(ConfigError, match="no converted model here"):
            client.model(replace(card, model="gone"))


class TestShipped:
    async def test_every_model_answers_what_it_was_made_for(
        self, nano: Pool, ledger: Ledger
    ) -> None:
        client = PoolClient()
        meter = Meter(ledger, "q")
        got = [
            await client.complete(card, ask("walk left", max_tokens=56), meter)
            for card in nano.workers
        ]
        await client.close()
        assert all(g.text.startswith("I_") for g in got)
        right = sum(g.text == "I_TURN_LEFT I_WALK" for g in got)
        assert right >= len(got) - 1
        assert all(
            g.cost == g.usage.input_tokens * p + g.usage.output_tokens * p
            for g, p in zip(got, [c.parameters or 0 for c in nano.workers], strict=True)
        )

    async def test_batches_say_what_single_calls_say(self, nano: Pool, ledger: Ledger) -> None:
        client = PoolClient()
        texts = [f"{a} + {b}" for a in range(11, 19) for b in (7, 23, 58)]
        meter = Meter(ledger, "q")
        card = nano.strongest
        alone = [(await client.complete(card, ask(t), meter)).text for t in texts]
        together = await asyncio.gather(*(client.complete(card, ask(t), meter) for t in texts))
        await client.close()
        same = sum(a == b.text for a, b in zip(alone, together, strict=True))
        assert same >= len(texts) - 1  # batch shape can flip a near tie
