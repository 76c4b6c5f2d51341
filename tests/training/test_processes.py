"""The two data jobs, on shipped nano models and on a fake provider: rows, books and outcomes."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

import pools
from r2reasoner.client import PoolClient
from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider
from r2reasoner.outcomes.client import RecordedClient
from r2reasoner.outcomes.records import content_id
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.training import allocations as allocation_data
from r2reasoner.training import decompositions as decomposition_data
from r2reasoner.training.environment import open_environment
from r2reasoner.training.optimum import gap
from r2reasoner.training.processes import allocations, compared, decompositions
from r2reasoner.training.rows import Row, item_row
from r2reasoner.training.shard_folder import Job
from r2reasoner.training.shards import Factory, Process, run_shards
from r2reasoner.types import Task
from training_runs import begun

SCAN = 'benchmark = "scan"\ncount = 4'
COMMAND = Task("walk left and run twice", "I_TURN_LEFT I_WALK I_RUN I_RUN")
ITEM = item_row(COMMAND, "scan")
PLAN = "walk left ; run ; = #1 #2 #2"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return begun(tmp_path / "run", [SCAN], worker="64x2").run.folder


async def made(opening: AbstractAsyncContextManager[Process], *rows: Row) -> list[Row]:
    async with opening as process:
        return [await process(row) for row in rows]


class TestDecompositions:
    async def test_an_item_gets_the_plan_that_ran_best(self, run: Path, ledger: Ledger) -> None:
        (row,) = await made(decompositions(ledger=ledger, run=str(run)), ITEM)
        assert decomposition_data.FORM.checked(ITEM, row) == row
        assert row["right"] is True
        candidates = json.loads(row["candidates"])
        assert row["score"] == min(c["score"] for c in candidates if c["right"])
        assert candidates[0]["plan"] == "=", "answering directly is among them"
        assert row["calls"] == sum(c["subtasks"] for c in candidates)
        assert json.loads(row["settings"])["worker"] == "64x2"

    async def test_nothing_is_asked_twice(self, run: Path) -> None:
        with SpendingLedger.open(run / "ledger.db") as ledger:
            first = await made(decompositions(ledger=ledger, run=str(run)), ITEM)
            await ledger.flush()
            paid = ledger.totals()
            assert paid.calls > 0
            with OutcomeStore.open(run / "outcomes") as store:
                assert len(store) == paid.calls
            again = await made(decompositions(ledger=ledger, run=str(run)), ITEM)
            await ledger.flush()
            assert (again, ledger.totals()) == (first, paid)

    async def test_it_leaves_word_of_how_answers_did(self, run: Path, ledger: Ledger) -> None:
        (row,) = await made(decompositions(ledger=ledger, run=str(run)), ITEM)
        with OutcomeStore.open(run / "outcomes") as store:
            outcomes = [o for o in store.outcomes() if o.plan == content_id(row["plan"])]
            answers = {o.key: store.get(o.key) for o in outcomes}
        assert {o.item for o in outcomes} == {ITEM["item"]}
        assert {o.score for o in outcomes} == {1.0}
        assert {o.model for o in outcomes} == {"64x2"}
        assert all(a is not None and a.source == "decompositions" for a in answers.values())

    async def test_as_many_candidates_as_the_recipe_says(
        self, tmp_path: Path, ledger: Ledger
    ) -> None:
        folder = begun(tmp_path / "few", [SCAN], "data.candidates=2").run.folder
        (row,) = await made(decompositions(ledger=ledger, run=str(folder)), ITEM)
        assert len(json.loads(row["candidates"])) == 2

    async def test_an_item_that_no_candidate_solves_is_left_out_alone(
        self, run: Path, ledger: Ledger
    ) -> None:
        unsolved = item_row(Task("walk", "I_JUMP"), "scan")
        solved, left_out = await made(decompositions(ledger=ledger, run=str(run)), ITEM, unsolved)
        assert (left_out["plan"], left_out["lines"], left_out["right"]) == (None, "[]", False)
        assert solved["plan"] is not None
        said = decomposition_data.summary([solved, left_out])
        assert "2 items" in said
        assert "1 items with a right plan, 1 left out" in said

    async def test_plans_of_parts_are_proposed_for_longer_items(
        self, tmp_path: Path, ledger: Ledger
    ) -> None:
        run = begun(
            tmp_path / "jump", [SCAN], "data.nano_set=addprim_jump", worker="64x2"
        ).run.folder
        parts = [
            item_row(Task("walk left", "I_TURN_LEFT I_WALK"), "scan"),
            item_row(Task("run twice", "I_RUN I_RUN"), "scan"),
        ]
        with SpendingLedger.open(run / "ledger.db") as spending:
            job = Job(
                out=run / "data" / "parts", rows=parts, config={}, form=decomposition_data.FORM
            )
            job.out.parent.mkdir()
            factory = Factory("r2reasoner.training.processes:decompositions", {"run": str(run)})
            await run_shards(job, factory, spending)
        opening = decompositions(ledger=ledger, run=str(run), known="parts")
        (known,) = await made(opening, ITEM)
        (guessed,) = await made(decompositions(ledger=ledger, run=str(run)), ITEM)
        assert known["right"] is True
        few, many = (len(json.loads(row["candidates"])) for row in (known, guessed))
        assert few < many, "what is known is not guessed"


class TestPrompted:
    """Candidates that a chat model writes, over HTTP."""

    @asynccontextmanager
    async def provided(self, tmp_path: Path) -> AsyncIterator[tuple[MockProvider, Path]]:
        def answer(call: ChatCall) -> str:
            if call.role == "decomposer":
                return pools.plan_json("12 + 34", ("#1 * 2", [1]))
            return {"12 + 34": "46", "#1 * 2": "92"}.get(pools.step_of(call), "none")

        async with MockProvider(answer=answer) as provider:
            file = pools.pool_file(tmp_path, provider.base_url)
            items = tmp_path / "sums.jsonl"
            items.write_text(json.dumps({"query": "( 12 + 34 ) * 2", "answer": "92"}) + "\n")
            source = f'benchmark = "{items}"\nscorer = "number"'
            settings = ["data.nano_set=none", "data.proposer=prompted", "data.candidates=4"]
            settings += ["data.proposer_model=large", f'recipe.pool="{file}"']
            yield provider, begun(tmp_path / "run", [source], *settings).run.folder

    async def test_answering_directly_is_one_of_the_candidates(
        self, tmp_path: Path, ledger: Ledger
    ) -> None:
        async with self.provided(tmp_path) as (provider, run):
            environment = open_environment(run)
            (item,) = environment.searched()
            (row,) = await made(decompositions(ledger=ledger, run=str(run)), item)
            asked = [entry for entry in provider.books if entry.model == "large"]
        assert row["right"] is True
        # three plans are written, all the same one, whose two subtasks run, and the direct call
        assert len(asked) == 3 + 2 + 1
        assert row["calls"] == 6
        assert len(json.loads(row["candidates"])) == 2


class TestAllocations:
    PLANNED = ITEM | {"plan": PLAN}

    async def test_an_item_gets_the_models_of_the_grouped_search(
        self, run: Path, ledger: Ledger
    ) -> None:
        (row,) = await made(
            allocations(ledger=ledger, run=str(run), thresholds=(-0.1, -0.01)), self.PLANNED
        )
        assert allocation_data.FORM.checked(self.PLANNED, row) == row
        assert row["right"] is True
        assert row["cost"] < row["reference_cost"]
        assert json.loads(row["settings"])["thresholds"] == [-0.1, -0.01]
        assert len(json.loads(row["subtasks"])) == 2

    async def test_it_leaves_word_of_every_model_that_was_tried(
        self, run: Path, ledger: Ledger
    ) -> None:
        (row,) = await made(allocations(ledger=ledger, run=str(run), thresholds=None), self.PLANNED)
        tried = {m for t in json.loads(row["path"])["trials"] for m in t["models"]}
        with OutcomeStore.open(run / "outcomes") as store:
            outcomes = store.outcomes()
        assert {o.model for o in outcomes} == tried
        assert {o.plan for o in outcomes} == {content_id(PLAN)}
        assert {o.source for o in outcomes} == {"allocations: runs"}
        right = [o for o in outcomes if o.score == 1.0]
        assert {o.subtask for o in right} == {1, 2}

    async def test_it_is_compared_with_all_allocations(self, run: Path) -> None:
        environment = open_environment(run)
        with SpendingLedger.open(run / "ledger.db") as ledger:
            with OutcomeStore.open(run / "outcomes") as store:
                client = RecordedClient(PoolClient(), store)
                found = await compared(environment, client, ledger, None, [self.PLANNED])
                await client.close()
            one = gap(found)
            assert (one.items, one.solvable, one.missed) == (1, 1, 0.0)
            assert one.all_trials == 81
            assert one.trials < one.all_trials
            await ledger.flush()
            # nine models, two subtasks: no answer is asked for again
            assert ledger.totals().calls <= 18

    async def test_a_dollar_cap_holds(self, run: Path) -> None:
        with SpendingLedger.open(run / "ledger.db") as ledger:
            ledger.cap = 1_000
            with pytest.raises(CapReached, match="the cap of"):
                await made(allocations(ledger=ledger, run=str(run), thresholds=None), self.PLANNED)
            await ledger.flush()
            assert ledger.totals().cost <= 1_000


async def test_a_folder_that_is_no_run(tmp_path: Path, ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml"):
        await made(decompositions(ledger=ledger, run=str(tmp_path)), ITEM)
