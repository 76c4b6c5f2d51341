"""Shipping: a run's models in one folder, measured, and a pool file that answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from r2reasoner.client.embedded import checksum
from r2reasoner.nano.items import weight_set
from r2reasoner.nano.ship import ship
from r2reasoner.outcomes.measured import query_outcomes, raw_files, subtask_outcomes
from r2reasoner.pool.load import load_pool
from training_runs import TINY


@pytest.fixture
def shipped(tiny_copy: Path) -> Path:
    """The pool file of what was shipped; the run is gone."""
    file = tiny_copy / "shipped" / "nano.toml"
    file.parent.mkdir()
    ship(TINY, weight_set("length"), 12, file.parent / "weights", file, 0)
    shutil.rmtree(TINY)
    return file


def test_it_stands_without_the_run(shipped: Path) -> None:
    pool = load_pool(shipped)
    assert [card.name for card in pool.workers] == ["8x1", "16x1", "16x2"]
    assert set(pool.policies) == {"decomposer", "allocator"}
    assert (pool.name, pool.splits) == ("nano", ("length", "arithmetic"))
    for card in (*pool.workers, *pool.policies.values()):
        assert card.endpoint.path == (shipped.parent / "weights").resolve()
        assert card.price is not None
        assert checksum(card.endpoint.path / card.model) == card.sha256
    assert pool.policies["decomposer"].dial == 3
    assert pool.policies["allocator"].knows == ("8x1", "16x1", "16x2")


def test_it_was_measured_and_says_how_it_was_trained(shipped: Path) -> None:
    pool = load_pool(shipped)
    assert pool.outcomes == (shipped.parent / "weights" / "outcomes.npz").resolve()
    with np.load(pool.outcomes, allow_pickle=False) as measured:
        assert measured.files
    assert {file.name for file in raw_files(pool.outcomes)} == {
        "outcomes.jsonl.gz",
        "outcomes.queries.jsonl.gz",
    }
    assert subtask_outcomes(pool).models == query_outcomes(pool).models == ("8x1", "16x1", "16x2")
    assert len(query_outcomes(pool)) == 12
    assert (shipped.parent / "weights" / "recipe.toml").read_text().startswith("[recipe]")
    told = json.loads((shipped.parent / "weights" / "training.json").read_text())
    assert list(told) == ["8x1", "16x1", "16x2", "decomposer", "allocator"]
    assert told["8x1"]["steps"] == 150
    assert told["allocator"]["stages"] == ["sft-allocator", "grpo-1-allocator"]
    assert told["allocator"]["parameters"] == pool.policies["allocator"].parameters
    assert "A laboratory and a demonstration, not an assistant." in shipped.read_text()


def test_shipping_again_replaces_the_folder_as_a_whole(tiny_copy: Path) -> None:
    folder, file = tiny_copy / "weights", tiny_copy / "nano.toml"
    folder.mkdir()
    (folder / "left_over").write_text("x")
    ship(TINY, weight_set("length"), 6, folder, file, 0)
    assert not (folder / "left_over").exists()
    assert not list(tiny_copy.glob(".*.part"))
    assert load_pool(file).workers
