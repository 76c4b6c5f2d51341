import io
from pathlib import Path

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.records import TYPES, Record, from_row, to_row
from r2reasoner.outcomes.shards import (
    MANIFEST,
    Manifest,
    pyarrow,
    read_shard,
    replace,
    rows_of,
    sweep,
    to_parquet,
)
from recorded import answered, outcome

RECORDS: list[Record] = [
    answered("a"),
    answered("b", answer=None, usage=None, cost=None, latency_s=None, logprob=None),
    outcome("a"),
    outcome("b", plan=None, subtask=None, score=None),
]


def test_records_come_back_from_a_parquet_file_that_others_can_read() -> None:
    content = to_parquet([to_row(record) for record in RECORDS])
    assert [from_row(row) for row in rows_of(content, Path("x"))] == RECORDS
    arrow = pyarrow()
    table = arrow.parquet.read_table(io.BytesIO(content))
    assert table.column_names == list(TYPES)
    assert table.schema.field("cost").type == arrow.int64()
    assert table["key"].to_pylist() == ["a", "b", "a", "b"]


def test_no_rows_make_a_file_too() -> None:
    assert list(rows_of(to_parquet([]), Path("x"))) == []


def test_what_is_no_parquet_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"x\.parquet: expected a Parquet file"):
        rows_of(b"PAR1 or not PAR1", Path("x.parquet"))


def test_shards_replace_what_is_spent(tmp_path: Path) -> None:
    first = replace(tmp_path, Manifest(), [RECORDS[:2], RECORDS[2:]], [])
    assert Manifest.read(tmp_path) == first
    assert [read_shard(tmp_path, shard) for shard in first.shards] == [RECORDS[:2], RECORDS[2:]]
    second = replace(tmp_path, first, [RECORDS], [shard.name for shard in first.shards])
    assert [shard.rows for shard in second.shards] == [4]
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST, second.shards[0].name}


def test_a_shard_may_be_replaced_by_its_like(tmp_path: Path) -> None:
    first = replace(tmp_path, Manifest(), [RECORDS], [])
    second = replace(tmp_path, first, [RECORDS], [shard.name for shard in first.shards])
    assert second.shards == first.shards
    assert read_shard(tmp_path, second.shards[0]) == RECORDS


def test_sweeping_takes_only_what_a_store_leaves(tmp_path: Path) -> None:
    manifest = replace(tmp_path, Manifest(), [RECORDS], [])
    for name in ("shard-1.parquet.part", f".{MANIFEST}.x1", ".shard-1.parquet.part.x2"):
        (tmp_path / name).write_text("left by a process that died")
    (tmp_path / "notes.part").write_text("mine")
    sweep(tmp_path, manifest)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {MANIFEST, manifest.shards[0].name, "notes.part"}
