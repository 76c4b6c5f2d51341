"""A newcomer is asked what is still to be asked, once, and stands where its answers put it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pools import NoJitter, answers, card_at, plan_json, plan_of, pool_at, step_of
from r2reasoner.budget import Meter
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.decomposer import PromptedDecomposer
from r2reasoner.errors import BudgetExceeded, CallError, DataError
from r2reasoner.estimate import Outcome, OutcomeModel
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, Fault, MockProvider
from r2reasoner.newcomer import Scoring, join, rank, taken_for
from r2reasoner.pool.cards import Card, Price
from r2reasoner.references import Reference
from r2reasoner.types import Role, Task

CHAIN = plan_json("double 4", ("add 1 to #1", [1]))
TRUTH = {"double 4": "8", "add 1 to #1": "9"}
ITEM = Task("double 4, add 1", "9")
REFERENCE = Reference(ITEM.query, "9", plan_of("double 4", "add 1 to #1"), {1: "8", 2: "9"})


def same(answer: str, gold: str) -> bool | None:
    return answer.strip() == gold


def able(*models: str) -> Callable[[ChatCall], str]:
    """Only these models can do anything, if they were given the right answers before."""

    def work(call: ChatCall) -> str:
        step = step_of(call)
        misled = "#1" in step and "#1: 8" not in call.last_user
        return TRUTH[step] if call.model in models and not misled else "no idea"

    return work


@asynccontextmanager
async def scoring(
    ledger: Ledger,
    wanted: int,
    *,
    work: Callable[[ChatCall], str] | None = None,
    faults: Callable[[ChatCall], Fault | None] | None = None,
    asked: list[ChatCall] | None = None,
    cap: int | None = None,
) -> AsyncIterator[Scoring]:
    script = answers(CHAIN, work or able("large", "new"))

    def answer(call: ChatCall) -> str:
        if asked is not None:
            asked.append(call)
        return script(call)

    async with MockProvider(answer=answer, faults=faults) as provider:
        pool = pool_at(provider.base_url)
        client = OpenAIClient(NoJitter())
        planner = PromptedDecomposer(pool.card("planner"))
        new = card_at(provider.base_url, "new")
        meter = Meter(ledger, "s", cap)
        try:
            yield Scoring(pool, new, client, planner, meter, same, wanted)
        finally:
            await client.close()


def table(scored: Scoring) -> dict[str, bool]:
    return {outcome.text: outcome.right for outcome in scored.outcomes}


class TestScoring:
    async def test_on_recorded_subtasks_nobody_else_is_asked(self, ledger: Ledger) -> None:
        asked: list[ChatCall] = []
        heard: list[int] = []
        async with scoring(ledger, 5, asked=asked) as run:
            await run.run([REFERENCE, REFERENCE], 0, heard.append)
        assert table(run) == {"double 4": True, "add 1 to # [ double 4 ]": True}
        assert {(c.model, c.role) for c in asked} == {("new", "calibration")}
        assert len(asked) == 2  # the same subtask is not asked twice
        assert heard[-1] == run.asked == 2
        await ledger.flush()
        assert {e.role for e in ledger.entries()} == {Role.CALIBRATION}

    async def test_items_are_solved_by_the_pool_first(self, ledger: Ledger) -> None:
        asked: list[ChatCall] = []
        async with scoring(ledger, 5, asked=asked) as run:
            await run.run([ITEM], 0)
        assert table(run) == {"double 4": True, "add 1 to # [ double 4 ]": True}
        assert [r.answers for r in run.references] == [{1: "8", 2: "9"}]
        assert {c.model for c in asked} == {"planner", "large", "new"}

    async def test_what_only_the_newcomer_can_do_is_no_gap(self, ledger: Ledger) -> None:
        async with scoring(ledger, 5, work=able("new")) as run:
            await run.run([ITEM], 0)
        assert set(table(run).values()) == {True}
        assert len(run.references) == 1

    async def test_what_nobody_can_do_teaches_nothing(self, ledger: Ledger) -> None:
        async with scoring(ledger, 5, work=able()) as run:
            await run.run([ITEM], 0)
        assert (run.scored, run.references, run.asked) == ([], [], 0)

    async def test_it_is_wrong_where_it_says_something_else(self, ledger: Ledger) -> None:
        async with scoring(ledger, 5, work=able("large")) as run:
            await run.run([REFERENCE], 0)
        assert set(table(run).values()) == {False}

    async def test_no_more_than_wanted_are_asked(self, ledger: Ledger) -> None:
        asked: list[ChatCall] = []
        many = [
            replace(REFERENCE, plan=plan_of(f"double {n}", "add 1 to #1"), answers={1: "8", 2: "9"})
            for n in range(40)
        ]
        async with scoring(ledger, 7, work=lambda call: "8", asked=asked) as run:
            await run.run(many, 0)
        assert len(run.scored) == len(asked) == 7

    async def test_the_seed_draws_the_subtasks(self, ledger: Ledger) -> None:
        def text(n: int) -> Reference:
            return Reference(f"q{n}", "8", plan_of(f"double {n}"), {1: "8"})

        async def drawn(seed: int) -> set[str]:
            async with scoring(ledger, 5, work=lambda call: "8") as run:
                await run.run([text(n) for n in range(40)], seed)
            return set(table(run))

        assert await drawn(1) == await drawn(1) != await drawn(2)

    async def test_a_call_that_fails_is_counted_and_says_nothing_of_its_skill(
        self, ledger: Ledger
    ) -> None:
        def fault(call: ChatCall) -> Fault | None:
            return Fault.FORBIDDEN if step_of(call) == "double 4" else None

        async with scoring(ledger, 5, faults=fault) as run:
            await run.run([REFERENCE], 0)
        assert table(run) == {"add 1 to # [ double 4 ]": True}
        assert run.failed == 1

    async def test_a_model_that_cannot_be_reached_is_given_up_at_once(self, ledger: Ledger) -> None:
        asked: list[ChatCall] = []
        many = [Reference(f"q{n}", "8", plan_of(f"double {n}"), {1: "8"}) for n in range(200)]
        async with scoring(ledger, 200, faults=lambda call: Fault.NOT_FOUND, asked=asked) as run:
            with pytest.raises(CallError, match="new"):
                await run.run(many, 0)
        assert run.failed <= 16

    async def test_a_cap_keeps_what_was_found(self, ledger: Ledger) -> None:
        many = [Reference(f"q{n}", "8", plan_of(f"double {n}"), {1: "8"}) for n in range(200)]
        async with scoring(ledger, 200, work=lambda call: "8 " * 40) as run:
            await run.run(many, 0)
        await ledger.flush()
        entries = ledger.entries()
        spent, bound = sum(e.cost or 0 for e in entries), max(e.bound or 0 for e in entries)
        cap = 16 * bound + spent // 4
        assert spent > cap
        async with scoring(ledger, 200, work=lambda call: "8 " * 40, cap=cap) as run:
            with pytest.raises(BudgetExceeded):
                await run.run(many, 0)
        assert 0 < len(run.scored) < 200


def priced(name: str, dollars: str | None) -> Card:
    price = None if dollars is None else Price(Decimal(dollars), Decimal(dollars))
    return card_at("http://mock/v1", name, price=price)


class TestTakenFor:
    @pytest.mark.parametrize(
        ("own", "expected"),
        [
            ("10", {"a": 0.5, "c": 0.5}),
            ("1", {"a": 1.0}),
            ("0.1", {"a": 1.0}),
            ("100", {"c": 1.0}),
            ("9000", {"c": 1.0}),
            (None, {"a": 1 / 3, "c": 1 / 3, "x": 1 / 3}),
        ],
    )
    def test_the_neighbours_by_price(self, own: str | None, expected: dict[str, float]) -> None:
        workers = [priced("a", "1"), priced("x", None), priced("c", "100")]
        assert taken_for(priced("new", own), workers) == pytest.approx(expected)

    def test_free_models(self) -> None:
        free, dear = priced("free", "0"), priced("dear", "1")
        assert taken_for(priced("new", "0.5"), [free, dear]) == {"dear": 1.0}
        assert taken_for(priced("new", "0"), [free, dear]) == {"free": 1.0}

    def test_nobody_is_measured(self) -> None:
        assert taken_for(priced("new", "1"), []) == {}

    @given(
        st.one_of(st.none(), st.decimals(0, 1000, places=3)),
        st.lists(st.one_of(st.none(), st.decimals(0, 1000, places=3)), min_size=1, max_size=6),
    )
    def test_shares_are_shares(self, own: Decimal | None, others: list[Decimal | None]) -> None:
        workers = [priced(f"w{i}", None if p is None else str(p)) for i, p in enumerate(others)]
        shares = taken_for(priced("new", None if own is None else str(own)), workers)
        assert sum(shares.values()) == pytest.approx(1)
        assert all(0 <= share <= 1 for share in shares.values())
        assert shares.keys() <= {w.name for w in workers}


class TestRank:
    @pytest.mark.parametrize(("own", "place"), [(0.1, 0), (0.5, 1), (0.8, 2), (0.99, 3)])
    def test_between_the_weaker_and_the_stronger(self, own: float, place: int) -> None:
        right = {"a": 0.3, "b": 0.7, "c": 0.9, "new": own}
        assert rank(["a", "b", "c"], right, "new") == place

    def test_an_order_that_shares_contradict_is_contradicted_least(self) -> None:
        right = {"a": 0.3, "b": 0.9, "c": 0.7, "d": 0.95, "new": 0.8}
        assert rank(["a", "b", "c", "d"], right, "new") in (1, 3)

    def test_workers_that_nobody_measured_do_not_speak(self) -> None:
        assert rank(["a", "x", "b"], {"a": 0.3, "b": 0.9, "new": 0.5}, "new") in (1, 2)
        assert rank(["x"], {"new": 0.5}, "new") in (0, 1)

    @given(st.lists(st.floats(0, 1), max_size=8), st.floats(0, 1))
    def test_in_an_orderly_pool_it_keeps_the_order(self, shares: list[float], own: float) -> None:
        names = [f"w{i}" for i in range(len(shares))]
        right = dict(zip(names, sorted(shares), strict=True)) | {"new": own}
        place = rank(names, right, "new")
        assert all(right[n] <= own for n in names[:place])
        assert all(right[n] >= own for n in names[place:])


SUMS = [f"{a} + {b}" for a in range(10, 40, 3) for b in range(11, 40, 4)]
PRODUCTS = [f"{a} * {b}" for a in range(10, 40, 3) for b in range(11, 40, 4)]


def measured(texts: Sequence[str], model: str, *, right: bool, cost: int = 1) -> list[Outcome]:
    return [Outcome(text, model, right, cost) for text in texts]


class TestJoin:
    POOL = pool_at("http://mock/v1")
    MODEL = OutcomeModel.fit(
        [
            *measured(SUMS, "small", right=True),
            *measured(PRODUCTS, "small", right=False),
            *measured(SUMS, "medium", right=True, cost=10),
            *measured(PRODUCTS, "medium", right=False, cost=10),
            *measured(SUMS, "large", right=True, cost=100),
            *measured(PRODUCTS, "large", right=True, cost=100),
        ]
    )

    def card(self, dollars: str) -> Card:
        return priced("new", dollars)

    def test_it_gets_its_place_and_the_others_keep_their_estimates(self) -> None:
        outcomes = measured([*SUMS[:20], *PRODUCTS[:20]], "new", right=True, cost=12)
        joined = join(self.POOL, self.card("12"), self.MODEL, outcomes)
        assert [w.name for w in joined.pool.workers] == ["small", "medium", "new", "large"]
        assert joined.prior == pytest.approx({"medium": 0.92, "large": 0.08}, abs=0.01)
        assert joined.estimate.mean_cost["new"] == 12
        for text in ("17 + 22", "17 * 22"):
            before, after = self.MODEL.p_right(text), joined.estimate.p_right(text)
            assert {n: after[n] for n in before} == before
        assert (
            joined.estimate.p_right("18 * 23")["new"]
            > 0.5
            > self.MODEL.p_right("18 * 23")["medium"]
        )

    def test_a_poor_one_stands_at_the_weak_end(self) -> None:
        outcomes = measured([*SUMS[:20], *PRODUCTS[:20]], "new", right=False)
        joined = join(self.POOL, self.card("12"), self.MODEL, outcomes)
        assert joined.pool.workers[0].name == "new"

    def test_without_outcomes_there_is_nothing_to_join(self) -> None:
        with pytest.raises(DataError, match="one new model"):
            join(self.POOL, self.card("12"), self.MODEL, [])
