"""The nano workers of a run: what the tiny recipe trained, and what is not trained again."""

import shutil
from pathlib import Path

import pytest

from r2reasoner.client.embedded import checksum
from r2reasoner.nano.items import weight_set
from r2reasoner.nano.presets import TINY
from r2reasoner.pool.cards import Group
from r2reasoner.pool.load import load_pool
from r2reasoner.training.environment import SEARCHER, WORKERS
from r2reasoner.training.recipe import load_recipe
from training_runs import TINY as RUN

pytest.importorskip("trl", reason="training needs trl")

from r2reasoner.training.nano_workers import train_workers


def silent(line: str) -> None:
    """Say nothing."""


def test_all_workers_are_in_a_pool_of_their_own(tiny: Path) -> None:
    pool = load_pool(tiny / RUN / WORKERS)
    assert [card.name for card in pool.workers] == [shape.name for shape in sorted(TINY.workers)]
    assert [card.group for card in pool.workers] == [Group.SMALL, Group.MEDIUM, Group.LARGE]
    assert pool.policies == {}
    prices = [card.price.input for card in pool.workers if card.price is not None]
    assert prices == sorted(prices)
    assert len(prices) == 3
    for card in pool.workers:
        assert card.endpoint.path is not None
        assert checksum(card.endpoint.path / card.model) == card.sha256


def test_the_searcher_stands_apart(tiny: Path) -> None:
    (card,) = load_pool(tiny / RUN / SEARCHER).workers
    assert card.name == TINY.searcher[0].name
    assert card.endpoint.path == (tiny / RUN / "converted-searcher").resolve()
    of_that_size = load_pool(tiny / RUN / WORKERS).card(card.name)
    assert of_that_size.sha256 != card.sha256, "it has seen less than the worker of its size"


def test_what_is_there_is_not_fitted_again(tiny_copy: Path) -> None:
    run = tiny_copy / RUN
    recipe = load_recipe(run / "config.toml")
    fitted = {f: f.stat().st_mtime_ns for f in run.glob("*/*/model.safetensors")}
    before = {name: (run / name).read_text() for name in (WORKERS, SEARCHER)}
    said: list[str] = []
    made = train_workers(recipe, weight_set("length"), run, said.append)
    assert said == []
    assert len(fitted) == 4
    assert {f: f.stat().st_mtime_ns for f in fitted} == fitted
    assert {name: (run / name).read_text() for name in before} == before
    assert made == {
        "searcher": run / "converted-searcher",
        "workers": run / "converted-workers",
    }


def test_a_run_with_shipped_workers_and_a_searcher_of_another_trains_nothing(
    tmp_path: Path,
) -> None:
    recipe = load_recipe("tiny", ["data.workers=shipped", "data.searcher=runs/before"])
    run = tmp_path / "run"
    assert train_workers(recipe, weight_set("length"), run, silent) == {}
    assert not run.exists()


def test_shipped_workers_need_their_searcher_alone(tiny_copy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_copy / RUN / "searcher", run / "searcher")
    shutil.copy(tiny_copy / RUN / "shifted.npz", run)
    # the full preset's searcher, as if it had been fitted before
    (run / "searcher" / TINY.searcher[0].name).rename(run / "searcher" / "64x2")
    recipe = load_recipe("tiny", ["data.workers=shipped"])
    assert set(train_workers(recipe, weight_set("length"), run, silent)) == {"searcher"}
    assert (run / SEARCHER).is_file()
    assert not (run / WORKERS).exists()
    assert not (run / "workers.npz").exists()
