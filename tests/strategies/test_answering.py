from math import log

import pytest

import pools
import toy_pool
from r2reasoner.errors import ConfigError
from r2reasoner.mock import Fault
from r2reasoner.strategies import expand_strategies, left_out, open_strategy
from r2reasoner.strategies.answering import pair, rungs, share
from r2reasoner.types import AnswerStatus
from strategy_contexts import asking, called, notes

NINE = tuple(f"w{n}" for n in range(1, 10))


def names(workers: tuple[str, ...], count: int) -> list[str]:
    pool = pools.pool_at("http://127.0.0.1:1/v1", workers=workers)
    return [card.name for card in rungs(pool, count)]


def test_rungs_are_the_strongest_of_equal_parts() -> None:
    assert names(NINE, 3) == ["w3", "w6", "w9"]
    assert names(NINE, 2) == ["w4", "w9"]
    assert names(("a", "b", "c"), 2) == ["a", "c"]
    assert names(("a", "b"), 3) == ["a", "b"]
    assert names(("a",), 2) == ["a"]


def test_a_pair_of_one_model_is_that_model_twice() -> None:
    one = pools.pool_at("http://127.0.0.1:1/v1", workers=("only",))
    assert pair(one) == (one.strongest, one.strongest)


@pytest.mark.parametrize("text", ["1.1", "-0.1", "much", "", "nan"])
def test_a_threshold_is_a_number_from_0_to_1(text: str) -> None:
    with pytest.raises(ConfigError, match=r"frugal@.*: expected a number from 0 to 1"):
        share(text, "frugal")


async def test_the_answer_at_hand_stands_where_money_is_short() -> None:
    # small asks $1 and large $100 per million tokens, a call is at most some hundred tokens
    async with asking(
        lambda call: call.model, logprob=lambda call: log(0.2), flags={"max_cost": "0.002"}
    ) as (context, _):
        trace = await open_strategy("frugal", context).trace("one plus one")
    assert called(trace) == [("small", "worker"), ("medium", "worker")]
    assert trace.answer.text == "medium"
    assert trace.steps[0].model == "medium"


async def test_a_model_that_fails_is_passed_over_and_the_note_says_so() -> None:
    async with asking(lambda call: call.model) as (context, provider):
        provider.fault_for = lambda call: Fault.NOT_FOUND if call.model == "small" else None
        trace = await open_strategy("frugal@0", context).trace("one plus one")
        assert trace.answer.text == "large"
        assert "escalated: small" in (notes(trace)[1] or "")
        provider.fault_for = lambda call: Fault.NOT_FOUND
        trace = await open_strategy("frugal", context).trace("one plus one")
        assert trace.answer.status is AnswerStatus.FAILED


async def test_what_needs_log_probabilities_is_left_out_with_the_reason() -> None:
    silent = frozenset({"no_logprobs"})
    async with asking(lambda call: "x", capabilities=silent) as (context, _):
        without = left_out(["r2", "frugal", "dot", "automix", "tot"], context)
        assert list(without) == ["frugal", "dot"]
        assert "small, medium do not tell (no_logprobs" in without["frugal"]
        with pytest.raises(ConfigError, match="frugal goes by"):
            left_out(["frugal", "dot"], context)


def test_models_and_thresholds_in_names_are_checked_before_anything_runs() -> None:
    pool = toy_pool.pool("http://127.0.0.1:1/v1")
    fine = ["dot:middle", "dot:middle@0.9", "automix@0.5", "datashunt:small", "frugal@1"]
    assert expand_strategies(fine, pool) == tuple(fine)
    for wrong, says in (
        ("dot:huge", "no strategy 'dot:huge' in this pool; it has: dot:small, "),
        ("dot:planner", "no strategy 'dot:planner' in this pool"),
        ("dot:middle@2", "dot@2: expected a number from 0 to 1"),
        ("frugal@2", "frugal@2: expected a number"),
        ("automix@", "automix@: expected a number"),
        ("r2@7", "r2@7: expected a number"),
    ):
        with pytest.raises(ConfigError, match=says):
            expand_strategies([wrong], pool)
