from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

import toy_pool
from r2reasoner.client import PoolClient
from r2reasoner.config import settings
from r2reasoner.errors import ConfigError
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider
from r2reasoner.strategies import StrategyContext, expand_strategies, open_strategy
from r2reasoner.types import AnswerStatus, Role, Trace


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    async with MockProvider(answer=toy_pool.answer) as provider:
        yield provider


@pytest.fixture
async def context(provider: MockProvider) -> AsyncIterator[StrategyContext]:
    client = PoolClient()
    with Ledger.in_memory() as ledger:
        yield StrategyContext(
            pool=toy_pool.pool(provider.base_url),
            settings=settings(),
            ledger=ledger,
            client=client,
            seed=1,
        )
        await client.close()


async def ask(name: str, context: StrategyContext, query: str = "red and green") -> Trace:
    return await open_strategy(name, context).trace(query)


def workers(trace: Trace) -> list[str | None]:
    return [None if choice is None else choice.model for choice in trace.allocation.choices]


async def test_single_is_one_call_to_one_model(context: StrategyContext) -> None:
    trace = await ask("single:large", context, "green")
    assert trace.answer.text == "GREEN"
    assert [(c.model, c.role) for c in trace.calls] == [("large", Role.WORKER)]


async def test_nobody_answers_for_a_single_model_that_says_nothing(
    context: StrategyContext,
) -> None:
    trace = await ask("single:small", context)
    assert trace.answer.status is AnswerStatus.FAILED
    assert [c.model for c in trace.calls] == ["small"]


async def test_strongest_and_cheapest_differ_from_r2_by_the_model_alone(
    context: StrategyContext,
) -> None:
    r2, strongest, cheapest = [await ask(n, context) for n in ("r2", "strongest", "cheapest")]
    assert r2.plan == strongest.plan == cheapest.plan
    assert workers(strongest) == ["large"] * 2
    assert strongest.answer.text == "RED GREEN"
    assert workers(cheapest) == ["small"] * 2
    assert all(step.fell_back_from[0] == "small" for step in cheapest.steps)


async def test_r2_at_another_trade_off(context: StrategyContext) -> None:
    best, cheap = await ask("r2@0", context), await ask("r2@1", context)
    assert (best.trade_off, workers(best)) == (0.0, ["large"] * 2)
    assert (cheap.trade_off, workers(cheap)) == (1.0, ["small"] * 2)


async def test_random_draws_the_same_again_for_one_seed_and_query(
    context: StrategyContext,
) -> None:
    queries = [item.query for item in toy_pool.items(12)]
    other = replace(context, seed=2)
    drawn, again, others = [
        [workers(await ask("random", each, query)) for query in queries]
        for each in (context, context, other)
    ]
    assert drawn == again != others
    assert {m for each in drawn for m in each} == {"small", "middle", "large"}


async def test_last_node_takes_the_strongest_only_for_what_the_answer_alone_uses(
    provider: MockProvider, context: StrategyContext
) -> None:
    provider.answer = lambda call: "a ; b #1 ; c ; = #2 #3" if call.model == "planner" else "x"
    trace = await ask("last-node", context)
    assert workers(trace) == ["small", "large", "large"]


async def test_cot_plans_and_answers_in_turn_at_the_strongest_models_price(
    context: StrategyContext,
) -> None:
    trace = await ask("cot", context)
    large = context.pool.card("large")
    assert large.price is not None
    assert trace.answer.text == "RED GREEN"
    assert [c.role for c in trace.calls] == [Role.DECOMPOSER, Role.WORKER, Role.WORKER] or [
        c.role for c in trace.calls
    ] == [Role.DECOMPOSER, Role.FINAL, Role.FINAL]
    assert all(call.cost == large.price.cost(call.usage) for call in trace.calls)
    first, second = trace.steps
    assert second.started_s >= first.finished_s
    assert [subtask.dependencies for subtask in trace.plan.subtasks] == [(), (1,)]


async def test_cot_of_chat_models_is_the_strongest_model_throughout(
    provider: MockProvider, context: StrategyContext
) -> None:
    def answer(call: ChatCall) -> str:
        asked = " ".join(message.content for message in call.messages)
        if "Plan this query" in asked:
            return '{"subtasks": ["find red", "find green"], "answer": "#2"}'
        return "seen RED" if "#1: RED" in asked else "RED"

    provider.answer = answer
    chat = tuple(replace(card, prompt="chat") for card in context.pool.workers)
    pool = replace(context.pool, workers=chat, policies={}, decomposer="small")
    trace = await ask("cot", replace(context, pool=pool))
    assert {call.model for call in trace.calls} == {"large"}
    assert trace.answer.text == "seen RED"


async def test_every_strategy_works_in_a_pool_of_one(context: StrategyContext) -> None:
    pool = replace(context.pool, workers=context.pool.workers[-1:])
    for name in expand_strategies(
        ["r2", "single:*", "cot", "strongest", "random", "last-node"], pool
    ):
        trace = await ask(name, replace(context, pool=pool), "green")
        assert trace.answer.text == "GREEN", name


def test_names_are_expanded_once_each() -> None:
    pool = toy_pool.pool("http://127.0.0.1:1/v1")
    names = expand_strategies(["single:large", " r2 ", "single:*", "r2"], pool)
    assert names == ("single:large", "r2", "single:small", "single:middle")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("r3", "no strategy 'r3'; known: r2, cot, strongest"),
        ("", "no strategy ''; known: r2"),
        ("single:huge", "no strategy 'single:huge' in this pool; it has: single:small, "),
        ("single:planner", "it has: single:small, single:middle, single:large"),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        expand_strategies([name], toy_pool.pool("http://127.0.0.1:1/v1"))


@pytest.mark.parametrize("dial", ["2", "much", ""])
async def test_a_wrong_trade_off_is_refused(context: StrategyContext, dial: str) -> None:
    with pytest.raises(ConfigError, match="trade-off: expected a number from 0"):
        open_strategy(f"r2@{dial}", context)


def install(folder: Path, module: str, body: str, entry: str) -> None:
    """Lay out an installed package with a strategy of its own."""
    (folder / f"{module}.py").write_text(body)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[r2reasoner.strategies]\n{entry}\n")


async def test_a_package_brings_its_own_strategy(
    context: StrategyContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        "from r2reasoner.strategies.base import always, open_router\n"
        "def middle(context):\n"
        "    return open_router(context, always(context.pool.card('middle'), 'mine'))\n"
    )
    install(tmp_path, "own_strategy_one", body, "mine = own_strategy_one:middle")
    monkeypatch.syspath_prepend(tmp_path)
    assert expand_strategies(["mine"], context.pool) == ("mine",)
    assert workers(await ask("mine", context)) == ["middle"] * 2


@pytest.mark.parametrize(
    ("body", "says"),
    [("", "does not load"), ("def f(context): return 3", "returned no Router")],
)
async def test_a_broken_one_is_named(
    context: StrategyContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    says: str,
) -> None:
    module = f"own_strategy_{len(body)}"
    install(tmp_path, module, body, f"mine = {module}:f")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"strategy 'mine' .*{says}"):
        open_strategy("mine", context)
