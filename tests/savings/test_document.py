from pathlib import Path

import pytest

import toy_pool
from logged_requests import openai, write_lines
from r2reasoner.savings.document import Sampled, document, wilson
from r2reasoner.savings.logs import Logs, read_logs
from r2reasoner.savings.sample import SampleRow
from r2reasoner.savings.today import paid
from r2reasoner.savings.unpaid import outlook

POOL = toy_pool.pool("http://127.0.0.1:1")


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    rows = [openai("a", "A"), openai("b", "B"), openai("c", "C", "mystery")]
    return read_logs([write_lines(tmp_path / "l.jsonl", *rows)])


def row(identifier: str, cost: int | None, good: bool | None) -> SampleRow:
    return SampleRow("c", identifier, cost, 0, good, "agreement", False, {"small": 1})


def test_an_unknown_price_is_counted_and_in_no_cost(logs: Logs) -> None:
    costs = [paid(r, POOL) for r in logs.requests]
    made = document(logs, costs, outlook(logs.requests, POOL, 0.0), None)
    assert (made["today"]["priced"], made["today"]["unpriced"]) == (2, 1)
    assert made["today"]["models"]["mystery"]["dollars"] is None
    assert made["today"]["dollars"] == pytest.approx(2 * 110 * 100e-6)
    assert any("1 of 3 requests have no known price" in a for a in made["assumptions"])
    assert made["saving"] is None


def test_a_sample_measures_saving_and_risk(logs: Logs) -> None:
    costs = [paid(r, POOL) for r in logs.requests]
    first, second, unpriced = logs.requests
    today = costs[0].cost
    assert today is not None
    pairs = [
        (first, row(first.id, today // 2, True)),
        (second, row(second.id, today // 2, False)),
        (unpriced, row(unpriced.id, 1, None)),
    ]
    sampled = Sampled(pairs, 3, None, 0)
    made = document(logs, costs, outlook(logs.requests, POOL, 0.0), sampled)
    assert made["saving"]["share"] == pytest.approx(0.5)
    assert made["quality"]["at_risk"] == 0.5
    assert (made["quality"]["judged"], made["quality"]["unscored"]) == (2, 1)
    ours = next(r for r in made["rows"] if r["who"] == "r2")
    assert ours["dollars"] == pytest.approx(made["today"]["dollars"] / 2)
    assert ours["how"] == "measured on 2 sampled requests"


def test_no_bad_answer_in_a_few_is_not_no_risk() -> None:
    low, high = wilson(0, 3) or [1, 1]
    assert low == 0
    assert high == pytest.approx(0.5615, abs=1e-3)
    assert wilson(0, 0) is None
    assert wilson(5, 5) == pytest.approx([0.5655, 1], abs=1e-3)
