from dataclasses import replace
from typing import NamedTuple

import pytest

import toy_pool
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.ledger import Ledger
from r2reasoner.mock import MockProvider
from r2reasoner.training.decompositions import Search, Searched, Weights, score
from r2reasoner.types import Plan, Subtask, Task


class Proposed(NamedTuple):
    plan: Plan
    lines: tuple[tuple[str, str], ...] = ()


DIRECT = Proposed(Plan((Subtask("red and blue"),), "#1"))
CUT = Proposed(Plan((Subtask("red"), Subtask("blue")), "#1 #2"))
WRONG_ORDER = Proposed(Plan((Subtask("red"), Subtask("blue")), "#2 #1"))
DANGLING = Proposed(Plan((Subtask("red"), Subtask("blue")), "#1 #3"))
WITH_WASTE = Proposed(Plan((Subtask("red"), Subtask("pink"), Subtask("blue")), "#1 #3"))
ITEM = Task("red and blue", "RED BLUE")


async def search(
    ledger: Ledger, candidates: list[Proposed], weights: Weights | None = None
) -> Searched:
    async with MockProvider(answer=toy_pool.answer) as provider:
        client = OpenAIClient()
        pool = toy_pool.pool(provider.base_url)
        run = Search(pool, client, ledger, weights or Weights())
        found = await run.run([ITEM], lambda query: candidates)
        await client.close()
    return found[0]


async def test_the_best_right_candidate_is_kept(ledger: Ledger) -> None:
    found = await search(ledger, [DIRECT, WRONG_ORDER, WITH_WASTE, CUT])
    assert found.best is not None
    assert found.best.candidate is CUT
    assert [t.right for t in found.tried] == [False, False, True, True]


async def test_every_candidate_is_really_run_and_stands_in_the_ledger(ledger: Ledger) -> None:
    await search(ledger, [DIRECT, CUT])
    assert len(ledger.entries()) == 3


async def test_nothing_is_kept_where_nothing_is_right(ledger: Ledger) -> None:
    found = await search(ledger, [DIRECT, WRONG_ORDER])
    assert found.best is None


async def test_an_invalid_candidate_is_wrong_and_costs_no_call(ledger: Ledger) -> None:
    found = await search(ledger, [DANGLING])
    assert found.tried[0].right is False
    assert ledger.entries() == []


async def test_the_first_proposed_wins_among_equals(ledger: Ledger) -> None:
    turned = Proposed(Plan((Subtask("blue"), Subtask("red")), "#2 #1"))
    for candidates in ([CUT, turned], [turned, CUT]):
        found = await search(ledger, candidates)
        assert found.best is not None
        assert found.best.candidate is candidates[0]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (Weights(1, 0, 0), 3),
        (Weights(0, 0.5, 0), 5),
        (Weights(0, 0, 2), 2),
        (Weights(1, 0.5, 2), 10),
    ],
)
def test_the_score_is_a_weighted_sum(weights: Weights, expected: float) -> None:
    assert score(WITH_WASTE.plan, tokens=10, weights=weights) == expected


async def test_the_tolerance_decides_what_counts_as_equal(ledger: Ledger) -> None:
    strict, lax = Weights(tolerance=0), replace(Weights(), tolerance=100.0)
    first_strict = await search(ledger, [WITH_WASTE, CUT], strict)
    first_lax = await search(ledger, [WITH_WASTE, CUT], lax)
    assert first_strict.best is not None
    assert first_lax.best is not None
    assert first_strict.best.candidate is CUT
    assert first_lax.best.candidate is WITH_WASTE
