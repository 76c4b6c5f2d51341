"""A whole training by the tiny recipe: what it leaves, and that a kill costs nothing twice."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pools

pytest.importorskip("trl", reason="training needs trl")

from r2reasoner.cli.app import main
from r2reasoner.client.embedded import checksum
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.evaluation.spending import CapReached
from r2reasoner.ledger import Ledger
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.pool.load import load_pool
from r2reasoner.training.alternate import fork, run
from r2reasoner.training.policies import load_policy
from r2reasoner.training.recipe import Recipe, load_recipe, stages
from r2reasoner.training.run_folder import RunFolder
from r2reasoner.training.serving import check
from r2reasoner.training.shard_folder import made_rows
from training_runs import TINY, command

DATA = ["workers", "decompositions", "sft-decomposer", "allocations", "sft-allocator"]
TINY_DATA = TINY / "data" / "decompositions"
QUERIES = ("walk left", "run twice", "look and jump", "walk right after run left")


def silent(line: str) -> None:
    """Say nothing."""


def figures(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [row for row in RunFolder.reading(folder).rows() if row["stage"] == stage]


def paid(folder: Path) -> tuple[int, int]:
    """Return the calls and pico-dollars that the ledger has."""
    with Ledger.open(folder / "ledger.db") as ledger:
        total = ledger.totals()
        return total.calls, total.cost


def answers(folder: Path) -> dict[str, float]:
    """Return when each recorded answer was given, by key."""
    with OutcomeStore.open(folder / "outcomes") as store:
        return {answer.key: answer.at for answer in store.answers()}


class TestWhole:
    def test_every_stage_is_done_and_in_the_summary(self, tiny_copy: Path) -> None:
        names = stages(load_recipe("tiny"))
        assert names[0] == "workers"
        folder = RunFolder.reading(TINY)
        assert all(folder.is_done(name) for name in names)
        summary = json.loads((TINY / "summary.json").read_text())
        assert [stage["stage"] for stage in summary["stages"]] == names
        assert all(stage["done"] for stage in summary["stages"])
        calls, pico = paid(TINY)
        assert summary["total"]["calls"] == calls > 0
        assert summary["total"]["dollars"] == pytest.approx(pico / 10**12)
        assert "| grpo-1-allocator | yes |" in (TINY / "summary.md").read_text()

    def test_what_happened_can_be_read(self, tiny_copy: Path) -> None:
        assert {"val_loss", "loss"} <= set(figures(TINY, "sft-decomposer")[-1])
        for policy, steps in (("decomposer", 4), ("allocator", 6)):
            rows = figures(TINY, f"grpo-1-{policy}")
            assert [row["step"] for row in rows if "reward" in row] == list(range(1, steps + 1))
            assert 0 <= rows[-1]["val_accuracy"] <= 1
            assert rows[0]["served_alike"] >= 0.97
            (samples,) = (TINY / "rollouts").glob(f"grpo-1-{policy}-*.txt")
            assert all(word in samples.read_text() for word in ("query", "written", "reward"))
        (searched,) = figures(TINY, "allocations")
        assert searched["plans"] > searched["unparseable"]
        assert searched["grouped_items"] == 20
        drawn = {file.name for file in (TINY / "plots").iterdir()}
        assert {"reward.png", "accuracy.png", "loss.png", "model_share.png"} <= drawn

    def test_policies_learned_something(self, tiny_copy: Path) -> None:
        for stage in ("sft-decomposer", "sft-allocator"):
            losses = [row["val_loss"] for row in figures(TINY, stage) if "val_loss" in row]
            assert losses[-1] < 0.5 * losses[0]

    def test_the_pool_file_names_the_policies_that_were_trained_last(self, tiny_copy: Path) -> None:
        pool = load_pool(TINY / "pool.toml")
        assert (pool.decomposer, pool.allocator) == ("decomposer", "allocator")
        assert set(pool.policies) == {"decomposer", "allocator"}
        for name, card in pool.policies.items():
            served = TINY / "served" / f"grpo-1-{name}"
            assert card.sha256 == checksum(served) != checksum(TINY / "served" / f"sft-{name}")
            (trained,) = (TINY / "checkpoints" / f"grpo-1-{name}").glob("step-*")
            assert check(load_policy(trained), card, QUERIES, 40) == 1.0
        assert pool.policies["decomposer"].dial == pool.policies["allocator"].dial == 3
        assert pool.policies["allocator"].knows == tuple(card.name for card in pool.workers)

    def test_ask_uses_them(
        self,
        tiny_copy: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        said = (tiny_copy / "said.txt").read_text()
        assert "r2reasoner ask --pool runs/train-tiny/pool.toml" in said
        pool = ["--pool", str(TINY / "pool.toml")]
        asked = ["ask", "look and jump", *pool, "--trade-off", "0", "--json"]
        monkeypatch.setattr(sys, "argv", ["r2reasoner", *asked])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        trace = json.loads(capsys.readouterr().out)["trace"]
        by_role = {call["role"]: call["model"] for call in trace["calls"]}
        assert by_role["decomposer"] == "decomposer"
        assert by_role["allocator"] == "allocator"
        assert all(
            choice is None or choice["model"] in ("8x1", "16x1", "16x2")
            for choice in trace["allocation"]["choices"]
        )

    def test_a_run_that_is_done_is_left_as_it_is(self, tiny_copy: Path) -> None:
        before = {f: f.read_bytes() for f in (TINY / "stages").iterdir()}
        spent = paid(TINY)
        said: list[str] = []
        assert run(load_recipe("tiny"), say=said.append) == TINY
        assert said == []
        assert {f: f.read_bytes() for f in (TINY / "stages").iterdir()} == before
        assert paid(TINY) == spent

    def test_it_goes_on_with_another_cap_but_no_other_recipe(self, tiny_copy: Path) -> None:
        run(load_recipe("tiny", ["recipe.cap=2", "data.in_flight=3"]), say=silent)
        assert load_recipe(TINY / "config.toml").run.cap == 2
        with pytest.raises(ConfigError, match=r"another config: grpo\.group: 4 there, 8 now"):
            run(load_recipe("tiny", ["grpo.group=8"]), say=silent)

    def test_what_was_changed_since_is_not_built_upon(self, tiny_copy: Path) -> None:
        (shard,) = (TINY / "data" / "allocations").glob("*.parquet")
        shard.write_bytes(shard.read_bytes()[:-100])
        with pytest.raises(DataError, match=str(shard)):
            run(load_recipe("tiny"), say=silent)


class Killed(NamedTuple):
    """A process that was killed: what it had said, and the answers that were on record."""

    said: str
    answers: dict[str, float]


def killed(arguments: Sequence[str], folder: Path, when: Callable[[], bool]) -> Killed:
    """Start a command, and kill it (-9) as soon as something holds."""
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            while not when():
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.002)
        finally:
            process.kill()
        said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return Killed(said, answers(folder))


def finished(arguments: Sequence[str]) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def forked(out: Path, kept: Sequence[str]) -> Recipe:
    """Begin a run with stages of the tiny one, without its recorded answers."""
    recipe = load_recipe("tiny", [f"recipe.out={out}"])
    fork(TINY, recipe, kept)
    shutil.rmtree(out / "outcomes")
    return recipe


class TestKilled:
    def test_while_data_is_built(self, tiny_copy: Path) -> None:
        out = Path("killed")
        forked(out, ["workers"])
        # few at a time, so that there is time to kill it
        build = ["build", "decompositions", "tiny", "--out", str(out)]
        build += ["--set", "data.in_flight=2"]
        kept: dict[str, float] = {}
        for least in (20_000, 60_000):

            def far_enough(least: int = least) -> bool:
                journals = (out / "data" / "decompositions").glob("*.jsonl")
                return sum(file.stat().st_size for file in journals) > least

            left = killed(build, out, far_enough)
            assert kept.items() <= left.answers.items()
            kept = left.answers
        finished(build)
        assert kept.items() <= answers(out).items(), "an answer on record was asked for again"
        calls, pico = paid(out)
        # what was in flight when it was killed is paid for and lost: two items, a few calls each
        assert len(answers(out)) <= calls <= len(answers(out)) + 2 * 2 * 3
        bill = json.loads((out / "summary.json").read_text())["total"]
        assert (bill["calls"], round(bill["dollars"] * 10**12)) == (calls, pico)
        rows, whole = made_rows(out / "data" / "decompositions"), made_rows(TINY_DATA)
        assert [row["query"] for row in rows] == [row["query"] for row in whole]
        alike = sum(a["plan"] == b["plan"] for a, b in zip(rows, whole, strict=True))
        assert alike > 0.98 * len(rows)

    def test_while_a_policy_is_reinforced(self, tiny_copy: Path) -> None:
        out = Path("killed")
        forked(out, DATA)
        train = ["train", "alternate", "tiny", "--out", str(out)]

        def far_enough() -> bool:
            metrics = out / "metrics.jsonl"
            return metrics.exists() and '"grpo-1-allocator", "step": 3' in metrics.read_text()

        left = killed(train, out, far_enough)
        folder = RunFolder.reading(out)
        assert folder.is_done("grpo-1-decomposer")
        assert not folder.is_done("grpo-1-allocator")
        said = finished(train)
        assert "grpo-1-allocator: goes on after step 2" in said or "after step 4" in said
        assert "grpo-1-decomposer ..." not in said
        assert left.answers.items() <= answers(out).items()
        steps = [row["step"] for row in figures(out, "grpo-1-allocator") if "reward" in row]
        assert steps == [1, 2, 3, 4, 5, 6]
        assert (out / "pool.toml").exists()


class TestRefused:
    """What cannot work is said, before anything is paid if it can be known then."""

    def own(self, tmp_path: Path, *items: tuple[str, str]) -> Path:
        file = tmp_path / "mine.jsonl"
        file.write_text("".join(json.dumps({"query": q, "answer": a}) + "\n" for q, a in items))
        return file

    def recipe(self, tmp_path: Path, file: Path, *overrides: str, keys: str = "") -> Recipe:
        toml = tmp_path / "mine.toml"
        toml.write_text(f'[[data.sources]]\nbenchmark = "{file}"\n{keys}')
        settings = [f'recipe.out="{tmp_path / "run"}"', *overrides]
        return load_recipe(toml, settings)

    def test_a_pool_without_the_policy(self, tmp_path: Path) -> None:
        pool = pools.pool_file(tmp_path, "http://localhost:1/v1")
        more = ["policies.allocator.base=some/base", f'recipe.pool="{pool}"']
        recipe = self.recipe(tmp_path, self.own(tmp_path, ("1 + 1", "2")), *more)
        with pytest.raises(ConfigError, match="does not say what the allocator"):
            run(recipe, say=silent)
        assert not (tmp_path / "run").exists()

    def test_a_base_that_is_not_there(self, tmp_path: Path) -> None:
        pool = pools.pool_file(tmp_path, "http://localhost:1/v1")
        more = [f'policies.decomposer.base="{tmp_path}/nothing"', f'recipe.pool="{pool}"']
        recipe = self.recipe(tmp_path, self.own(tmp_path, ("1 + 1", "2")), *more)
        with pytest.raises(ConfigError, match="nothing: neither a model's folder"):
            run(recipe, say=silent)
        assert not (tmp_path / "run").exists()

    def test_items_whose_candidates_are_all_wrong(self, tiny_copy: Path, tmp_path: Path) -> None:
        items = self.own(tmp_path, ("walk", "I_JUMP"), ("run", "I_JUMP"))
        more = ["data.workers=shipped", f'data.searcher="{TINY.absolute()}"']
        recipe = self.recipe(tmp_path, items, *more)
        with pytest.raises(DataError, match="none of 2 items has a decomposition to learn from"):
            run(recipe, say=silent)
        folder = tmp_path / "run"
        assert not RunFolder.reading(folder).is_done("decompositions")
        bill = json.loads((folder / "summary.json").read_text())["total"]
        assert bill["calls"] == paid(folder)[0] > 0

    def test_plans_that_no_model_solves(self, tiny_copy: Path, tmp_path: Path) -> None:
        items = self.own(tmp_path, ("walk left", "I_TURN_LEFT I_WALK"), ("run", "I_JUMP"))
        more = ["data.workers=shipped", f'data.searcher="{TINY.absolute()}"']
        more += ["policies.decomposer.base=8x1", "sft.decomposer.steps=2", "sft.decomposer.batch=2"]
        recipe = self.recipe(tmp_path, items, *more, keys="count = 1\nreinforce = 1\n")
        with pytest.raises(DataError, match="no model solves any of 1 items"):
            run(recipe, say=silent)
        folder = RunFolder.reading(tmp_path / "run")
        assert folder.is_done("sft-decomposer")
        assert not folder.is_done("allocations")

    def test_a_budget_that_ends_midway(self, tiny_copy: Path) -> None:
        out = Path("poor")
        forked(out, ["workers"])
        poor = load_recipe("tiny", [f"recipe.out={out}", "recipe.cap=0.00001"])
        with pytest.raises(CapReached, match=r"the cap of \$0\.00001 is reached"):
            run(poor, ["decompositions"], silent)
        calls, pico = paid(out)
        assert 0 < pico <= 10_000_000
        kept = answers(out)
        assert len(kept) == calls
        run(load_recipe("tiny", [f"recipe.out={out}"]), ["decompositions"], silent)
        assert kept.items() <= answers(out).items()
        assert paid(out)[0] == len(answers(out))

    def test_a_stage_whose_data_is_missing(self, tiny_copy: Path) -> None:
        out = Path("fresh")
        forked(out, ["workers"])
        with pytest.raises(ConfigError, match="r2reasoner build decompositions first"):
            run(load_recipe("tiny", [f"recipe.out={out}"]), ["sft-decomposer"], silent)
