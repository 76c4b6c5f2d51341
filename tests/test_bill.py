from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from models import write_model
from pools import plan_of, pool_at
from r2reasoner.bill import bill, cache_saved, show_money
from r2reasoner.pool.cards import Card, Endpoint, Pool, Price, Tier
from r2reasoner.types import (
    Allocation,
    Answer,
    AnswerStatus,
    Call,
    CallOutcome,
    Pico,
    Query,
    Role,
    Trace,
    Usage,
)


def call(role: Role, usage: Usage, cost: Pico | None) -> Call:
    return Call(
        id="c",
        role=role,
        model="small",
        subtask=None,
        attempt=1,
        outcome=CallOutcome.OK,
        usage=usage,
        cost=cost,
        bound=cost,
        started_at=0,
        latency_s=0,
        ttft_s=None,
        finish_reason="stop",
        error=None,
        note=None,
    )


def trace(*calls: Call, query: str = "walk left", answer: Answer | None = None) -> Trace:
    plan = plan_of("a")
    return Trace(
        id="t",
        query=Query(query, "t"),
        pool="p",
        trade_off=0.3,
        plan=plan,
        plan_notes=(),
        plan_failed=False,
        allocation=Allocation((None,), "none", calibrated=False),
        steps=(),
        answer=answer or Answer("I_WALK", AnswerStatus.COMPLETE),
        calls=calls,
        started_at=0,
        wall_s=0,
    )


CALLS = (
    call(Role.WORKER, Usage(5, 1), 6_000_000),
    call(Role.DECOMPOSER, Usage(10, 5), 15_000_000),
    call(Role.WORKER, Usage(7, 2), 9_000_000),
)


def test_one_line_for_each_role_in_their_order() -> None:
    made = bill(trace(*CALLS), pool_at("http://mock/v1"))
    assert [(line.role, line.calls, line.usage, line.cost) for line in made.lines] == [
        (Role.DECOMPOSER, 1, Usage(10, 5), 15_000_000),
        (Role.WORKER, 2, Usage(12, 3), 15_000_000),
    ]
    assert made.total == 30_000_000


def test_what_the_strongest_alone_would_have_cost_is_counted_by_bytes_over_http() -> None:
    made = bill(trace(*CALLS), pool_at("http://mock/v1"))
    assert made.strongest == "large"
    tokens = 3 + 2  # 9 bytes and 6 bytes, four to a token
    assert made.strongest_alone == tokens * 100_000_000
    assert made.saved == pytest.approx(1 - 30 / 500)


def test_the_strongest_alone_cost_what_it_cost_where_it_did_answer_alone() -> None:
    one = replace(call(Role.WORKER, Usage(9, 9), 77), model="large")
    direct = replace(trace(one), plan=plan_of("walk left"))
    assert direct.plan.is_direct
    made = bill(direct, pool_at("http://mock/v1"))
    assert (made.strongest_alone, made.saved) == (77, 0)
    assert bill(replace(direct, calls=(one, *CALLS)), pool_at("http://mock/v1")).saved != 0


def test_a_router_that_cost_more_says_so() -> None:
    dear = bill(trace(call(Role.WORKER, Usage(1, 1), 10**12)), pool_at("http://mock/v1"))
    assert dear.saved is not None
    assert dear.saved < 0


def test_an_unknown_price_makes_figures_unknown_never_0() -> None:
    made = bill(trace(*CALLS, call(Role.FINAL, Usage(1, 1), None)), pool_at("http://mock/v1"))
    assert made.total is None
    assert made.lines[-1].cost is None
    assert made.saved is None
    unpriced = bill(trace(*CALLS), pool_at("http://mock/v1", price=None))
    assert unpriced.strongest_alone is None
    assert unpriced.saved is None
    assert unpriced.total == 30_000_000


@pytest.mark.parametrize("status", [AnswerStatus.FAILED, AnswerStatus.PARTIAL])
def test_nothing_is_saved_where_there_is_no_whole_answer(status: AnswerStatus) -> None:
    made = bill(trace(*CALLS, answer=Answer("", status)), pool_at("http://mock/v1"))
    assert made.strongest_alone is None
    assert made.saved is None
    assert made.total == 30_000_000


def test_a_query_without_any_call() -> None:
    made = bill(
        trace(answer=Answer("", AnswerStatus.FAILED, "no money")), pool_at("http://mock/v1")
    )
    assert (made.lines, made.total) == ((), 0)


def test_what_caches_saved_is_what_the_calls_would_have_cost_more() -> None:
    pool = pool_at("http://mock/v1", price=Price(Decimal(3), Decimal(6), Decimal("0.25")))
    calls = [call(Role.WORKER, Usage(2000, 9, cached), 0) for cached in (1024, 0, 128)]
    assert cache_saved(calls, pool) == bill(trace(*calls), pool).cache_saved
    assert cache_saved(calls, pool) == (1024 + 128) * 2_750_000
    assert cache_saved([], pool) == 0


def test_what_caches_saved_is_at_the_rates_of_the_calls_size() -> None:
    price = Price(
        Decimal(1), Decimal(1), Decimal("0.1"), tiers=(Tier(1000, Decimal(2), Decimal(2)),)
    )
    pool = pool_at("http://mock/v1", price=price)
    assert cache_saved([call(Role.WORKER, Usage(1000, 1, 500), 0)], pool) == 500 * 900_000
    assert cache_saved([call(Role.WORKER, Usage(1001, 1, 500), 0)], pool) == 0


def test_what_caches_saved_is_unknown_where_a_price_is() -> None:
    pool = pool_at("http://mock/v1", price=None)
    assert cache_saved([call(Role.WORKER, Usage(2000, 9, 1024), 0)], pool) is None
    assert cache_saved([call(Role.WORKER, Usage(2000, 9), 0)], pool) == 0
    gone = replace(call(Role.WORKER, Usage(2000, 9, 1024), 0), model="gone")
    assert cache_saved([gone], pool_at("http://mock/v1")) is None


class TestInProcess:
    @pytest.fixture
    def pool(self, tmp_path: Path) -> Pool:
        write_model(tmp_path / "big", ["walk", "left", "I_WALK"], {"<sep>": ["walk"]})
        card = Card(
            name="big",
            endpoint=Endpoint(name="local", kind="embedded", path=tmp_path),
            model="big",
            price=Price(Decimal(1), Decimal(1)),
        )
        return Pool(name="p", workers=(card,), policies={}, decomposer="big", allocator="ladder")

    def test_tokens_are_counted_by_the_models_own_codec(self, pool: Pool) -> None:
        made = bill(trace(*CALLS), pool)
        # <bos> walk left <sep>, then I_WALK <eos>
        assert made.strongest_alone == (4 + 2) * 1_000_000

    def test_words_that_it_lacks_are_counted_by_bytes(self, pool: Pool) -> None:
        made = bill(trace(*CALLS, query="éé France"), pool)
        assert made.strongest_alone == (3 + 2) * 1_000_000

    def test_a_model_that_is_gone(self, pool: Pool, tmp_path: Path) -> None:
        card = replace(pool.workers[0], model="gone")
        assert bill(trace(*CALLS), replace(pool, workers=(card,))).strongest_alone == 5_000_000


@pytest.mark.parametrize(
    ("pico", "shown"),
    [
        (None, "unknown"),
        (0, "$0.0000"),
        (10**12, "$1.0000"),
        (1234 * 10**12, "$1,234.0000"),
        (10**10, "$0.0100"),
        (10**10 - 1, "10,000.00 µ$"),
        (2_000_000, "2.00 µ$"),
        (940_500, "0.9405 µ$"),
        (1, "0.000001 µ$"),
    ],
)
def test_money_is_shown_so_that_something_is_to_be_seen(pico: Pico | None, shown: str) -> None:
    assert show_money(pico) == shown
