"""Calibration against the fake provider: what is measured is what the models can do."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from models import write_model
from pools import NoJitter, answers, plan_json, pool_at, step_of
from r2reasoner.budget import Meter
from r2reasoner.calibrate import Calibration, Measured, write_outcomes
from r2reasoner.client.base import Client
from r2reasoner.client.embedded import EmbeddedClient
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.decomposer import Decomposer, Direct, PromptedDecomposer
from r2reasoner.errors import BudgetExceeded, DataError, LedgerError, UnknownWords
from r2reasoner.estimate import OutcomeModel
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, Fault, MockProvider
from r2reasoner.pool.cards import Card, Endpoint, Pool
from r2reasoner.references import read_references, references_file
from r2reasoner.types import Role, Task

CHAIN = plan_json("double 4", ("add 1 to #1", [1]))
TRUTH = {"double 4": "8", "add 1 to #1": "9"}
CAN = {"small": {"double 4"}, "medium": set(TRUTH), "large": {"add 1 to #1"}}
ITEM = Task("double 4, add 1", "9")


def worker(call: ChatCall) -> str:
    """Say what is right if the model can do the step and was given the right answers before."""
    step = step_of(call)
    misled = "#1" in step and "#1: 8" not in call.last_user
    return TRUTH[step] if step in CAN[call.model] and not misled else "no idea"


def same(answer: str, gold: str) -> bool | None:
    return answer.strip() == gold


@asynccontextmanager
async def calibrating(
    ledger: Ledger,
    *,
    planner: str = CHAIN,
    work: Callable[[ChatCall], str] = worker,
    grade: Callable[[str, str], bool | None] = same,
    cap: int | None = None,
    faults: Callable[[ChatCall], Fault | None] | None = None,
    decomposer: Decomposer | None = None,
    asked: list[ChatCall] | None = None,
) -> AsyncIterator[Calibration]:
    script = answers(planner, work)

    def answer(call: ChatCall) -> str:
        if asked is not None:
            asked.append(call)
        return script(call)

    async with MockProvider(answer=answer, faults=faults) as provider:
        pool = pool_at(provider.base_url)
        client: Client = OpenAIClient(NoJitter())
        planner_of = decomposer or PromptedDecomposer(pool.card("planner"))
        try:
            yield Calibration(pool, client, planner_of, Meter(ledger, "c", cap), grade)
        finally:
            await client.close()


def table(measured: Measured) -> dict[tuple[str, str], bool]:
    return {(o.text, o.model): o.right for o in measured.outcomes}


async def test_every_model_does_every_subtask_on_the_reference_of_a_right_run(
    ledger: Ledger,
) -> None:
    asked: list[ChatCall] = []
    heard: list[int] = []
    async with calibrating(ledger, asked=asked) as calibration:
        measured = await calibration.run([ITEM, ITEM], heard.append)
    assert (measured.items, measured.unsolved, measured.ungraded) == (2, 0, 0)
    assert heard == [1, 2]
    assert table(measured) == {
        (text, model): step in able
        for model, able in CAN.items()
        for step, text in zip(TRUTH, ("double 4", "add 1 to # [ double 4 ]"), strict=True)
    }
    assert all(o.cost is not None and o.cost > 0 for o in measured.outcomes)
    # on the reference's inputs: large cannot double, and is still asked to add 1 to 8
    probes = [c for c in asked if c.role == "calibration" and step_of(c) == "add 1 to #1"]
    assert all("#1: 8" in c.last_user for c in probes)
    roles = Counter(e.role for e in ledger.entries())
    assert roles[Role.CALIBRATION] == 12


async def test_an_item_that_no_model_gets_right_teaches_nothing(ledger: Ledger) -> None:
    async with calibrating(ledger) as calibration:
        measured = await calibration.run([Task("double 4, add 1", "10")])
    assert (measured.outcomes, measured.items, measured.unsolved) == ([], 1, 1)


async def test_an_answer_that_cannot_be_graded_is_counted(ledger: Ledger) -> None:
    async with calibrating(ledger, grade=lambda answer, gold: None) as calibration:
        measured = await calibration.run([ITEM])
    assert (measured.unsolved, measured.ungraded) == (1, 3)


async def test_a_partial_answer_that_happens_to_be_right_is_no_reference(ledger: Ledger) -> None:
    def fault(call: ChatCall) -> Fault | None:
        return Fault.NOT_FOUND if step_of(call) == "b #1" else None

    async with calibrating(
        ledger, planner=plan_json("a", "b #1", answer="#1 #2"), work=lambda c: "9", faults=fault
    ) as calibration:
        measured = await calibration.run([ITEM])
    assert (measured.outcomes, measured.unsolved) == ([], 1)


async def test_a_model_that_fails_on_a_subtask_is_not_counted_as_wrong(ledger: Ledger) -> None:
    def fault(call: ChatCall) -> Fault | None:
        return Fault.FORBIDDEN if call.model == "small" else None

    async with calibrating(ledger, faults=fault) as calibration:
        measured = await calibration.run([ITEM])
    assert {o.model for o in measured.outcomes} == {"medium", "large"}


async def test_an_item_may_be_answered_directly(ledger: Ledger) -> None:
    async with calibrating(
        ledger, decomposer=Direct(), work=lambda c: "9" if c.model == "large" else "8"
    ) as calibration:
        measured = await calibration.run([ITEM])
    assert table(measured) == {
        (ITEM.query, "small"): False,
        (ITEM.query, "medium"): False,
        (ITEM.query, "large"): True,
    }


async def test_the_cap_ends_it_with_one_clear_error_and_keeps_what_was_found(
    ledger: Ledger,
) -> None:
    async with calibrating(ledger, decomposer=Direct(), work=lambda c: "9", cap=10**11) as c:
        with pytest.raises(BudgetExceeded, match="raise the budget"):
            await c.run([ITEM] * 40)
        assert 0 < len(c.measured.outcomes) < 120
    spent = sum(e.cost or 0 for e in ledger.entries())
    assert 0 < spent <= 10**11


async def test_other_errors_come_alone_too(ledger: Ledger, tmp_path: Path) -> None:
    async with calibrating(ledger) as calibration:
        ledger.close_sync()
        with pytest.raises(LedgerError):
            await calibration.run([ITEM] * 3)


async def test_words_that_no_model_has(ledger: Ledger, tmp_path: Path) -> None:
    write_model(tmp_path / "tiny", ["walk"], {"<sep>": ["walk"], "walk": ["<eos>"]})
    card = Card(
        name="tiny",
        endpoint=Endpoint(name="local", kind="embedded", path=tmp_path),
        model="tiny",
        price=None,
        context=64,
        max_tokens=8,
        prompt="plain",
    )
    pool = Pool(name="p", workers=(card,), policies={}, decomposer="tiny", allocator="ladder")
    client = EmbeddedClient()
    calibration = Calibration(pool, client, Direct(), Meter(ledger, "c"), same)
    with pytest.raises(UnknownWords, match="France"):
        await calibration.run([Task("walk", "walk"), Task("capital of France", "Paris")])
    await client.close()


class TestWriting:
    async def test_outcomes_and_estimate_stand_beside_each_other(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        async with calibrating(ledger) as calibration:
            measured = await calibration.run([ITEM])
        model = write_outcomes(measured, tmp_path / "mine.npz")
        names = {f.name for f in tmp_path.glob("mine*")}  # noqa: ASYNC240
        assert names == {"mine.jsonl", "mine.npz", "mine.references.jsonl"}
        lines = [json.loads(line) for line in (tmp_path / "mine.jsonl").read_text().splitlines()]
        assert len(lines) == 6
        assert set(lines[0]) == {"text", "model", "right", "cost"}
        loaded = OutcomeModel.load(tmp_path / "mine.npz")
        assert loaded.models == model.models == ("large", "medium", "small")

    async def test_what_stood_right_is_kept_for_models_to_come(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        async with calibrating(ledger) as calibration:
            measured = await calibration.run([ITEM, Task("double 4, add 1", "10")])
        write_outcomes(measured, tmp_path / "mine.npz", "number")
        recorded = read_references(references_file(tmp_path / "mine.npz"))
        assert recorded.scorer == "number"
        assert recorded.references == tuple(measured.references)
        (reference,) = recorded.references  # nobody was right on the second item
        assert (reference.query, reference.gold) == ITEM
        assert reference.answers == {1: "8", 2: "9"}

    def test_nothing_measured_is_said_so(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="none of the 3 items"):
            write_outcomes(Measured(items=3, unsolved=3), tmp_path / "mine.npz")
        assert list(tmp_path.iterdir()) == []
