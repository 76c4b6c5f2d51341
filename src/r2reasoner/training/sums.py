"""What files held when they were written, so that missing, cut, changed and foreign ones show.

`sums` counts and hashes the files of a folder; `check` compares them later. A sealed JSON file
carries its own hash, so that a change of any of its bytes shows too. All this tells damage, not
malice: whoever can change a file can seal it again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from r2reasoner.errors import DataError
from r2reasoner.files import write_whole

SEAL: Final = "seal"
ITSELF: Final = "."
"""The name of a file's own sum, where sums are of a file and not of a folder."""
MOST_BYTES: Final = 64 * 2**20


class Sum(NamedTuple):
    """A file's size in bytes and the sha256 of its content."""

    size: int
    sha256: str


def sums(path: Path) -> dict[str, Sum]:
    """Return the sum of a file (as `.`), or of every file below a folder by its relative name.

    Raises DataError for what is missing, cannot be read, or is no plain file (a link).
    """
    if path.is_dir():
        return {name: _sum(path / name) for name in _names(path)}
    return {ITSELF: _sum(path)}


def check(path: Path, expected: Mapping[str, Sum], advice: str) -> None:
    """Raise DataError naming the first file that is missing, foreign, cut or changed.

    `advice` says what to do; what costs no reading is looked at first.
    """
    names = set(_names(path)) if path.is_dir() else {ITSELF} & expected.keys()
    for name in sorted(expected.keys() - names):
        raise DataError(f"{path / name}: missing; {advice}")
    for name in sorted(names - expected.keys()):
        raise DataError(f"{path / name}: not among the files that were written; {advice}")
    for name, (size, _) in expected.items():
        found = _size(path / name)
        if found != size:
            raise DataError(f"{path / name}: {found:,} bytes, expected {size:,}; {advice}")
    for name, (_, sha256) in expected.items():
        if _sum(path / name).sha256 != sha256:
            raise DataError(f"{path / name}: its content changed since it was written; {advice}")


def stamp(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return what of files shows without reading them that they may have changed."""
    names = _names(path) if path.is_dir() else [ITSELF]
    stats = [(name, (path / name).lstat()) for name in names if os.path.lexists(path / name)]
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)


def to_json(found: Mapping[str, Sum]) -> dict[str, dict[str, Any]]:
    """Return sums as JSON has them."""
    return {name: {"sha256": s.sha256, "size": s.size} for name, s in sorted(found.items())}


def from_json(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Sum]:
    """Return the sums that `to_json` wrote."""
    return {name: Sum(int(s["size"]), str(s["sha256"])) for name, s in found.items()}


def sealed(content: Mapping[str, Any]) -> str:
    """Return a JSON object with its own hash in it, as text."""
    seal = hashlib.sha256(_text(content).encode()).hexdigest()
    return _text({**content, SEAL: seal})


def write_sealed(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its own hash, whole. Raises ConfigError where it cannot be."""
    write_whole(file, sealed(content), replace=True)


def read_sealed(file: Path, advice: str) -> dict[str, Any]:
    """Return what `write_sealed` wrote. Raises DataError where that is missing or changed."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MOST_BYTES)
    except FileNotFoundError:
        raise DataError(f"{file}: missing; {advice}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}; {advice}") from error
    try:
        content = json.loads(raw.decode())
        del content[SEAL]
        whole = sealed(content).encode() == raw
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise DataError(f"{file}: cut or changed since it was written; {advice}")
    return dict(content)


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _names(folder: Path) -> list[str]:
    # A link to a folder is listed as a link: `rglob` does not go through it.
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def _size(file: Path) -> int:
    if file.is_symlink() or not file.is_file():
        what = "expected a plain file" if os.path.lexists(file) else "no such file"
        raise DataError(f"{file}: {what}")
    return file.stat().st_size


def _sum(file: Path) -> Sum:
    try:
        size = _size(file)
        with file.open("rb") as stream:
            return Sum(size, hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
