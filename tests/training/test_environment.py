"""Where training happens: whose items, on which workers, and never the test side."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.benchmarks import BENCHMARKS
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.nano import arithmetic, scan
from r2reasoner.nano.items import shifted, weight_set
from r2reasoner.training.environment import (
    MAIN,
    SHIFTED,
    Environment,
    is_phrase,
    open_environment,
)
from r2reasoner.training.rows import Row
from training_runs import begun

SCAN = 'benchmark = "scan"\ncount = 60\nreinforce = 50'
ARITHMETIC = 'benchmark = "arithmetic"\ncount = 60\nreinforce = 30\noperands = [2, 3]'


def opened(tmp_path: Path, *sources: str, settings: Sequence[str] = ()) -> Environment:
    begun(tmp_path / "run", sources, *settings)
    return open_environment(tmp_path / "run")


def own(tmp_path: Path, *items: tuple[str, str], **keys: Any) -> str:
    """Write a file of one's own items; return the keys of its source."""
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"query": q, "answer": a}) + "\n" for q, a in items))
    lines = {"benchmark": str(file), **keys}
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())


def sides(rows: Sequence[Row]) -> set[str]:
    nodes = [arithmetic.parse(row["query"]) for row in rows]
    return {arithmetic.side(o) for node in nodes for o in arithmetic.operations(node)}


def right(row: Row) -> str:
    """Return an item's right answer, found otherwise than by the code that made it."""
    if row["family"] == "scan":
        return scan.interpret(row["query"])
    return str(eval(row["query"], {"__builtins__": {}}))


class TestItems:
    def test_searched_are_those_that_the_searcher_has_not_seen(self, tmp_path: Path) -> None:
        environment = opened(tmp_path, SCAN, ARITHMETIC)
        rows = environment.searched()
        of_scan = [row for row in rows if row["family"] == "scan"]
        unseen = set(shifted(weight_set("length"), 0).unseen)
        assert len(of_scan) >= 60
        assert {row["query"] for row in of_scan} <= unseen
        assert sides([row for row in rows if row["family"] == "arithmetic"]) == {"train"}

    def test_reinforced_meet_operations_that_no_worker_has_seen(self, tmp_path: Path) -> None:
        environment = opened(tmp_path, SCAN, ARITHMETIC)
        rows = environment.reinforced()
        assert sides([row for row in rows if row["family"] == "arithmetic"]) == {"dev"}
        commands = {row["query"] for row in rows if row["family"] == "scan"}
        assert len(commands) == 50
        assert commands <= set(weight_set("length").training)

    def test_no_item_is_on_the_test_side(self, tmp_path: Path) -> None:
        environment = opened(tmp_path, SCAN, ARITHMETIC)
        _, tested = scan.split("length")
        rows = [*environment.searched(), *environment.reinforced()]
        assert not {row["query"] for row in rows} & set(tested)
        assert "test" not in sides([row for row in rows if row["family"] == "arithmetic"])

    def test_items_are_right_and_each_comes_once(self, tmp_path: Path) -> None:
        environment = opened(tmp_path, SCAN, ARITHMETIC)
        for rows in (environment.searched(), environment.reinforced()):
            assert len({row["item"] for row in rows}) == len(rows)
            for row in rows:
                assert BENCHMARKS[row["family"]].grade(right(row), row["gold"]) is True

    def test_operands_are_as_many_as_the_recipe_says(self, tmp_path: Path) -> None:
        environment = opened(tmp_path, ARITHMETIC)
        for rows in (environment.searched(), environment.reinforced()):
            counts = {len(list(arithmetic.operations(arithmetic.parse(r["query"])))) for r in rows}
            assert counts == {1, 2}

    def test_a_seed_is_a_set_of_items(self, tmp_path: Path) -> None:
        made = []
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            (tmp_path / name).mkdir()
            environment = opened(tmp_path / name, ARITHMETIC, settings=[f"recipe.seed={seed}"])
            made.append((environment.searched(), environment.reinforced()))
        assert made[0] == made[1] != made[2]


class TestOwnFiles:
    ITEMS = tuple((f"walk and {verb}", f"I_WALK I_{verb.upper()}") for verb in ("run", "look"))

    def test_the_first_are_searched_and_further_ones_reinforced(self, tmp_path: Path) -> None:
        items = [(f"{n} + 1", str(n + 1)) for n in range(10)]
        environment = opened(tmp_path, own(tmp_path, *items, count=6, reinforce=3))
        assert [row["query"] for row in environment.searched()] == [q for q, _ in items[:6]]
        assert [row["query"] for row in environment.reinforced()] == [q for q, _ in items[6:9]]
        assert {row["family"] for row in environment.searched()} == {"mine"}

    def test_where_there_are_no_further_ones_the_same_are_taken(self, tmp_path: Path) -> None:
        environment = opened(tmp_path, own(tmp_path, *self.ITEMS, reinforce=5))
        assert environment.reinforced() == environment.searched()

    def test_they_are_scored_as_their_source_says(self, tmp_path: Path) -> None:
        environment = opened(tmp_path, own(tmp_path, ("1 + 1", "2"), scorer="number"))
        assert environment.grades["mine"]("it is 2.0", "2") is True

    def test_a_benchmark_without_its_file(self, tmp_path: Path) -> None:
        # what a recipe's file cannot say, a program can
        environment = opened(tmp_path, SCAN)
        recipe = environment.recipe
        files_only = replace(recipe, data=replace(recipe.data, nano_set="none"))
        nameless = replace(environment, recipe=files_only)
        with pytest.raises(ConfigError, match="scan: no items: name its file"):
            nameless.searched()

    def test_two_right_answers_for_one_item(self, tmp_path: Path) -> None:
        first = own(tmp_path, ("1 + 1", "2"))
        (tmp_path / "more").mkdir()
        second = own(tmp_path / "more", ("1 + 1", "3"))
        with pytest.raises(DataError, match="'1 \\+ 1' has two right answers: '2' and '3'"):
            opened(tmp_path, first, second).searched()


class TestWorkers:
    def test_candidates_run_on_the_searcher_alone(self, tmp_path: Path) -> None:
        pool = opened(tmp_path, SCAN).search_pool
        assert [card.name for card in pool.workers] == ["32x2"]
        assert (pool.decomposer, pool.allocator, pool.policies) == ("32x2", "ladder", {})

    def test_the_searcher_stands_in_for_every_worker_at_their_prices(self, tmp_path: Path) -> None:
        environment = opened(tmp_path, SCAN)
        pools = environment.pools(environment.pool)
        assert pools[MAIN] is environment.pool
        searcher = environment.searcher
        assert searcher is not None
        for mine, theirs in zip(pools[SHIFTED].workers, environment.pool.workers, strict=True):
            assert (mine.name, mine.price) == (theirs.name, theirs.price)
            assert (mine.model, mine.sha256) == (searcher.model, searcher.sha256)

    def test_one_that_a_run_before_has_trained(self, tmp_path: Path) -> None:
        begun(tmp_path / "before", [SCAN], worker="16x2")
        recipe = begun(tmp_path / "run", [SCAN], f'data.searcher="{tmp_path / "before"}"')
        found = open_environment(recipe.run.folder).searcher
        assert found is not None
        assert found.name == "16x2"

    def test_without_a_nano_set_the_pool_runs_candidates(self, tmp_path: Path) -> None:
        settings = ["data.nano_set=none", "data.proposer=prompted", "data.proposer_model=32x2"]
        environment = opened(tmp_path, own(tmp_path, ("1 + 1", "2")), settings=settings)
        assert environment.search_pool is environment.pool
        assert environment.pools(environment.pool) == {MAIN: environment.pool}
        assert environment.weights is None


def test_parts_come_first_where_verbs_are_cut_apart(tmp_path: Path) -> None:
    length = opened(tmp_path, SCAN)
    (tmp_path / "jump").mkdir()
    jump = opened(tmp_path / "jump", SCAN, settings=["data.nano_set=addprim_jump"])
    assert (length.parts_first, jump.parts_first) == (False, True)
    rows = jump.searched()
    phrases = [row["query"] for row in rows if is_phrase(row)]
    assert 0 < len(phrases) < len(rows)
    assert not any({"and", "after"} & set(phrase.split()) for phrase in phrases)
