import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from traces_to_show import HOSTILE, hostile, pool, put, rich

from r2reasoner.bill import bill
from r2reasoner.gateway.dashboard.books import Books, Search, day_of, id_from, today, total
from r2reasoner.gateway.dashboard.savings import Savings
from r2reasoner.gateway.dashboard.scores import Scores
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.types import AnswerStatus, CallOutcome, Role


@pytest.fixture
def ledger(db: str) -> Iterator[Ledger]:
    with Ledger.open(db) as opened:
        yield opened


def noon(days_ago: int) -> float:
    day = today() - timedelta(days=days_ago)
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()


def test_ids_of_a_day_lie_in_its_range() -> None:
    day = day_of(time.time())
    assert id_from(day) <= new_id() < id_from(day + timedelta(days=1))


def test_days_sum_up_what_the_ledger_has(ledger: Ledger) -> None:
    old, new = rich(at=noon(3)), rich(at=noon(1))
    put(ledger, old, new)
    books = Books(ledger)
    days = {n: books.day(today() - timedelta(days=n)) for n in range(5)}
    assert [total([days[n]]).calls for n in range(5)] == [0, len(new.calls), 0, len(old.calls), 0]
    assert total([days[1]]).cost == new.cost()
    whole, known = total(days.values()), ledger.totals()
    assert (whole.calls, whole.failed, whole.cost) == (known.calls, known.failed, known.cost)
    assert (whole.input_tokens, whole.output_tokens) == (known.input_tokens, known.output_tokens)
    assert {s.model for s in days[3]} == {"planner", "small", "medium", "large"}
    assert {s.role for s in days[3]} >= {Role.DECOMPOSER, Role.ALLOCATOR, Role.WORKER, Role.FINAL}


def test_sums_are_exact_beyond_64_bits(ledger: Ledger) -> None:
    dear = 2**62 + 1
    put(ledger, rich(at=noon(2)), other=lambda call: replace(call, cost=dear))
    assert total([Books(ledger).day(today() - timedelta(days=2))]).cost == 10 * dear > 2**63


def test_a_call_of_unknown_price_is_counted_apart(ledger: Ledger) -> None:
    put(ledger, rich(at=noon(1)), other=lambda call: replace(call, cost=None))
    spent = total([Books(ledger).day(today() - timedelta(days=1))])
    assert (spent.unpriced, spent.cost) == (10, 0)


class TestSearch:
    @pytest.fixture
    def books(self, ledger: Ledger) -> Books:
        meals = rich("Plan MEALS for a week", noon(2))
        cut = replace(rich("100% of a_b", noon(1)), answer=rich().answer)
        cut = replace(cut, answer=replace(cut.answer, status=AnswerStatus.PARTIAL))
        put(ledger, meals, cut, hostile(noon(0) - 86_000 if time.time() < noon(0) else noon(0)))
        return Books(ledger)

    def found(self, books: Books, **wanted: object) -> list[str]:
        return [t.query for t in books.search(Search(**wanted)).traces]  # type: ignore[arg-type]

    def test_words_all_must_be_there_in_any_case(self, books: Books) -> None:
        assert self.found(books, words="week meals") == ["Plan MEALS for a week"]
        assert self.found(books, words="week cities") == []

    def test_signs_of_patterns_are_plain_characters(self, books: Books) -> None:
        assert self.found(books, words="100% a_b") == ["100% of a_b"]
        assert self.found(books, words="1%0") == self.found(books, words="_00") == []
        assert self.found(books, words="' OR 1=1 --") == []
        assert self.found(books, words="a\0b") == self.found(books, model="a\ud800") == []

    def test_the_beginning_of_an_id(self, books: Books) -> None:
        first = books.search(Search()).traces[-1]
        assert [t.id for t in books.search(Search(words=first.id[:20].upper())).traces] == [
            first.id
        ]

    def test_status_model_and_cost(self, books: Books) -> None:
        assert self.found(books, status=AnswerStatus.COMPLETE) == ["Plan MEALS for a week"]
        assert len(self.found(books, model="medium")) == 2
        assert self.found(books, model=HOSTILE) == [HOSTILE]
        assert self.found(books, model="none") == []
        cost = books.search(Search()).traces[0].cost
        assert cost is not None
        assert len(self.found(books, least=cost, most=cost)) == 3
        assert self.found(books, least=cost + 1) == self.found(books, most=cost - 1) == []

    def test_pages_hold_each_trace_once_newest_first(self, books: Books) -> None:
        pages = [books.search(Search(), page, size=2) for page in (1, 2, 3)]
        assert [len(page.traces) for page in pages] == [2, 1, 0]
        assert [page.more for page in pages] == [True, False, False]
        ids = [t.id for page in pages for t in page.traces]
        assert ids == sorted(ids, reverse=True)


class TestSavings:
    def test_the_sum_of_the_bills(self, ledger: Ledger) -> None:
        traces = [rich(at=noon(3)), rich(at=noon(1))]
        put(ledger, *traces, hostile(noon(1)))
        saved, by_day = Savings(Books(ledger), lambda name: pool()).since(
            today() - timedelta(days=5)
        )
        bills = [bill(trace, pool()) for trace in traces]
        alone = [b.strongest_alone for b in bills if b.strongest_alone is not None]
        assert (saved.queries, saved.estimated, saved.left) == (3, 2, 0)
        assert saved.alone == sum(alone)
        assert saved.cost == sum(b.total or 0 for b in bills)
        assert saved.share == pytest.approx(1 - saved.cost / saved.alone)
        assert by_day == {
            today() - timedelta(days=n): a - (b.total or 0)
            for n, a, b in zip((3, 1), alone, bills, strict=True)
        }

    def test_only_since_the_day(self, ledger: Ledger) -> None:
        put(ledger, rich(at=noon(3)))
        saved, _ = Savings(Books(ledger), lambda name: pool()).since(today())
        assert (saved.queries, saved.share) == (0, None)


class TestScores:
    def test_rows_beside_the_ledger(self, tmp_path: Path) -> None:
        (tmp_path / "l.db").touch()
        row = {"benchmark": "scan", "split": "length", "strategy": "r2", "scored": True}
        lines = [
            row | {"trace": "a", "right": True},
            row | {"trace": "b", "right": False},
            row | {"trace": "c", "right": True, "scored": False},
            row | {"trace": None, "right": True},
        ]
        file = tmp_path / "scan.json.rows.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"trace": "d", "ri')
        scores = Scores.beside(str(tmp_path / "l.db"))
        assert {key: score.right for key, score in scores.all().items()} == {"a": True, "b": False}
        file.write_text(json.dumps(row | {"trace": "e", "right": True}) + "\n")
        assert set(scores.all()) == {"e"}

    def test_a_database_elsewhere_has_none(self) -> None:
        assert Scores.beside("postgresql://u:***@host/db").all() == {}
        assert Scores.beside("in memory").all() == {}


def test_what_was_asked_of_a_day_is_settled_later(ledger: Ledger) -> None:
    """Yesterday and today are read anew; older days are kept."""
    books = Books(ledger)
    assert total([books.day(today() - timedelta(days=1))]).calls == 0
    put(ledger, rich(at=noon(1)))
    assert total([books.day(today() - timedelta(days=1))]).calls == 10
    lost = [c for c in rich().calls if c.outcome is CallOutcome.FAILED]
    assert total([books.day(today() - timedelta(days=1))]).failed == len(lost)
