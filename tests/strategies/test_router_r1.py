from collections.abc import Callable

import pytest

import toy_pool
from r2reasoner.errors import ConfigError
from r2reasoner.mock import ChatCall, Fault
from r2reasoner.strategies import open_strategy
from r2reasoner.strategies.router_r1 import TURNS, Turn, last_word, read_route, read_turn
from strategy_contexts import asking, called, notes


def turns(*written: str) -> Callable[[ChatCall], str]:
    """Write these as the policy, one per turn; workers say who they are and what was asked."""

    def answer(call: ChatCall) -> str:
        if call.model != "planner":
            return f"{call.model} on {call.last_user}"
        number = sum(m.role == "assistant" for m in call.messages)
        return written[min(number, len(written) - 1)]

    return answer


async def test_it_thinks_asks_and_answers() -> None:
    seen: list[str] = []
    script = turns(
        "<think>I lack it, <answer>this is none.</think><route>medium: how many?</route>",
        "<think>Good.</think><answer> 42 </answer>",
    )

    def answer(call: ChatCall) -> str:
        seen.append(call.last_user)
        return script(call)

    async with asking(answer) as (context, _):
        trace = await open_strategy("router-r1", context).trace("the question")
    assert trace.answer.text == "42"
    assert called(trace) == [("planner", "check"), ("medium", "worker"), ("planner", "check")]
    assert notes(trace) == ["turn 1", "asked in turn 1", "turn 2"]
    assert seen[:2] == ["the question", "how many?"]
    assert seen[2] == "<data>\nmedium on how many?\n</data>"
    assert trace.workers_cost == trace.calls[1].cost
    assert trace.steps[0].model == "planner"


async def test_after_four_turns_it_must_answer() -> None:
    async with asking(turns("<route>small: again?</route>")) as (context, _):
        trace = await open_strategy("router-r1", context).trace("the question")
    assert called(trace).count(("planner", "check")) == TURNS + 1
    assert called(trace).count(("small", "worker")) == TURNS
    assert trace.answer.text == "<route>small: again?"


async def test_what_is_no_turn_is_pointed_out_and_costs_a_turn() -> None:
    told: list[str] = []
    script = turns("hm", "<route>huge: who?</route>", "<route>large: who?</route>", "<answer>x")

    def answer(call: ChatCall) -> str:
        if call.model == "planner":
            told.append(call.last_user)
        return script(call)

    async with asking(answer) as (context, provider):
        provider.fault_for = lambda call: Fault.NOT_FOUND if call.model == "large" else None
        trace = await open_strategy("router-r1", context).trace("the question")
    assert told[1].startswith("Write <route>")
    assert "there are: small, medium, large" in told[2]
    assert told[3] == "large could not be asked. Do without it."
    assert trace.answer.text == "x"


def test_a_policy_with_a_plain_prompt_is_refused_with_the_reason() -> None:
    from r2reasoner.client import PoolClient
    from r2reasoner.config import settings
    from r2reasoner.ledger import Ledger
    from r2reasoner.strategies import StrategyContext

    with Ledger.in_memory() as ledger:
        context = StrategyContext(
            pool=toy_pool.pool("http://127.0.0.1:1/v1"),
            settings=settings(),
            ledger=ledger,
            client=PoolClient(),
        )
        with pytest.raises(ConfigError, match="decomposer planner takes a plain prompt"):
            open_strategy("router-r1", context)


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("<answer>7</answer>", Turn(answer="7")),
        ("<answer>7", Turn(answer="7")),
        ("<think><route>a: b</route></think>", Turn()),
        ("<think>no end <answer>7</answer>", Turn()),
        ("<route>a: b", Turn(route="a: b")),
        ("<answer> </answer><route>a: b</route>", Turn(route="a: b")),
        ("7", Turn()),
    ],
)
def test_a_turn_is_read(text: str, turn: Turn) -> None:
    assert read_turn(text) == turn


def test_names_may_have_colons() -> None:
    from pools import pool_at

    pool = pool_at("http://127.0.0.1:1/v1", workers=("qwen", "qwen:7b"))
    card, question = read_route("qwen:7b: what: this?", pool)
    assert card is not None
    assert (card.name, question) == ("qwen:7b", "what: this?")
    assert read_route("qwen:", pool) == (None, "")
    assert read_route("other: what?", pool) == (None, "")


def test_a_last_word_is_never_empty() -> None:
    assert last_word("<think>hm</think> 7 ") == "7"
    assert last_word("<think>hm") == "<think>hm"
