"""The recipe that leaves a worker out and adds it again, on a few items."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from r2reasoner.allocator import PolicyAllocator
from r2reasoner.pool.cards import Card, Pool

RECIPE = Path(__file__).parents[2] / "recipes" / "tenth_model.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tenth_model", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tenth_model"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def with_policy(pool: Pool, knows: tuple[str, ...]) -> Pool:
    card = Card(
        name="chooser",
        endpoint=pool.strongest.endpoint,
        model="chooser",
        price=pool.strongest.price,
        plan_format="line",
        prompt="plain",
        knows=knows,
    )
    return replace(pool, policies={**pool.policies, "chooser": card}, allocator="chooser")


class TestWithout:
    def test_the_worker_is_gone_and_nothing_else(self, recipe: ModuleType, nano: Pool) -> None:
        left = recipe.without(nano, "64x2")
        names = [c.name for c in nano.workers]
        names.remove("64x2")
        assert [c.name for c in left.workers] == names
        assert left.policies["decomposer"] == nano.policies["decomposer"]

    @pytest.mark.parametrize(("gone", "instead"), [("64x2", "96x3"), ("128x4", "96x3")])
    def test_a_policy_s_token_means_the_next_stronger_worker(
        self, recipe: ModuleType, nano: Pool, gone: str, instead: str
    ) -> None:
        names = tuple(c.name for c in nano.workers)
        left = recipe.without(with_policy(nano, names), gone)
        card = left.card("chooser")
        assert card.knows == tuple(instead if n == gone else n for n in names)
        PolicyAllocator(left, card, 0.3)  # which it takes

    def test_a_policy_that_never_knew_it_stays_as_it_is(
        self, recipe: ModuleType, nano: Pool
    ) -> None:
        pool = with_policy(nano, ("8x1", "128x4"))
        assert recipe.without(pool, "64x2").card("chooser") == pool.card("chooser")


def test_the_recipe_from_end_to_end(nano: Pool, tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE), "--items", "6", "--draws", "1", "--calibrate", "4"]
    command += ["--hold-out", "96x3", "--work", str(tmp_path / "w"), "--out", str(tmp_path / "r")]
    env = os.environ | {"R2REASONER_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "r").read_text())["rows"]
    allocators = {nano.allocator: 2, "calibrated": 2}
    stages = ["before", "N = 4", "all measured in full"]
    assert [r["stage"] for r in rows] == stages * sum(allocators.values())
    assert {r["allocator"] for r in rows} == allocators.keys()
    assert {(r["benchmark"], r["n"]) for r in rows} == {("scan", 6), ("arithmetic", 6)}
    assert all(r["newcomer_share"] == 0 for r in rows if r["stage"] == "before")
    added = [r for r in rows if r["stage"] == "N = 4"]
    assert all(r["adding"] > r["own"] > 0 and len(r["places"]) == 1 for r in added)
    table = done.stdout.splitlines()
    assert len(table) == 2 + len(rows)
    assert len({line.count("|") for line in table}) == 1
