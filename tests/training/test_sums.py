"""Sums and seals: whatever is missing, cut, changed or foreign is named."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2reasoner.errors import DataError
from r2reasoner.training.sums import (
    check,
    from_json,
    read_sealed,
    sealed,
    sums,
    to_json,
    write_sealed,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "in" / "deep" / "b.txt").write_text("two")
    (folder / "empty").write_text("")
    return folder


def test_a_folder_is_as_it_was(folder: Path) -> None:
    found = sums(folder)
    assert set(found) == {"a.txt", "in/deep/b.txt", "empty"}
    assert found["a.txt"].size == 3
    assert from_json(to_json(found)) == found
    check(folder, found, "do")


def test_a_file_has_a_sum_of_its_own(folder: Path) -> None:
    file = folder / "a.txt"
    found = sums(file)
    check(file, found, "do")
    file.write_text("onf")
    with pytest.raises(DataError, match=r"a\.txt: its content changed .*; put it back"):
        check(file, found, "put it back")
    file.unlink()
    with pytest.raises(DataError, match=r"a\.txt"):
        check(file, found, "do")
    with pytest.raises(DataError, match=r"a\.txt: no such file"):
        sums(file)


def test_a_folder_and_a_file_are_not_each_other(folder: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        check(folder, sums(folder / "a.txt"), "do")
    with pytest.raises(DataError, match="missing"):
        check(folder / "a.txt", sums(folder), "do")


def test_a_link_is_no_file_of_ours(folder: Path, tmp_path: Path) -> None:
    found = sums(folder)
    (folder / "a.txt").rename(tmp_path / "elsewhere")
    (folder / "a.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"a\.txt: expected a plain file"):
        check(folder, found, "do")
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(folder / "in", target_is_directory=True)
    with pytest.raises(DataError, match=r"a\.txt: expected a plain file"):
        sums(folder)
    (folder / "a.txt").unlink()
    os.mkfifo(folder / "a.txt")
    with pytest.raises(DataError, match=r"a\.txt: expected a plain file"):
        sums(folder)


@settings(max_examples=30)
@given(st.dictionaries(st.text("abc"), VALUES, max_size=4))
def test_what_is_sealed_is_read_back(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "x.json"
        write_sealed(file, content)
        assert read_sealed(file, "do") == content


def test_every_flip_and_every_cut_of_a_sealed_file_shows(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    whole = sealed({"step": 12, "files": {"a": [1, 2.5, None, "ü"]}}).encode()
    for at in range(len(whole)):
        flipped = whole[at] ^ 1 << at % 8
        file.write_bytes(whole[:at] + bytes([flipped]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"x\.json: cut or changed .*; do this"):
            read_sealed(file, "do this")
        file.write_bytes(whole[:at])
        with pytest.raises(DataError, match=r"x\.json: cut or changed"):
            read_sealed(file, "do this")
    file.write_bytes(whole)
    assert read_sealed(file, "do this")["step"] == 12


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"1", b"{}", b"\xff", b"[" * 100_000])
def test_a_foreign_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "x.json"
    with pytest.raises(DataError, match=r"x\.json: missing; do this"):
        read_sealed(file, "do this")
    file.write_bytes(raw)
    with pytest.raises(DataError, match=r"x\.json: cut or changed"):
        read_sealed(file, "do this")
    with pytest.raises(DataError, match="cannot be read"):
        read_sealed(tmp_path, "do this")
