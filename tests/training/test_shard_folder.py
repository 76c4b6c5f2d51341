import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.training.journal import journals
from r2reasoner.training.manifest import MANIFEST, read_manifest
from r2reasoner.training.shard_folder import Job, ShardFolder, read_shards
from shard_samples import job, made


def make(what: Job, rows: int | None = None, *, seed: int = 0) -> None:
    """Finish some rows, in an order drawn by the seed."""
    with ShardFolder(what) as folder:
        todo = folder.missing()
        Random(seed).shuffle(todo)
        for each in todo[:rows]:
            folder.add(made(each.row))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_rows_come_out_in_the_order_of_the_inputs(tmp_path: Path) -> None:
    what = job(tmp_path)
    make(what)
    assert list(read_shards(tmp_path)) == [made(row) for row in what.rows]
    names = {".lock", ".workers", MANIFEST, *(f"{n:05}.parquet" for n in range(3))}
    assert contents(tmp_path).keys() == names


def test_the_files_are_the_same_whatever_the_order_and_however_often_broken_off(
    tmp_path: Path,
) -> None:
    make(job(tmp_path / "a"), seed=1)
    for seed in range(2, 9):
        make(job(tmp_path / "b"), 3, seed=seed)
    assert read_manifest(tmp_path / "b").whole
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_what_is_finished_is_not_missing(tmp_path: Path) -> None:
    make(job(tmp_path), 11)
    with ShardFolder(job(tmp_path)) as folder:
        assert (folder.done, folder.total, len(folder.missing())) == (11, 20, 9)
        again = folder.missing()[0]
        folder.add(made(again.row))
        folder.add(made(again.row))
        assert folder.done == 12
        assert again not in folder.missing()


def test_the_manifest_says_what_each_shard_is(tmp_path: Path) -> None:
    make(job(tmp_path))
    body = json.loads((tmp_path / MANIFEST).read_text())
    assert body["made_of"]["rows"] == 20
    assert body["made_of"]["config"]["weights"] == {"conciseness": 1.0, "coherence": 2.0}
    assert [(s["file"], s["rows"]) for s in body["shards"]] == [
        ("00000.parquet", 7),
        ("00001.parquet", 7),
        ("00002.parquet", 6),
    ]
    assert len({s["keys"] for s in body["shards"]}) == 3


def test_an_unfinished_folder_is_not_read(tmp_path: Path) -> None:
    make(job(tmp_path), 19)
    with pytest.raises(DataError, match=r"has \d+ of 20 rows: finish it"):
        list(read_shards(tmp_path))


ROWS = job(Path()).rows
CHANGED = [*ROWS[:5], {**ROWS[5], "query": "another"}, *ROWS[6:]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": {"weights": {"conciseness": 1.5, "coherence": 2.0}, "seed": 7}},
         "config.weights.conciseness was 1.0, now 1.5"),
        ({"config": {"weights": {"conciseness": 1.0, "coherence": 2.0}}},
         "config.seed was 7, now not there"),
        ({"shard_rows": 5}, "shard_rows was 7, now 5"),
        ({"rows": ROWS[:-1]}, "rows was 20, now 19; inputs was"),
        ({"rows": ROWS[::-1]}, "run: inputs was"),
        ({"rows": CHANGED}, "run: inputs was"),
    ],
)  # fmt: skip
def test_a_folder_of_another_run_is_refused_and_kept(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    make(job(tmp_path), 9)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=said) as refused, ShardFolder(job(tmp_path, **changes)):
        pass
    assert str(tmp_path / MANIFEST) in str(refused.value)
    assert contents(tmp_path) == before


def test_many_differences_are_counted(tmp_path: Path) -> None:
    make(job(tmp_path, config={f"k{n}": n for n in range(9)}), 1)
    with pytest.raises(DataError, match=r"k5 was 5, now not there; 3 more; choose"):
        ShardFolder(job(tmp_path, config={"k0": 0})).__enter__()


@pytest.mark.parametrize("where", ["first byte", "middle", "last byte", "cut", "empty", "missing"])
def test_a_shard_that_is_not_as_written_is_named(tmp_path: Path, where: str) -> None:
    make(job(tmp_path))
    file = tmp_path / "00001.parquet"
    content = file.read_bytes()
    at = {"first byte": 0, "middle": len(content) // 2, "last byte": len(content) - 1}.get(where)
    if at is not None:
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif where == "missing":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if where == "cut" else b"")
    for read in (lambda: list(read_shards(tmp_path)), ShardFolder(job(tmp_path)).__enter__):
        with pytest.raises(DataError, match=f"{file} (is missing|was cut or changed)"):
            read()


def test_a_shard_of_another_folder_is_refused(tmp_path: Path) -> None:
    make(job(tmp_path / "a"))
    other = [{"item": f"item{n:04}", "query": "else"} for n in range(100, 120)]
    make(job(tmp_path / "b", rows=other))
    shutil.copy(tmp_path / "b" / "00001.parquet", tmp_path / "a")
    with pytest.raises(DataError, match=r"a/00001\.parquet was cut or changed"):
        ShardFolder(job(tmp_path / "a")).__enter__()


@pytest.mark.parametrize("name", ["00007.parquet", "train.parquet", "rows.jsonl", "0001.x.jsonl"])
def test_a_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    make(job(tmp_path), 3)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"{tmp_path / name} is no part of this folder"):
        ShardFolder(job(tmp_path)).__enter__()


def test_a_journal_of_other_inputs_is_refused(tmp_path: Path) -> None:
    make(job(tmp_path / "a"), 3)
    other = [{"item": f"item{n:04}", "query": "else"} for n in range(100, 120)]
    make(job(tmp_path / "b", rows=other), 3)
    for file in (tmp_path / "b").glob("*.jsonl"):
        shutil.copy(file, tmp_path / "a")
    with pytest.raises(DataError, match="has a row of other inputs"):
        ShardFolder(job(tmp_path / "a")).__enter__()


def test_a_changed_journal_is_named(tmp_path: Path) -> None:
    make(job(tmp_path), 3)
    file = next(tmp_path.glob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b"step", b"stop", 1))
    with pytest.raises(DataError, match=f"{file}:1 was changed"):
        ShardFolder(job(tmp_path)).__enter__()


def test_shards_without_their_manifest_are_refused(tmp_path: Path) -> None:
    make(job(tmp_path))
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(DataError, match=f"00000.parquet but no {MANIFEST}"):
        ShardFolder(job(tmp_path)).__enter__()


def test_a_kill_between_shard_and_manifest_costs_nothing(tmp_path: Path) -> None:
    """The journals go last, so whatever of the three steps is missing can be done again."""
    what = job(tmp_path, 7)
    make(what, 6)
    before = contents(tmp_path)
    make(what)
    after = contents(tmp_path)
    for name in before:  # the shard is written, but neither the manifest nor the journals changed
        (tmp_path / name).write_bytes(before[name])
    (tmp_path / ".00000.parquet.abc123").write_bytes(b"half")
    with ShardFolder(what) as folder:
        assert len(folder.missing()) == 1
        folder.add(made(folder.missing()[0].row))
    assert contents(tmp_path) == after


def test_journals_that_outlived_their_shard_are_removed(tmp_path: Path) -> None:
    what = job(tmp_path, 7)
    make(what, 6)
    journal = journals(tmp_path, 0)[0]
    content = journal.read_bytes()
    make(what)
    assert not journal.exists()
    journal.write_bytes(content)
    with ShardFolder(what) as folder:
        assert folder.missing() == []
    assert not journal.exists()


def test_only_one_run_at_a_time_writes(tmp_path: Path) -> None:
    second = ShardFolder(job(tmp_path))
    with ShardFolder(job(tmp_path)), pytest.raises(ConfigError, match="another run is writing"):
        second.__enter__()
    make(job(tmp_path))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_text("")
    with pytest.raises(ConfigError, match=f"{file}: cannot be used"):
        ShardFolder(job(file)).__enter__()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "there are no rows"),
        ([{"item": "a"}, {"query": "b"}], "input 2: expected its content key under 'item'"),
        ([{"item": 5}], "input 1: expected its content key"),
        ([{"item": "a"}, {"item": "b"}, {"item": "a"}], "inputs 1 and 3 are the same: a"),
    ],
)
def test_inputs_without_keys_of_their_own_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        ShardFolder(replace(job(tmp_path), rows=rows))


def test_a_shard_needs_a_row(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 row or more, not 0"):
        ShardFolder(job(tmp_path, shard_rows=0))
