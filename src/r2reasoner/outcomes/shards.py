"""Shards: Parquet files of rows, and the manifest that says which there are and what they hash to.

The manifest is the truth: a new shard is written beside it first, listed with one rename, and gets
its name after that; what it replaces is named as spent until it is deleted. So whatever moment the
process dies in, each record is counted once. Needs pyarrow.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.files import write_whole
from r2reasoner.outcomes import journal
from r2reasoner.outcomes.records import TYPES, Record, Row, from_row, to_row

MANIFEST: Final = "manifest.json"
FORMAT: Final = "r2reasoner-outcomes"
VERSION: Final = 1
PART: Final = ".part"
_NAME: Final = re.compile(r"shard-[0-9a-f]{16}\.parquet")


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file, as the manifest vouches for it."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The shards of a store, and the names of files whose records stand in them by now."""

    shards: tuple[Shard, ...] = ()
    spent: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read a folder's manifest. Raises DataError where it is missing or no manifest of ours."""
        path = folder / MANIFEST
        try:
            document = json.loads(path.read_bytes())
            if document["format"] != FORMAT or document["version"] != VERSION:
                raise ValueError(f"format {document['format']!r}, version {document['version']!r}")
            shards = tuple(Shard(**shard) for shard in document["shards"])
            manifest = cls(shards, tuple(document["spent"]))
            for name in (*(s.name for s in shards), *manifest.spent):
                if not (_NAME.fullmatch(name) or journal.NAME.fullmatch(name)):
                    raise ValueError(f"no file of a store is called {name!r}")
        except FileNotFoundError:
            raise DataError(f"{path} is missing: restore it, or the folder is no store") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: expected the manifest of an outcome store"
                f" ({FORMAT} version {VERSION}): {error}"
            ) from error
        return manifest

    def write(self, folder: Path) -> None:
        """Put it in the old one's place, in one step. Raises ConfigError."""
        document = {"format": FORMAT, "version": VERSION} | asdict(self)
        write_whole(folder / MANIFEST, json.dumps(document, indent=1) + "\n", replace=True)

    def refuse_foreign(self, folder: Path) -> None:
        """Raise DataError where the folder has Parquet files that the manifest does not know."""
        known = {shard.name for shard in self.shards} | set(self.spent)
        for path in sorted(folder.glob("*.parquet")):
            if path.name not in known:
                raise DataError(
                    f"{path} is not in {MANIFEST}, so it is no part of this store; move it away"
                    " (`r2reasoner outcomes import` takes exported files in)"
                )


def read_shard(folder: Path, shard: Shard) -> list[Record]:
    """Read a shard. Raises DataError, naming the file, where it is not as it was written."""
    path = folder / shard.name
    if not path.exists() and _part(path).exists():
        path = _part(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; restore it") from error
    if len(content) != shard.bytes:
        raise DataError(
            f"{path}: expected {shard.bytes} bytes, got {len(content)}: cut, or another's;"
            " restore it"
        )
    if sha256(content).hexdigest() != shard.sha256:
        raise DataError(f"{path}: its sha256 is not that in {MANIFEST}: changed; restore it")
    return [from_row(row) for row in rows_of(content, path)]


def replace(
    folder: Path, old: Manifest, records: Sequence[Sequence[Record]], spent: Sequence[str]
) -> Manifest:
    """Write each sequence of records as a shard, in the place of spent files; return what is now.

    For the holder of the folder's exclusive lock. Raises ConfigError where it cannot be written;
    what was there before then stays.
    """
    sweep(folder, old)
    new = {shard.name: shard for shard in (_write_part(folder, rows) for rows in records)}
    # A shard's name is its content's, so a new one may be one that is there already.
    gone = [name for name in spent if name not in new]
    kept = [shard for shard in old.shards if shard.name not in {*gone, *new}]
    manifest = Manifest((*kept, *new.values()), tuple(gone))
    manifest.write(folder)
    sweep(folder, manifest)
    return manifest


def sweep(folder: Path, manifest: Manifest) -> None:
    """Finish what a process may have died in: name the listed shards, delete what is spent.

    For the holder of the folder's exclusive lock.
    """
    for shard in manifest.shards:
        with suppress(FileNotFoundError):
            os.rename(_part(folder / shard.name), folder / shard.name)
    for name in manifest.spent:
        (folder / name).unlink(missing_ok=True)
    for left in (
        *folder.glob(f"shard-*{PART}"),
        *folder.glob(f".{MANIFEST}.*"),
        *folder.glob(".shard-*"),
    ):
        left.unlink(missing_ok=True)


def to_parquet(rows: Sequence[Row]) -> bytes:
    """Return rows as a Parquet file. Raises ConfigError without pyarrow."""
    arrow = pyarrow()
    columns = {name: [row.get(name) for row in rows] for name in TYPES}
    sink = arrow.BufferOutputStream()
    arrow.parquet.write_table(arrow.table(columns, schema=_schema(arrow)), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def rows_of(content: bytes, path: Path) -> Iterator[Row]:
    """Return the rows of a Parquet file. Raises DataError, naming it, where it is none."""
    arrow = pyarrow()
    try:
        table = arrow.parquet.read_table(arrow.BufferReader(content))
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected a Parquet file: {error}") from error
    names = tuple(columns)
    return (dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True))


def pyarrow() -> Any:
    """Return the package that reads and writes Parquet. Raises ConfigError without it."""
    try:
        arrow = import_module("pyarrow")
        import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            "recorded outcomes are kept as Parquet, which needs pyarrow:"
            " pip install 'r2reasoner[training]'"
        ) from None
    return arrow


def _schema(arrow: Any) -> Any:
    return arrow.schema([(name, arrow.type_for_alias(kind)) for name, kind in TYPES.items()])


def _write_part(folder: Path, records: Sequence[Record]) -> Shard:
    content = to_parquet([to_row(record) for record in records])
    digest = sha256(content).hexdigest()
    shard = Shard(f"shard-{digest[:16]}.parquet", len(records), len(content), digest)
    write_whole(_part(folder / shard.name), content, replace=True)
    return shard


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)
