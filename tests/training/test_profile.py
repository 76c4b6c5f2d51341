"""The average item of a recipe, from a sample of its sources."""

import json
from pathlib import Path

import pytest

from r2reasoner.errors import DataError
from r2reasoner.nano.propose import propose
from r2reasoner.training.profile import PLAN_SUBTASKS, items_of
from r2reasoner.training.recipe import Data, Source


def own(folder: Path, queries: list[str], name: str = "mine.jsonl") -> Source:
    file = folder / name
    file.write_text("".join(json.dumps({"query": q, "answer": "1 2"}) + "\n" for q in queries))
    return Source(benchmark=str(file), count=100)


def test_of_a_file_it_is_counted(tmp_path: Path) -> None:
    queries = ["red and blue", "green"]
    found = items_of(Data(sources=(own(tmp_path, queries),)), 0)
    assert (found.count, found.reinforced, found.missing) == (2, 2, ())
    plans = [propose(query) for query in queries]
    called = [sum(len(c.plan.subtasks) for c in candidates) for candidates in plans]
    profile = found.profile
    assert profile.candidates == sum(map(len, plans)) / 2
    assert profile.tried == sum(called) / 2
    assert profile.query_words == 2
    assert profile.gold_words == 2
    assert profile.query_bytes == sum(map(len, queries)) / 2
    # the first is planned in two, the second answered directly
    assert profile.subtasks == 1.5


def test_sources_weigh_by_their_items(tmp_path: Path) -> None:
    few = own(tmp_path, ["a b c d"])
    many = own(tmp_path, ["a", "b", "c"], "other.jsonl")
    assert items_of(Data(sources=(few, many)), 0).profile.query_words == (4 + 3) / 4


def test_items_for_reinforcement_come_after_the_others(tmp_path: Path) -> None:
    source = own(tmp_path, [f"item {n}" for n in range(10)])

    def reinforced(count: int, reinforce: int) -> int:
        changed = Source(benchmark=source.benchmark, count=count, reinforce=reinforce)
        return items_of(Data(sources=(changed,)), 0).reinforced

    assert reinforced(6, 3) == 3
    assert reinforced(6, 9) == 4
    assert reinforced(6, 0) == 6, "the same ones"
    assert reinforced(20, 9) == 10, "no others are left"


def test_what_is_made_here_is_drawn_by_the_seed() -> None:
    sources = (Source(count=30), Source(benchmark="arithmetic", count=70, reinforce=20))
    found = items_of(Data(sources=sources), 3)
    assert (found.count, found.reinforced) == (100, 50)
    assert found == items_of(Data(sources=sources), 3)
    assert found != items_of(Data(sources=sources), 4)
    assert found.profile.candidates > 1
    assert found.profile.subtasks > 1
    assert found.profile.tried >= found.profile.candidates


def test_fewer_candidates_take_fewer_calls() -> None:
    def tried(candidates: int) -> float:
        source = Source(benchmark="arithmetic", operands=(4,))
        return items_of(Data(sources=(source,), candidates=candidates), 0).profile.tried

    assert tried(1) == 1
    assert tried(1) < tried(3) < tried(40)


def test_plans_of_a_prompted_model_are_assumed(tmp_path: Path) -> None:
    data = Data(
        sources=(own(tmp_path, ["why?"]),),
        proposer="prompted",
        proposer_model="x",
        candidates=5,
    )
    profile = items_of(data, 0).profile
    assert (profile.candidates, profile.subtasks) == (5, PLAN_SUBTASKS)
    assert profile.tried == 1 + 4 * PLAN_SUBTASKS


def test_a_file_that_is_not_there_is_assumed_and_named(tmp_path: Path) -> None:
    source = Source(benchmark=str(tmp_path / "later.jsonl"), count=7, reinforce=3)
    found = items_of(Data(sources=(source,)), 0)
    assert found.missing == (source.benchmark,)
    assert (found.count, found.reinforced) == (7, 3)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("")
    with pytest.raises(DataError, match="empty"):
        items_of(Data(sources=(Source(benchmark=str(file)),)), 0)
