"""The figures that Prometheus reads."""

from r2reasoner.gateway.metrics import Metrics
from r2reasoner.types import Call, CallOutcome, Role, Usage


def call(outcome: CallOutcome, cost: int | None) -> Call:
    return Call(
        id="1",
        role=Role.WORKER,
        model="small",
        subtask=1,
        attempt=1,
        outcome=outcome,
        usage=Usage(3, 4),
        cost=cost,
        bound=9,
        started_at=0.0,
        latency_s=0.1,
        ttft_s=None,
        finish_reason=None,
        error=None,
        note=None,
    )


def test_calls_tokens_and_money() -> None:
    metrics = Metrics()
    metrics.count((call(CallOutcome.OK, 5 * 10**12), call(CallOutcome.FAILED, 0)))
    metrics.count((call(CallOutcome.UNKNOWN, None),))
    lines = metrics.text().decode().splitlines()
    for line in (
        'r2_calls_total{model="small",outcome="ok",role="worker"} 1.0',
        'r2_calls_total{model="small",outcome="failed",role="worker"} 1.0',
        'r2_tokens_total{direction="input",model="small"} 6.0',
        'r2_tokens_total{direction="output",model="small"} 8.0',
        'r2_cost_dollars_total{model="small"} 5.0',
    ):
        assert line in lines


def test_two_gateways_share_no_figures() -> None:
    one, two = Metrics(), Metrics()
    one.cache_hits.inc()
    assert b"r2_cache_hits_total 1.0" in one.text()
    assert b"r2_cache_hits_total 0.0" in two.text()
