"""Finished rows, one JSON line each, appended as they come: what a kill -9 leaves of them.

Every process writes files of its own, one for each shard, so that nobody repairs another's. A
last line that was cut short is dropped (its row is made again); any other that is not as it was
written is refused. A line is on its way to the disk when `append` returns: the death of the
process loses none, a power cut may lose the last.

Who writes for another process says that it is there (`attend`), so that nobody goes on with a
folder to which the workers of a killed run still write.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Final, TypeAlias

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.ledger import new_id

Row: TypeAlias = dict[str, Any]
"""One row: JSON values by column."""

SUFFIX: Final = ".jsonl"
WORKERS: Final = ".workers"
PATIENCE_S: Final = 60.0
"""How long the workers of a killed run may take to end."""


def stem(shard: int) -> str:
    """Return how the names of a shard's files begin."""
    return f"{shard:05}"


def digest(text: str) -> str:
    """Return a short hash of a text: 24 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()


def dumps(value: Any) -> str:
    """Return a value as one line of JSON, the same for equal values with their keys in order."""
    return json.dumps(value, ensure_ascii=False)


class Journal:
    """Appends rows to this process's files; for one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = new_id()
        self._streams: dict[int, FileIO] = {}

    def append(self, shard: int, row: Row) -> None:
        """Write a finished row. Raises DataError where it cannot be written."""
        text = dumps(row)
        line = f'{{"check": "{digest(text)}", "row": {text}}}\n'.encode()
        file = self._folder / f"{stem(shard)}.{self._name}{SUFFIX}"
        try:
            if shard not in self._streams:
                self._streams[shard] = FileIO(file, "a")
            whole = self._streams[shard].write(line) == len(line)
        except OSError as error:
            raise DataError(f"{file}: cannot be written: {error.strerror}") from error
        if not whole:
            raise DataError(f"{file}: cannot be written: no space left")

    def close(self, shard: int | None = None) -> None:
        """Close the file of one shard, or all."""
        for number in tuple(self._streams) if shard is None else (shard,):
            if (stream := self._streams.pop(number, None)) is not None:
                stream.close()


def attend(folder: Path) -> FileIO:
    """Say that a worker writes to a folder, until the file returned is closed or the worker dies.

    Raises ConfigError where the folder is not there, or another run is just taking it over.
    """
    try:
        presence = FileIO(folder / WORKERS, "r")
        fcntl.flock(presence, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigError(
            f"{folder}: no worker can write to it: {error.strerror}; all machines of a cluster"
            " must share it"
        ) from error
    return presence


def await_the_end_of_workers(folder: Path, patience_s: float = PATIENCE_S) -> None:
    """Return when no worker of an earlier run writes to a folder.

    Raises ConfigError when some still do after so many seconds, OSError.
    """
    deadline = time.monotonic() + patience_s
    with FileIO(folder / WORKERS, "a") as presence:
        while True:
            try:
                return fcntl.flock(presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"{folder}: workers of an earlier run still write to it; end them"
                    ) from None
            time.sleep(0.05)


def journals(folder: Path, shard: int) -> list[Path]:
    """Return the files in which anybody wrote rows of a shard."""
    return sorted(folder.glob(f"{stem(shard)}.*{SUFFIX}"))


def read_journals(folder: Path, shard: int) -> Iterator[Row]:
    """Yield the rows of a shard that anybody wrote. Raises DataError where a line was changed."""
    for file in journals(folder, shard):
        try:
            content = file.read_bytes()
        except FileNotFoundError:  # the shard was finished meanwhile
            continue
        for number, line in enumerate(content.split(b"\n")[:-1], 1):
            yield _row(line, f"{file}:{number}")


def _row(line: bytes, where: str) -> Row:
    try:
        entry = json.loads(line)
        if entry["check"] == digest(dumps(entry["row"])) and isinstance(entry["row"], dict):
            return entry["row"]
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{where} was changed since it was written: move the file away to make its rows again"
    )
