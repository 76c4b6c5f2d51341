"""The ladder's kinds and sums, and the real models on it."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pools
from r2reasoner.client import PoolClient
from r2reasoner.errors import CallError, ConfigError
from r2reasoner.mock import MockProvider
from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.ladder import (
    NOBODY,
    ONE_DIGIT,
    UNSEEN_VALUES,
    Kind,
    Ladder,
    Rung,
    arithmetic_kinds,
    ceiling,
    climb,
    phrase_kind,
    scan_kinds,
    trained_split,
)
from r2reasoner.pool.cards import Pool

COUNT = 12


@pytest.fixture(scope="module")
def kinds() -> list[Kind]:
    return arithmetic_kinds(COUNT, seed=0)


def rung(
    kind: str, *accuracy: float, cheapest: str, reached: bool, seen: bool = False, apart: str = ""
) -> Rung:
    by_model = dict(zip(("small", "large"), accuracy, strict=True))
    return Rung("arithmetic", kind, 10, seen, apart, by_model, cheapest, reached)


class TestKinds:
    def test_arithmetic_meets_held_out_operations_only(self, kinds: list[Kind]) -> None:
        for kind in kinds:
            for item in kind.items:
                tree = arithmetic.parse(item.query)
                sides = {arithmetic.side(o) for o in arithmetic.operations(tree)}
                assert sides <= ({"test", "values"} if kind.apart == UNSEEN_VALUES else {"test"})
                assert ("values" in sides) == (kind.apart == UNSEEN_VALUES)
                assert str(arithmetic.value_of(tree)) == item.gold

    def test_single_operations_are_of_their_kind(self, kinds: list[Kind]) -> None:
        single = [kind for kind in kinds if "operands" not in kind.name]
        assert {k.name for k in single} >= {
            *(f"{digits} {sign}" for digits in ("2x1", "2x2", "3x2", "3x3") for sign in "+-"),
            *("1x2 *", "2x1 *", "3x1 *", "2x2 *"),
        }
        for kind in single:
            for item in kind.items:
                (met,) = arithmetic.operations(arithmetic.parse(item.query))
                assert arithmetic.kind(met) == kind.name

    def test_memorised_and_hopeless_kinds_stand_apart(self, kinds: list[Kind]) -> None:
        apart = {kind.name: kind.apart for kind in kinds if kind.apart}
        assert {name for name, why in apart.items() if why == ONE_DIGIT} == {
            *("1x1 +", "1x1 -", "1x1 *")
        }
        assert [name for name, why in apart.items() if why == NOBODY] == ["2x2 *"]
        assert sum(why == UNSEEN_VALUES for why in apart.values()) == 3

    def test_kinds_have_as_many_items_as_asked_or_all_there_are(self, kinds: list[Kind]) -> None:
        sizes = {kind.name: len(kind.items) for kind in kinds}
        assert sizes.pop("1x1 -") <= COUNT
        assert set(sizes.values()) == {COUNT}
        assert all(len({i.query for i in kind.items}) == len(kind.items) for kind in kinds)

    def test_a_kind_is_the_same_for_a_seed(self, kinds: list[Kind]) -> None:
        assert arithmetic_kinds(COUNT, seed=0) == kinds
        assert arithmetic_kinds(COUNT, seed=1) != kinds

    @pytest.mark.parametrize("split", ["length", "addprim_jump"])
    def test_scan_says_what_was_trained_on(self, split: str) -> None:
        training, test = map(set, scan.split(split))
        kinds = scan_kinds(split, 30, seed=0)
        for kind in kinds:
            commands = {item.query for item in kind.items}
            assert commands <= (training if kind.seen else test)
            assert all(scan.interpret(i.query) == i.gold for i in kind.items)
        assert {k.name for k in kinds if k.seen} >= {"verb or turn", "verb direction"}
        assert f"whole command, {split} test" in {k.name for k in kinds if not k.seen}

    def test_every_phrase_has_a_kind(self) -> None:
        names = [phrase_kind(phrase) for phrase in scan.phrases()]
        assert {name: names.count(name) for name in set(names)} == {
            "verb or turn": 6,
            "verb direction": 8,
            "verb opposite direction": 10,
            "verb around direction": 10,
            "repeated phrase": 68,
        }


class TestSummary:
    def test_it_counts_the_cheapest_right_models_and_leaves_out_what_stands_apart(self) -> None:
        rungs = (
            rung("a", 1.0, 1.0, cheapest="small", reached=True, seen=True),
            rung("b", 0.5, 1.0, cheapest="large", reached=True),
            rung("c", 0.2, 0.4, cheapest="large", reached=False),
            rung("d", 0.0, 0.1, cheapest="large", reached=False, apart=NOBODY),
        )
        ladder = Ladder("pool", "length", 0, rungs, {})
        whole, unseen = ladder.summary(), ladder.summary(unseen_only=True)
        assert (whole.kinds, whole.nobodys, unseen.kinds) == (3, 1, 2)
        assert whole.cheapest_for == {"small": 1, "large": 1}
        assert whole.mean == pytest.approx({"small": 1.7 / 3, "large": 2.4 / 3})
        assert whole.rises
        assert not whole.has_one_model_for_most

    def test_one_model_for_most_is_told(self) -> None:
        rungs = tuple(rung(k, 1.0, 0.9, cheapest="small", reached=True) for k in "abc")
        summary = Ladder("pool", "length", 0, rungs, {}).summary()
        assert summary.has_one_model_for_most
        assert not summary.rises


def test_the_ceiling_is_the_product_over_the_operations_met() -> None:
    best = {"2x1 +": 0.5, "2x1 *": 0.8, "3x2 -": 1.0}
    assert ceiling(["12 + 3", "12 + 3 * 1"], best | {"1x1 *": 0.9}) == pytest.approx(
        (0.5 + 0.9 * 0.5) / 2
    )
    with pytest.raises(KeyError):
        ceiling(["3 * 3"], best)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_every_operation_that_items_meet_has_a_kind(seed: int) -> None:
    best = {kind.name: 1.0 for kind in KINDS}
    (item,) = arithmetic.held_out_items([4], 1, seed)
    assert ceiling([str(item["expression"])], best) == 1.0


KINDS = arithmetic_kinds(1, seed=0)


def test_the_split_is_read_from_the_pool() -> None:
    pool = pools.pool_at("http://127.0.0.1:1/v1")
    assert trained_split(pool) == "length"
    assert trained_split(replace(pool, splits=("scan/addprim_jump",))) == "addprim_jump"
    assert trained_split(replace(pool, splits=("scan/length", "arithmetic"))) == "length"


async def test_a_pool_without_sizes_is_refused_before_any_call() -> None:
    async with MockProvider() as provider:
        with pytest.raises(ConfigError, match="parameters"):
            await climb(pools.pool_at(provider.base_url), PoolClient(), 1, 0)
        assert not provider.books


async def test_silence_is_wrong_and_a_failed_call_is_an_error() -> None:
    def sized(base_url: str) -> Pool:
        pool = pools.pool_at(base_url, prompt="plain")
        return replace(
            pool,
            workers=tuple(replace(card, parameters=1) for card in pool.workers),
            splits=("scan/addprim_jump",),
        )

    client = PoolClient()
    async with MockProvider(answer=lambda _: "") as provider:
        ladder = await climb(sized(provider.base_url), client, 1, 0)
        assert {r.best for r in ladder.rungs} == {0.0}
    async with MockProvider(models=["small"]) as provider:
        with pytest.raises(CallError, match="not_found"):
            await climb(sized(provider.base_url), client, 1, 0)
    await client.close()


def climbed(pool: Pool, seed: int = 0) -> tuple[Ladder, list[tuple[int, int]]]:
    heard: list[tuple[int, int]] = []

    async def run() -> Ladder:
        client = PoolClient()
        try:
            return await climb(pool, client, 10, seed, lambda *at: heard.append(at))
        finally:
            await client.close()

    return asyncio.run(run()), heard


@pytest.fixture(scope="module")
def ladder(nano: Pool) -> Ladder:
    ladder, heard = climbed(nano)
    total = len(nano.workers) * sum(rung.items for rung in ladder.rungs)
    assert heard == [(done, total) for done in range(1, total + 1)]
    return ladder


class TestShippedModels:
    def test_every_worker_is_measured_on_every_kind(self, nano: Pool, ladder: Ladder) -> None:
        names = [card.name for card in nano.workers]
        assert all(list(rung.accuracy) == names for rung in ladder.rungs)
        assert all(0 <= share <= 1 for rung in ladder.rungs for share in rung.accuracy.values())

    def test_the_largest_knows_what_the_smallest_does_not(self, nano: Pool, ladder: Ladder) -> None:
        mean = ladder.summary().mean
        assert mean[nano.workers[-1].name] > mean[nano.workers[0].name] + 0.2

    def test_a_rung_names_the_cheapest_right_model(self, nano: Pool, ladder: Ladder) -> None:
        by_price = [card.name for card in nano.by_price]
        for rung in ladder.rungs:
            cheaper = by_price[: by_price.index(rung.cheapest)]
            assert rung.reached == (rung.best >= 0.95)
            assert all(rung.accuracy[name] < min(0.95, rung.best) for name in cheaper)

    def test_a_perfect_plan_is_right_more_often_than_any_model_alone(self, ladder: Ladder) -> None:
        alone = {rung.kind: rung.best for rung in ladder.rungs}
        assert set(ladder.ceilings) == {3, 4, 5}
        assert 1 >= ladder.ceilings[4] > alone["4 operands"] + 0.1

    def test_it_comes_out_the_same_again(self, nano: Pool) -> None:
        few = replace(nano, workers=nano.workers[:2], splits=("scan/length",))
        first, _ = climbed(few)
        again, _ = climbed(few)
        assert [r.kind for r in first.rungs] == [r.kind for r in again.rungs]
        for one, other in zip(first.rungs, again.rungs, strict=True):
            # batch shapes differ, which may flip a near tie
            assert one.accuracy == pytest.approx(other.accuracy, abs=0.2)
