"""The stages of a weight set, from rows to converted models that answer in process."""

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

from r2reasoner.budget import Meter
from r2reasoner.client import ChatRequest, Completion, PoolClient
from r2reasoner.client.embedded import checksum
from r2reasoner.errors import DataError
from r2reasoner.ledger import Ledger
from r2reasoner.nano import items
from r2reasoner.nano.convert import convert
from r2reasoner.nano.fit import Shape
from r2reasoner.nano.train import (
    FULL,
    SCAN_ONLY,
    TINY,
    Preset,
    bare_pool,
    parameters,
    preset_for,
    search,
    train,
)
from r2reasoner.nano.vocabulary import vocabulary
from r2reasoner.pool.cards import Pool
from r2reasoner.types import Message, Role

SMALLEST = Shape(8, 1)
BRIEF = Preset(
    workers={SMALLEST: 60},
    searcher=(SMALLEST, 2),
    decomposer=(SMALLEST, 2),
    rows=2000,
    shifted_rows=2000,
    search_scan=5,
    search_arithmetic=5,
    calibration=4,
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose searcher is too weak, so that it ends where plans are searched."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.raises(DataError, match="no item had a right plan"):
        train(items.weight_set("length"), BRIEF, folder, 0, say=lambda line: None)
    return folder


def ask(pool: Pool, text: str) -> Completion:
    async def once() -> Completion:
        client = PoolClient()
        request = ChatRequest(messages=(Message("user", text),), max_tokens=5, role=Role.CHECK)
        try:
            with Ledger.in_memory() as ledger:
                return await client.complete(pool.strongest, request, Meter(ledger, "q"))
        finally:
            await client.close()

    return asyncio.run(once())


def test_the_full_preset_has_the_nine_sizes() -> None:
    names = [shape.name for shape in sorted(FULL.workers)]
    assert names == ["8x1", "16x1", "16x2", "24x2", "32x2", "48x2", "64x2", "96x3", "128x4"]
    assert preset_for("full", items.weight_set("length")) is FULL
    assert preset_for("full", items.weight_set("addprim_jump")) is SCAN_ONLY
    assert preset_for("tiny", items.weight_set("length")) is TINY


@pytest.mark.slow
def test_every_stage_leaves_its_result_and_is_not_done_again(run_folder: Path) -> None:
    kept = [run_folder / name for name in ("workers.npz", "shifted.npz")]
    kept += [run_folder / part / "8x1" / "training.json" for part in ("workers", "searcher")]
    before = [file.stat().st_mtime_ns for file in kept]
    said: list[str] = []
    with pytest.raises(DataError):
        train(items.weight_set("length"), BRIEF, run_folder, 0, say=said.append)
    assert [file.stat().st_mtime_ns for file in kept] == before
    assert not any("fitted" in line for line in said)


@pytest.mark.slow
def test_what_no_plan_solves_is_told_with_the_file(run_folder: Path) -> None:
    with pytest.raises(DataError, match=r"decompositions\.jsonl"):
        search(items.weight_set("length"), BRIEF, run_folder, 0, say=lambda line: None)


@pytest.mark.slow
def test_a_fitted_model_converts_to_one_that_answers(run_folder: Path, tmp_path: Path) -> None:
    fitted = run_folder / "workers"
    digest = convert(fitted / "8x1", vocabulary(), tmp_path / "converted" / "8x1")
    assert digest == checksum(tmp_path / "converted" / "8x1")
    pool = bare_pool([SMALLEST], tmp_path / "converted", fitted)
    assert parameters(fitted / "8x1") == pool.strongest.parameters == 1072
    assert pool.strongest.price is not None
    answer = ask(pool, "walk left")
    assert answer.text
    # one pico-dollar per parameter and token
    tokens = answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.cost == 1072 * tokens


@pytest.mark.slow
def test_converting_again_replaces_the_whole_folder(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "8x1"
    first = convert(run_folder / "workers" / "8x1", vocabulary(), out)
    (out / "left_over").write_text("x")
    assert convert(run_folder / "workers" / "8x1", vocabulary(), out) == first
    assert not (out / "left_over").exists()
    assert sorted(tmp_path.iterdir()) == [out]
