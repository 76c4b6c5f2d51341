"""An evaluation in shards: in this process, and on a local Ray of two CPUs."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

import toy_pool
from pools import serving
from r2reasoner.benchmarks import ARITHMETIC
from r2reasoner.config import settings
from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.evaluate import Conditions, Evaluation, evaluate, open_client
from r2reasoner.evaluation.rows import ItemRow, RowsFile
from r2reasoner.evaluation.sharded import answers, evaluate_in_shards
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.mock import MockProvider
from r2reasoner.nano.splits import make_items
from r2reasoner.pool.cards import Pool
from r2reasoner.training.shards import Engine

pytest.importorskip("pyarrow")
ITEMS = 12
CALLS = 4 * ITEMS
"""Of `r2@0` three for each item, of a single model one."""


def toy(base_url: str) -> Evaluation:
    return Evaluation(
        benchmark=toy_pool.SHOUT,
        split="all",
        items=toy_pool.items(ITEMS),
        strategies=("r2@0", "single:large"),
        pool=toy_pool.pool(base_url),
        settings=settings(),
    )


@pytest.fixture
def provider() -> Iterator[MockProvider]:
    """In a thread, as workers have event loops of their own."""
    provider = MockProvider(answer=toy_pool.answer)
    with serving(provider):
        yield provider


async def in_shards(
    wanted: Evaluation,
    folder: Path,
    engine: Engine,
    cap: Decimal | None = None,
    store: Path | None = None,
) -> list[list[ItemRow]]:
    with RowsFile(folder / "rows") as rows, SpendingLedger.open(folder / "ledger.db") as ledger:
        ledger.cap = settings(max_cost=cap).cap
        return await evaluate_in_shards(
            wanted, ledger, rows, engine=engine, in_flight=8, store=store
        )


async def alone(wanted: Evaluation, folder: Path) -> list[list[ItemRow]]:
    with SpendingLedger.open(folder / "ledger.db") as ledger, RowsFile(folder / "rows") as rows:
        async with open_client() as client:
            return await evaluate(wanted, ledger, client, rows)


def timeless(found: list[list[ItemRow]]) -> list[list[ItemRow]]:
    """What two runs have in common, whoever made them."""
    return [
        [replace(row, trace=None, latency_s=0.0, critical_path_s=0.0) for row in own]
        for own in found
    ]


async def test_the_same_rows_come_out_and_go_into_the_rows_file(
    provider: MockProvider, tmp_path: Path
) -> None:
    wanted, here = toy(provider.base_url), tmp_path / "here"
    made = await in_shards(wanted, here, Engine.ASYNCIO)
    assert timeless(made) == timeless(await alone(wanted, tmp_path))
    assert len(provider.books) == 2 * CALLS
    assert await in_shards(wanted, here, Engine.ASYNCIO) == made
    assert await alone(wanted, here) == made
    assert len(provider.books) == 2 * CALLS
    assert sorted(file.name for file in here.iterdir()) == ["ledger.db", "rows"]


async def test_a_run_that_was_broken_off_goes_on_and_pays_for_no_item_twice(
    provider: MockProvider, tmp_path: Path
) -> None:
    wanted = replace(toy(provider.base_url), strategies=("single:large",))
    with pytest.raises(CapReached):
        await in_shards(wanted, tmp_path, Engine.ASYNCIO, Decimal("0.014"))
    assert 0 < len(provider.books) < ITEMS
    (rows,) = await in_shards(wanted, tmp_path, Engine.ASYNCIO)
    assert len(provider.books) == len(rows) == ITEMS


async def test_workers_that_would_answer_otherwise_are_refused(
    provider: MockProvider, tmp_path: Path
) -> None:
    wanted = toy(provider.base_url)
    older = Conditions.of(wanted)._replace(context="of another version")
    with (
        SpendingLedger.open(tmp_path / "ledger.db") as ledger,
        pytest.raises(ConfigError, match="expected the same version, weights"),
    ):
        async with answers(ledger=ledger, evaluation=wanted, conditions=older, store=None):
            pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
class TestOnRay:
    @pytest.fixture(scope="class", autouse=True)
    def cluster(self) -> Iterator[None]:
        ray = pytest.importorskip("ray", reason="needs pip install 'r2reasoner[ray]'")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            patch.delenv("RAY_ADDRESS", raising=False)
            ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
            yield
            ray.shutdown()
            gc.collect()  # what Ray leaves to collect warns, which is ignored here only

    async def test_the_nano_pool_makes_the_same_rows(self, nano: Pool, tmp_path: Path) -> None:
        wanted = Evaluation(
            benchmark=ARITHMETIC,
            split="test",
            items=make_items(ARITHMETIC, "test", 0, 10),
            strategies=("r2", "random", f"single:{nano.strongest.name}"),
            pool=nano,
            settings=settings(),
        )
        made = await in_shards(wanted, tmp_path / "ray", Engine.RAY)
        assert timeless(made) == timeless(await alone(wanted, tmp_path))
        with SpendingLedger.open(tmp_path / "ray" / "ledger.db") as ledger:
            booked = sum(row.net_cost or 0 for own in made for row in own)
            assert ledger.totals().cost == booked > 0
            assert ledger.trace(made[0][0].trace or "").answer.text == made[0][0].answer

    async def test_the_cap_holds_and_what_is_on_record_is_not_paid_again(
        self, provider: MockProvider, tmp_path: Path
    ) -> None:
        provider.latency_s = 0.02
        wanted, store, cap = toy(provider.base_url), tmp_path / "store", Decimal("0.02")
        with pytest.raises(CapReached, match=r"the cap of \$0\.02 is reached"):
            await in_shards(wanted, tmp_path / "ray", Engine.RAY, cap, store)
        with SpendingLedger.open(tmp_path / "ray" / "ledger.db") as ledger:
            spent = ledger.totals()
        assert 0 < spent.cost <= cap * 10**12
        assert spent.calls == len(provider.books) < CALLS
        made = await in_shards(wanted, tmp_path / "ray", Engine.RAY, store=store)
        paid = len(provider.books)
        assert paid < CALLS == sum(row.calls for own in made for row in own)
        again = await in_shards(wanted, tmp_path / "again", Engine.RAY, store=store)
        assert len(provider.books) == paid
        assert all(row.on_record == row.calls for own in again for row in own)
        assert [[row.answer for row in own] for own in again] == [
            [row.answer for row in own] for own in made
        ]
