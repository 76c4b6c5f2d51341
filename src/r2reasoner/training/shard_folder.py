"""A folder of made rows: Parquet shards, a manifest that says what they are, and journals.

Shard n holds what was made of the n-th slice of the inputs, in their order: the same inputs and
config give the same files, byte for byte, however often the work was broken off and whatever did
it. A finished row is journaled at once. A shard whose rows are all there is written whole and
entered in the manifest; then its journals go. What does not fit together is refused by name,
never silently made again.

Leaves out who makes the rows (`shards`, `ray_engine`).
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.files import write_whole
from r2reasoner.training.columns import Form, decode, encode
from r2reasoner.training.journal import (
    SUFFIX,
    Journal,
    Row,
    await_the_end_of_workers,
    digest,
    journals,
    read_journals,
    stem,
)
from r2reasoner.training.manifest import MANIFEST, Manifest, Shard, read_manifest, read_whole

MOST_SHOWN: Final = 5
_DATA: Final = re.compile(r"(\d{5,})\.(?:parquet|[0-9a-z]+\.jsonl)")
_LEFTOVER: Final = re.compile(r"\.(?:manifest\.json|\d{5,}\.parquet)\.\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be made of which inputs, and where.

    `rows` hold JSON values, and each its content key (text) under `form.key`. `config` is all
    that decides what is made of them, as JSON values. A shard holds `shard_rows` rows.
    """

    out: Path
    rows: Sequence[Row]
    config: Mapping[str, Any]
    form: Form
    shard_rows: int = 500


class Todo(NamedTuple):
    """An input that has no finished row yet, and the number of its shard."""

    shard: int
    row: Row


class ShardFolder:
    """The folder of a job, for one run at a time, as a context manager.

    Entering raises DataError where files are missing, cut, changed, foreign, or made of other
    inputs or by another config; ConfigError where the folder cannot be had.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.path = job.out
        self._keys = _keys(job)
        self._place = {key: number for number, key in enumerate(self._keys)}
        self._made_of = _made_of(job)
        self._shards: dict[int, Shard] = {}
        self._pending: dict[int, dict[str, Row]] = {}
        self._done = 0
        self._journal = Journal(job.out)
        self._lock: FileIO | None = None

    @property
    def manifest(self) -> Manifest:
        """What stands in shards by now."""
        return Manifest(self._made_of, dict(sorted(self._shards.items())))

    @property
    def done(self) -> int:
        """How many rows are finished, in shards or not."""
        return self._done

    @property
    def total(self) -> int:
        """How many rows there are to be."""
        return len(self._keys)

    def missing(self) -> list[Todo]:
        """Return the inputs that have no finished row, in their order."""
        todos = (Todo(self._shard_of(key), self.job.rows[n]) for key, n in self._place.items())
        key = self.job.form.key
        return [
            todo
            for todo in todos
            if todo.shard not in self._shards
            and todo.row[key] not in self._pending.get(todo.shard, ())
        ]

    def add(self, row: Row, *, journaled: bool = False) -> None:
        """Take in a finished row, as `Form.checked` returns it; one that is there is dropped.

        Raises DataError where it cannot be journaled, ConfigError where a shard cannot be written.
        """
        shard = self._shard_of(row[self.job.form.key])
        if shard in self._shards:
            return
        if not journaled:
            self._journal.append(shard, row)
        self._take(shard, row)
        self._finish(shard)

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileIO(self.path / ".lock", "a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            await_the_end_of_workers(self.path)
            self._open()
        except BlockingIOError:
            self.__exit__()
            raise ConfigError(f"{self.path}: another run is writing to it") from None
        except OSError as error:
            self.__exit__()
            raise ConfigError(f"{self.path}: cannot be used: {error.strerror}") from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- what is there ----------------------------------------------------------------------------

    def _open(self) -> None:
        names = {file.name for file in self.path.iterdir()}
        for name in filter(_LEFTOVER.fullmatch, names):
            (self.path / name).unlink()
        data = {n for n in names if n.endswith((".parquet", SUFFIX)) and not n.startswith(".")}
        if MANIFEST in names:
            self._check(data)
            self._read_journals({n for n in data if n.endswith(SUFFIX)})
        elif data:
            raise DataError(
                f"{self.path} has {min(data)} but no {MANIFEST}: put it back, or choose another"
                " folder"
            )
        else:
            self.manifest.write(self.path)

    def _check(self, names: set[str]) -> None:
        """Refuse what does not fit together, by name."""
        manifest = read_manifest(self.path)
        self._compare(manifest)
        for name in sorted(names):
            match = _DATA.fullmatch(name)
            if match is None or int(match[1]) * self.job.shard_rows >= self.total:
                raise DataError(f"{self.path / name} is no part of this folder: move it away")
        for number, shard in manifest.shards.items():
            if shard.keys != self._digest_of_keys(number):
                raise DataError(f"{self.path / MANIFEST}: {shard.file} has other keys than inputs")
            read_whole(self.path, shard)
        self._shards = dict(manifest.shards)
        self._done = manifest.rows

    def _compare(self, manifest: Manifest) -> None:
        """Refuse a folder that is made of something else; say what differs."""
        differing = manifest.differences(self._made_of)
        if len(differing) > MOST_SHOWN:
            differing[MOST_SHOWN:] = [f"{len(differing) - MOST_SHOWN} more"]
        if differing:
            raise DataError(
                f"{self.path / MANIFEST} was made by another run: {'; '.join(differing)}; choose"
                " another folder, or run with what it was made with"
            )

    def _read_journals(self, names: set[str]) -> None:
        for shard in sorted({int(name.partition(".")[0]) for name in names}):
            if shard in self._shards:
                self._drop_journals(shard)  # a kill came between the manifest and this
                continue
            for row in read_journals(self.path, shard):
                key = row.get(self.job.form.key)
                if key not in self._place or self._shard_of(key) != shard:
                    raise DataError(
                        f"{self.path}: a journal of shard {stem(shard)} has a row of other inputs"
                        f" ({key}): move it away"
                    )
                self._take(shard, row)
            if shard in self._pending:
                self._finish(shard)

    # --- what comes ---------------------------------------------------------------------------

    def _take(self, shard: int, row: Row) -> None:
        rows = self._pending.setdefault(shard, {})
        self._done += row[self.job.form.key] not in rows
        rows.setdefault(row[self.job.form.key], row)

    def _finish(self, shard: int) -> None:
        """Write a shard if all its rows are there."""
        keys, rows = self._keys_of(shard), self._pending[shard]
        if len(rows) < len(keys):
            return
        content = encode([rows[key] for key in keys], self.job.form)
        file = f"{stem(shard)}.parquet"
        write_whole(self.path / file, content, replace=True)
        sha256 = hashlib.sha256(content).hexdigest()
        self._shards[shard] = Shard(file, len(keys), self._digest_of_keys(shard), sha256)
        self.manifest.write(self.path)
        del self._pending[shard]
        self._drop_journals(shard)

    def _drop_journals(self, shard: int) -> None:
        self._journal.close(shard)
        for file in journals(self.path, shard):
            file.unlink(missing_ok=True)

    def _shard_of(self, key: str) -> int:
        return self._place[key] // self.job.shard_rows

    def _keys_of(self, shard: int) -> Sequence[str]:
        first = shard * self.job.shard_rows
        return self._keys[first : first + self.job.shard_rows]

    def _digest_of_keys(self, shard: int) -> str:
        return digest("\n".join(self._keys_of(shard)))


def read_shards(folder: Path) -> Iterator[Row]:
    """Yield all rows of a finished folder in the order of its inputs; every file is checked.

    Raises DataError where it is not finished, or a file is missing, cut or changed.
    """
    manifest = read_manifest(folder)
    if not manifest.whole:
        raise DataError(
            f"{folder} has {manifest.rows:,} of {manifest.made_of['rows']:,} rows: finish it by"
            " the command that began it"
        )
    for shard in manifest.shards.values():
        yield from decode(read_whole(folder, shard))


def made_rows(folder: Path) -> list[Row]:
    """Return the rows of a finished folder, in the order of their inputs.

    Raises DataError where a file is missing, cut or changed.
    """
    manifest = read_manifest(folder)
    return [row for shard in manifest.shards.values() for row in decode(read_whole(folder, shard))]


def _keys(job: Job) -> list[str]:
    """Return the keys of the inputs. Raises DataError for none, one without a key, or two equal."""
    if not job.rows:
        raise DataError(f"{job.out}: there are no rows to make anything of")
    if job.shard_rows < 1:
        raise ConfigError(f"{job.out}: a shard holds 1 row or more, not {job.shard_rows}")
    places: dict[str, int] = {}
    for number, row in enumerate(job.rows, 1):
        key = row.get(job.form.key)
        if not isinstance(key, str) or not key:
            raise DataError(f"input {number}: expected its content key under {job.form.key!r}")
        if key in places:
            raise DataError(f"inputs {places[key]} and {number} are the same: {key}; keep one")
        places[key] = number
    return list(places)


def _made_of(job: Job) -> dict[str, Any]:
    """Return all that decides what the shards hold, as the manifest has it."""
    inputs = digest("\n".join(json.dumps(row, sort_keys=True, default=str) for row in job.rows))
    config = json.loads(json.dumps(job.config, default=str))
    return {
        "config": config,
        "key": job.form.key,
        "columns": {name: kind.value for name, kind in job.form.columns.items()},
        "rows": len(job.rows),
        "inputs": inputs,
        "shard_rows": job.shard_rows,
    }
