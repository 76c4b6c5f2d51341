import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy_pool
from r2reasoner.benchmarks import BENCHMARKS
from r2reasoner.config import settings
from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.evaluate import (
    EMBEDDED_IN_FLIGHT,
    HTTP_IN_FLIGHT,
    UNREACHED_IN_A_ROW,
    Evaluation,
    Progress,
    Unreachable,
    default_in_flight,
    evaluate,
    limited,
    open_client,
)
from r2reasoner.evaluation.rows import ItemRow, RowsFile
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.mock import ChatCall, Fault, MockProvider
from r2reasoner.pool.cards import Pool

STRATEGIES = ("r2@0", "single:large", "cheapest")


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    async with MockProvider(answer=toy_pool.answer) as provider:
        yield provider


def evaluation(provider: MockProvider, count: int = 12, **changes: object) -> Evaluation:
    plain = Evaluation(
        benchmark=toy_pool.SHOUT,
        split="all",
        items=toy_pool.items(count),
        strategies=STRATEGIES,
        pool=toy_pool.pool(provider.base_url),
        settings=settings(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


async def run(
    wanted: Evaluation,
    folder: Path,
    *,
    cap: Decimal | None = None,
    again: bool = False,
    in_flight: int = 8,
    progress: Callable[[Progress], None] = lambda progress: None,
    store: Path | None = None,
) -> list[list[ItemRow]]:
    with SpendingLedger.open(folder / "ledger.db") as ledger, RowsFile(folder / "rows") as rows:
        ledger.cap = settings(max_cost=cap).cap
        async with open_client(store) as client:
            return await evaluate(
                wanted, ledger, client, rows, in_flight=in_flight, again=again, progress=progress
            )


async def test_every_item_is_answered_scored_and_billed(
    provider: MockProvider, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    wanted = evaluation(provider)
    r2, single, cheapest = await run(wanted, tmp_path, progress=seen.append)
    for rows in (r2, single, cheapest):
        assert [row.item for row in rows] == [item.id for item in wanted.items]
    assert all(row.right and row.models == {"large": 2} for row in r2)
    assert not any(row.right or row.decomposed for row in single)
    assert all(row.fell_back and row.status == "complete" for row in cheapest)
    assert all(row.calls == 3 and row.subtasks == 2 for row in r2)
    assert {(p.done, p.total) for p in seen} == {(n, 36) for n in range(1, 37)}
    with SpendingLedger.open(tmp_path / "ledger.db") as ledger:
        assert ledger.totals().cost == seen[-1].spent
        assert ledger.totals().calls == len(provider.books)
        booked = sum(row.net_cost or 0 for rows in (r2, single, cheapest) for row in rows)
        assert booked == seen[-1].spent
        assert ledger.trace(r2[0].trace or "").answer.text == r2[0].answer


async def test_what_has_a_row_is_not_run_again_unless_something_changed(
    provider: MockProvider, tmp_path: Path
) -> None:
    first = await run(evaluation(provider, 6), tmp_path)
    calls = len(provider.books)
    assert await run(evaluation(provider, 6), tmp_path) == first
    assert len(provider.books) == calls
    more = await run(evaluation(provider, 8, strategies=("single:large",)), tmp_path)
    assert more[0][:6] == first[1]
    assert len(provider.books) == calls + 2
    await run(evaluation(provider, 8, strategies=("single:large",), seed=1), tmp_path)
    await run(
        evaluation(provider, 8, strategies=("single:large",), settings=settings(trade_off=1)),
        tmp_path,
    )
    assert len(provider.books) == calls + 2 + 16


async def test_a_cap_holds_for_the_whole_run_and_more_money_goes_on_from_there(
    provider: MockProvider, tmp_path: Path
) -> None:
    wanted = evaluation(provider, 12, strategies=("single:large",))
    cap = Decimal("0.014")
    with pytest.raises(CapReached, match=r"the cap of \$0.014"):
        await run(wanted, tmp_path, cap=cap)
    with SpendingLedger.open(tmp_path / "ledger.db") as ledger:
        spent = ledger.totals()
    assert 0 < spent.cost <= cap * 10**12
    with RowsFile(tmp_path / "rows") as rows:
        assert len(rows.rows) == spent.calls == len(provider.books)
    (finished,) = await run(wanted, tmp_path)
    assert len(finished) == len(provider.books) == 12


async def test_with_a_store_no_answer_is_paid_for_twice_and_the_figures_stay(
    provider: MockProvider, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    provider.latency_s = 0.05
    wanted, store = evaluation(provider, 4, strategies=("r2@0",)), tmp_path / "store"
    (tmp_path / "later").mkdir()
    (first,) = await run(wanted, tmp_path, store=store)
    calls = len(provider.books)
    (later,) = await run(wanted, tmp_path / "later", cap=Decimal("0.000001"), store=store)
    assert len(provider.books) == calls < sum(row.calls for row in first) == 12
    assert sum(row.on_record for row in first) == 12 - calls
    assert all(row.on_record == row.calls == 3 for row in later)
    for row, before in zip(later, first, strict=True):
        assert row.latency_s >= row.critical_path_s >= 2 * 0.05
        assert row == replace(
            before,
            latency_s=row.latency_s,
            critical_path_s=row.critical_path_s,
            on_record=row.on_record,
            trace=row.trace,
        )
    with SpendingLedger.open(tmp_path / "later" / "ledger.db") as ledger:
        assert ledger.totals().calls == 0


async def test_endpoints_that_never_answer_end_the_run_with_what_was_wrong(
    provider: MockProvider, tmp_path: Path
) -> None:
    provider.fault_for = lambda call: Fault.UNAUTHORIZED
    wanted = evaluation(provider, 30, strategies=("single:large",))
    with pytest.raises(Unreachable, match=f"{UNREACHED_IN_A_ROW} items in a row .*auth"):
        await run(wanted, tmp_path, in_flight=4)
    assert len(provider.books) < 30
    provider.fault_for = lambda call: None
    (kept,) = await run(wanted, tmp_path)
    assert any(row.error is not None and not row.right for row in kept)
    (anew,) = await run(wanted, tmp_path, again=True)
    assert all(row.error is None for row in anew)


async def test_a_wrong_configuration_is_no_wrong_answer(
    provider: MockProvider, tmp_path: Path
) -> None:
    pool = toy_pool.pool(provider.base_url)
    locked = replace(pool.strongest.endpoint, key_env="R2_TEST_NO_SUCH_KEY")
    workers = tuple(replace(card, endpoint=locked) for card in pool.workers)
    wanted = evaluation(provider, strategies=("single:large",), pool=replace(pool, workers=workers))
    with pytest.raises(ConfigError, match="R2_TEST_NO_SUCH_KEY"):
        await run(wanted, tmp_path)
    with RowsFile(tmp_path / "rows") as rows:
        assert not rows.rows


async def test_what_cannot_be_scored_is_neither_right_nor_wrong(
    provider: MockProvider, tmp_path: Path
) -> None:
    shrug = replace(toy_pool.SHOUT, grade=lambda answer, gold: None)
    (rows,) = await run(evaluation(provider, 3, strategies=("r2@0",), benchmark=shrug), tmp_path)
    assert not any(row.scored or row.right for row in rows)


async def test_chat_models_get_the_instruction(provider: MockProvider, tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(call: ChatCall) -> str:
        asked.append(call.last_user)
        return "I_WALK"

    provider.answer = answer
    pool = toy_pool.pool(provider.base_url)
    chat = tuple(replace(card, prompt="chat") for card in pool.workers)
    scan = BENCHMARKS["scan"]
    wanted = evaluation(
        provider,
        benchmark=scan,
        items=scan.items([{"command": "walk", "actions": "I_WALK"}]),
        strategies=("single:large",),
        pool=replace(pool, workers=chat),
    )
    ((row,),) = await run(wanted, tmp_path)
    assert row.right
    assert asked == [f"{scan.instruction}\nwalk"]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 3))
def test_a_larger_limit_adds_to_the_sample_of_a_smaller_one(a: int, b: int, seed: int) -> None:
    items = toy_pool.items(30)
    small, large = (limited(items, n, seed) for n in sorted((a, b)))
    assert set(small) <= set(large)
    assert len(large) == max(a, b)
    assert list(large) == [item for item in items if item in large]
    assert limited(items, None, seed) == items


def test_many_queries_are_in_flight_only_where_they_make_batches() -> None:
    pool: Pool = toy_pool.pool("http://127.0.0.1:1/v1")
    assert default_in_flight(pool) == HTTP_IN_FLIGHT
    inside = replace(pool.strongest.endpoint, kind="embedded", path=Path())
    workers = tuple(replace(card, endpoint=inside) for card in pool.workers)
    assert default_in_flight(replace(pool, workers=workers)) == EMBEDDED_IN_FLIGHT


async def test_slow_grading_leaves_the_event_loop_and_a_score_stands_in_the_row(
    provider: MockProvider, tmp_path: Path
) -> None:
    threads: set[int] = set()

    def grade(answer: str, gold: str) -> bool:
        threads.add(threading.get_ident())
        return answer == gold

    slow = replace(toy_pool.SHOUT, grade=grade, score=lambda answer, gold: 0.25, blocking=True)
    (rows,) = await run(evaluation(provider, 3, strategies=("r2@0",), benchmark=slow), tmp_path)
    assert all(row.right and row.score == 0.25 for row in rows)
    assert threads
    assert threading.get_ident() not in threads
    quick = replace(slow, blocking=False)
    await run(evaluation(provider, 3, strategies=("cheapest",), benchmark=quick), tmp_path)
    assert threading.get_ident() in threads
