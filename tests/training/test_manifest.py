import json
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import DataError
from r2reasoner.training.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    read_manifest,
    read_whole,
)

MADE_OF: dict[str, Any] = {"config": {"weights": {"a": 1.0, "b": 2}, "seed": 7}, "rows": 3}
FIRST = Shard("00000.parquet", 2, "k", "e3b0")
MANIFEST_OF_ONE = Manifest(MADE_OF, {0: FIRST})


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    MANIFEST_OF_ONE.write(tmp_path)
    assert read_manifest(tmp_path) == MANIFEST_OF_ONE
    assert json.loads((tmp_path / MANIFEST).read_text())["shards"] == [FIRST._asdict()]


def test_it_is_whole_when_all_rows_are_in_shards() -> None:
    second = Shard("00001.parquet", 1, "k", "e3b1")
    assert (MANIFEST_OF_ONE.rows, MANIFEST_OF_ONE.whole) == (2, False)
    assert Manifest(MADE_OF, {0: FIRST, 1: second}).whole


def test_a_byte_flipped_anywhere_or_a_cut_is_refused(tmp_path: Path) -> None:
    MANIFEST_OF_ONE.write(tmp_path)
    file = tmp_path / MANIFEST
    content = file.read_bytes()
    white = {at for at, byte in enumerate(content) if chr(byte).isspace()}
    for at in {*range(len(content))} - white:  # JSON says the same with other white space
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DataError, match=str(file)):
            read_manifest(tmp_path)
    for cut in range(len(content) - 1):
        file.write_bytes(content[:cut])
        with pytest.raises(DataError, match=str(file)):
            read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"[]", b"5", b"{}", b'{"kind": "else"}', b"\xff", b"null"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(DataError, match=str(tmp_path / MANIFEST)):
        read_manifest(tmp_path)


def test_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"it has no {MANIFEST}"):
        read_manifest(tmp_path)


def test_differences_name_the_keys() -> None:
    other = {"config": {"weights": {"a": 1.5, "b": 2}, "new": [1]}, "rows": 3}
    assert MANIFEST_OF_ONE.differences(MADE_OF) == []
    assert MANIFEST_OF_ONE.differences(other) == [
        "config.weights.a was 1.0, now 1.5",
        "config.new was not there, now [1]",
        "config.seed was 7, now not there",
    ]


def test_a_shard_that_is_missing_or_changed_is_named(tmp_path: Path) -> None:
    empty = Shard(
        "00000.parquet",
        0,
        "k",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    )
    file = tmp_path / empty.file
    with pytest.raises(DataError, match=f"{file} is missing"):
        read_whole(tmp_path, empty)
    file.write_bytes(b"")
    assert read_whole(tmp_path, empty) == b""
    file.write_bytes(b"x")
    with pytest.raises(DataError, match=f"{file} was cut or changed"):
        read_whole(tmp_path, empty)
