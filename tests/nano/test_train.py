"""The workers of a weight set, from rows to converted models that answer in process."""

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

from r2reasoner.budget import Meter
from r2reasoner.client import ChatRequest, Completion, PoolClient
from r2reasoner.client.embedded import checksum
from r2reasoner.ledger import Ledger
from r2reasoner.nano import items
from r2reasoner.nano.convert import convert
from r2reasoner.nano.presets import Preset, Shape
from r2reasoner.nano.train import bare_pool, fit_workers, parameters, workers_pool
from r2reasoner.nano.vocabulary import vocabulary
from r2reasoner.pool.cards import Group, Pool
from r2reasoner.types import Message, Role

SMALLEST = Shape(8, 1)
BRIEF = Preset(
    workers={SMALLEST: 60},
    searcher=(SMALLEST, 2),
    rows=2000,
    shifted_rows=2000,
    calibration=4,
)


def silent(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit_workers(items.weight_set("length"), BRIEF, folder, 0, say=silent)
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


@pytest.mark.slow
def test_every_model_leaves_its_result_and_is_not_fitted_again(run_folder: Path) -> None:
    kept = [run_folder / name for name in ("workers.npz", "shifted.npz")]
    kept += [run_folder / part / "8x1" / "training.json" for part in ("workers", "searcher")]
    before = [file.stat().st_mtime_ns for file in kept]
    said: list[str] = []
    fit_workers(items.weight_set("length"), BRIEF, run_folder, 0, say=said.append)
    assert [file.stat().st_mtime_ns for file in kept] == before
    assert said == []


@pytest.mark.slow
def test_the_searcher_alone(tmp_path: Path) -> None:
    weights = items.weight_set("addprim_jump")
    fit_workers(weights, BRIEF, tmp_path, 0, searcher_only=True, say=silent)
    assert (tmp_path / "searcher" / "8x1" / "model.safetensors").exists()
    assert not (tmp_path / "workers").exists()
    assert not (tmp_path / "workers.npz").exists()


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
    (card,) = workers_pool(BRIEF, fitted, tmp_path / "converted").workers
    assert (card.sha256, card.group) == (digest, Group.SMALL)


@pytest.mark.slow
def test_converting_again_replaces_the_whole_folder(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "8x1"
    first = convert(run_folder / "workers" / "8x1", vocabulary(), out)
    (out / "left_over").write_text("x")
    assert convert(run_folder / "workers" / "8x1", vocabulary(), out) == first
    assert not (out / "left_over").exists()
    assert sorted(tmp_path.iterdir()) == [out]
