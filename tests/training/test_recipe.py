"""Recipes: the shipped ones, what is refused, and that a resolved one is the same recipe."""

from dataclasses import fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.config import read_toml
from r2reasoner.errors import ConfigError
from r2reasoner.training.recipe import (
    NANO_POSITIONS,
    SHIPPED,
    Recipe,
    Score,
    find_recipe,
    load_recipe,
    resolved,
    shipped,
    stages,
)

ROOT = Path(__file__).parents[2]
SOURCE = '[[data.sources]]\nbenchmark = "scan"\n'


def recipe(text: str, folder: Path) -> Recipe:
    file = folder / "mine.toml"
    file.write_text(f"{text}\n{SOURCE}" if "data.sources" not in text else text)
    return load_recipe(file)


class TestShipped:
    def test_these_are_shipped_and_stand_in_recipes(self) -> None:
        assert shipped() == ("nano", "nano-jump", "qwen2.5-7b", "tiny")
        for name in (*(f"{n}.toml" for n in shipped()), "accelerate.yaml"):
            assert (ROOT / "recipes" / name).read_text() == (SHIPPED / name).read_text()

    @pytest.mark.parametrize("name", shipped())
    def test_resolved_is_the_same_recipe_and_lacks_no_key(self, name: str, tmp_path: Path) -> None:
        loaded = load_recipe(name)
        file = tmp_path / "config.toml"
        file.write_text(resolved(loaded))
        assert load_recipe(file) == loaded
        assert missing(read_toml(file), loaded) == []

    def test_nano_is_of_nano_policies_and_qwen_of_adapters(self) -> None:
        nano, qwen = load_recipe("nano"), load_recipe("qwen2.5-7b")
        assert nano.policies.decomposer.shape is not None
        assert nano.policies.allocator.lora is None
        assert qwen.policies["decomposer"].shape is None
        assert qwen.policies["allocator"].lora is not None
        assert qwen.grpo.vllm.mode == "colocate"
        assert qwen.run.pool == "paper"

    def test_a_name_or_a_path_finds_it(self, tmp_path: Path) -> None:
        assert find_recipe("nano") == SHIPPED / "nano.toml"
        file = tmp_path / "own.toml"
        file.write_text(SOURCE)
        assert find_recipe(file) == file
        with pytest.raises(ConfigError, match=r"no recipe 'nanoo'.*did you mean 'nano'"):
            find_recipe("nanoo")


def missing(raw: dict[str, Any], value: Any) -> list[str]:
    """Return the fields of a recipe that its TOML does not have."""
    found = []
    for field_ in fields(value):
        name = "recipe" if field_.name == "run" else field_.name
        if name not in raw:
            found.append(name)
        elif is_dataclass(own := getattr(value, field_.name)):
            found += missing(raw[name], own)
    return found


class TestDefaults:
    def test_name_and_folder_follow_the_file(self, tmp_path: Path) -> None:
        run = recipe("", tmp_path).run
        assert (run.name, run.folder) == ("mine", Path("runs/mine"))
        named = recipe('[recipe]\nname = "x"\n', tmp_path).run
        assert (named.name, named.out) == ("x", "runs/x")

    def test_the_score_is_that_of_decomposition_data(self) -> None:
        from r2reasoner.training.decompositions import Weights

        names = [f.name for f in fields(Score)]
        assert [getattr(Score(), n) for n in names] == [getattr(Weights(), n) for n in names]

    def test_a_nano_model_has_so_many_positions(self) -> None:
        pytest.importorskip("torch", reason="training needs torch")
        from r2reasoner.nano.fit import POSITIONS

        assert NANO_POSITIONS == POSITIONS

    def test_rewards_are_not_divided_by_a_deviation(self) -> None:
        assert Recipe().grpo.scale_rewards == "none"
        assert Recipe().grpo.num_iterations == 1
        assert Recipe().reward.preset == "cost_aware"


class TestOverrides:
    def test_they_win_over_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_text(f"[grpo]\nrounds = 3\n{SOURCE}")
        loaded = load_recipe(
            file,
            ["grpo.rounds=1", "recipe.cap=0.25", "reward.preset=paper", "evaluate.dial=[0.0, 1]"],
        )
        assert loaded.grpo.rounds == 1
        assert loaded.run.cap == Decimal("0.25")
        assert loaded.reward.preset == "paper"
        assert loaded.evaluate.dial == (0.0, 1.0)

    @pytest.mark.parametrize(
        ("override", "says"),
        [
            ("grpo.rounds", "expected TABLE.KEY=VALUE"),
            ("=3", "expected TABLE.KEY=VALUE"),
            ("grpo.rounds.more=3", "rounds is no table"),
            ("grpo.round=3", "unknown key; did you mean 'rounds'?"),
            ("grpo.rounds=many", "expected a whole number from 0 to 1000, got 'many'"),
        ],
    )
    def test_a_wrong_one_is_refused(self, override: str, says: str, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_text(f"[grpo]\nrounds = 3\n{SOURCE}")
        with pytest.raises(ConfigError) as error:
            load_recipe(file, [override])
        assert says in str(error.value)

    @given(st.integers(0, 2**31 - 1), st.floats(0, 100), st.integers(2, 64))
    def test_any_of_them_resolve_to_the_same_recipe(
        self, seed: int, ceiling: float, group: int
    ) -> None:
        changed = load_recipe(
            "tiny",
            [
                f"recipe.seed={seed}",
                "reward.lambda_floor=0",
                f"reward.lambda_max={ceiling!r}",
                f"grpo.group={group}",
            ],
        )
        assert changed.run.seed == seed
        assert changed.reward.lambda_max == ceiling
        assert changed.grpo.completions == 4 * group


NANO_POLICY = "[policies.decomposer]\n"


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("[grp]\nrounds = 1", "[grp]: unknown key; did you mean 'grpo'?"),
            ("[grpo]\nlearning_rate = 1", "[grpo] learning_rate: unknown key; did you mean"),
            ('[data]\nproposer = "prompted"', "needs proposer_model"),
            ('[data]\nproposer_model = "x"', "belongs to proposer"),
            ('[data]\nnano_set = "none"', "knows nano sets only"),
            (f"{NANO_POLICY}dial = 1", "dial: one setting is none; expected 0, or 2 to 9"),
            (f'{NANO_POLICY}prompt = "chat"', "has no chat template"),
            (f"{NANO_POLICY}lora = {{ rank = 8 }}", "starts from random weights"),
            (f"{NANO_POLICY}max_prompt = 200", "is 264; a nano policy has 256 positions"),
            (f'{NANO_POLICY}interchangeable = ["hop"]', "hop: no word of a nano policy"),
            (
                f'{NANO_POLICY}base = "org/model"\ninterchangeable = ["walk"]',
                "interchangeable: for nano policies",
            ),
            ('[data]\nnano_set = "simple"', 'nano_set "simple" needs train_items'),
            ('[data]\ntrain_items = "x.jsonl"', "the split length has training commands"),
            ("[sft.allocator]\nepochs = 2", "steps 1500 and epochs 2: expected one of them"),
            ("[sft.allocator]\nmicro_batch = 5", "micro_batch 5 does not divide 32 rows"),
            ("[grpo]\nmicro_batch = 5", "micro_batch 5 does not divide 512 rows"),
            ("[hardware]\nprocesses = 3", "is 32: expected a multiple of 3 processes"),
            (
                f'{NANO_POLICY}base = "org/model"\n[grpo]\noptimizer = "muon"',
                '[grpo] optimizer: "muon" is for nano policies',
            ),
            (
                f'{NANO_POLICY}base = "org/model"\n[sft.decomposer]\noptimizer = "muon"',
                '[sft.decomposer] optimizer: "muon" is for nano policies',
            ),
            ("[grpo]\nepsilon_high = 0.1", "epsilon_high 0.1 is below epsilon 0.2"),
            ("[grpo]\ngroup = 1", "group: expected a whole number from 2"),
            ('[grpo.vllm]\nmode = "server"', "needs url"),
            ('[grpo.vllm]\nurl = "http://localhost:8000"', 'belongs to mode "server"'),
            ('[grpo.vllm]\nmode = "colocate"\ntensor_parallel = 2', "does not divide"),
            (
                '[grpo.vllm]\nmode = "colocate"\n[hardware]\ndevice = "cpu"',
                "vLLM needs a GPU",
            ),
            ("[reward]\nlambda_floor = 2", "lambda_floor 2 is above lambda_max 1"),
            ('[evaluate]\nsplits = ["length"]', "'length': expected BENCHMARK/SPLIT"),
            ("[recipe]\ncap = 0", "[recipe] cap: expected dollars above 0"),
            ("[recipe]\nseed = -1", "[recipe] seed: expected a whole number from 0"),
        ],
    )
    def test_naming_file_table_and_key(self, text: str, says: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as error:
            recipe(text, tmp_path)
        assert "mine.toml: " in str(error.value)
        assert says in str(error.value)

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ('benchmark = "skan"', "(skan): no such benchmark; did you mean 'scan'?"),
            ('benchmark = "scan"\nscorer = "number"', "scorer is for own files"),
            ('benchmark = "a.jsonl"\nitems = "b.jsonl"', "leave items out"),
            ('benchmark = "scan"\ncount = 0', "count: expected a whole number from 1"),
            ('benchmark = "arithmetic"\noperands = [7]', "operands: expected a list"),
        ],
    )
    def test_sources_that_are_none(self, source: str, says: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as error:
            recipe(f"[[data.sources]]\n{source}", tmp_path)
        assert says in str(error.value)

    def test_items_that_nobody_makes(self, tmp_path: Path) -> None:
        own = '[data]\nnano_set = "none"\nproposer = "prompted"\nproposer_model = "x"\n'
        with pytest.raises(ConfigError, match="expected its file in items, since nano_set is none"):
            recipe(f"{own}{SOURCE}", tmp_path)
        jump = '[data]\nnano_set = "addprim_jump"\n[[data.sources]]\nbenchmark = "arithmetic"'
        with pytest.raises(ConfigError, match="only nano_set length has arithmetic"):
            recipe(jump, tmp_path)

    def test_a_recipe_without_items(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text("[data]\nsources = []\n")
        with pytest.raises(ConfigError, match="no items to train on"):
            load_recipe(tmp_path / "mine.toml")

    def test_all_disagreements_are_told_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as error:
            recipe("[grpo]\nepsilon_high = 0.1\n[reward]\nlambda_floor = 2", tmp_path)
        assert len(str(error.value).splitlines()) == 2

    def test_a_file_that_is_no_toml(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="not valid TOML"):
            recipe("[grpo", tmp_path)


class TestStages:
    def test_they_alternate_and_leave_out_what_has_no_steps(self, tmp_path: Path) -> None:
        loaded = recipe("[grpo]\nrounds = 2\nsteps_decomposer = 0", tmp_path)
        assert stages(loaded) == [
            *("workers", "decompositions", "sft-decomposer", "allocations", "sft-allocator"),
            *("grpo-1-allocator", "grpo-2-allocator", "pool"),
        ]

    def test_items_of_files_need_no_nano_workers(self) -> None:
        assert stages(load_recipe("qwen2.5-7b"))[0] == "decompositions"
