"""Base models: a folder is taken as it is, what is neither folder nor name is refused."""

from pathlib import Path

import pytest

from r2reasoner.errors import ConfigError
from r2reasoner.training.bases import check_bases, find_base
from r2reasoner.training.recipe import load_recipe


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert find_base(str(tmp_path / "model")) == tmp_path / "model"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_base("~/model") == tmp_path / "model"


@pytest.mark.parametrize("base", ["nothing", "./nothing", "a/b/c", "/nowhere/at/all"])
def test_what_is_neither_folder_nor_name(base: str) -> None:
    with pytest.raises(ConfigError, match="neither a model's folder"):
        find_base(base)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        find_base(str(tmp_path))


def test_of_a_recipe_only_bases_of_its_own_are_looked_for() -> None:
    check_bases(load_recipe("tiny"))
    settings = ["sft.allocator.optimizer=adamw", "grpo.optimizer=adamw"]
    with pytest.raises(ConfigError, match="nothing: neither"):
        check_bases(load_recipe("tiny", ["policies.allocator.base=nothing", *settings]))
