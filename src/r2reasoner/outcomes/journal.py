"""Journals: one append-only file per process, so that what was put outlives a kill -9.

A line is a CRC-32 and a row as JSON. A last line that was cut short is dropped; any other that
does not check is refused. The kernel's lock on a journal says whether its process lives.
A power cut may take the last moments, unless `sync` was called.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.ledger import new_id
from r2reasoner.outcomes.records import Record, from_row, to_row

NAME: Final = re.compile(r"journal-[0-9a-f]{24}\.log")
LOCK: Final = ".lock"
_CRC_DIGITS: Final = 8


class Journal:
    """The journal that this process appends to."""

    def __init__(self, folder: Path) -> None:
        """Make the file. Raises ConfigError where it cannot be written."""
        self.name = f"journal-{new_id()}.log"
        self.pid = os.getpid()
        self._path = folder / self.name
        # Under the folder's lock, so that nobody takes it for a dead one before it is locked.
        with locked(folder, exclusive=False):
            try:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
                self._file = os.open(self._path, flags, 0o644)
            except OSError as error:
                raise _unwritable(self._path, error) from error
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def append(self, record: Record) -> None:
        """Write a record; it then survives this process. Raises ConfigError if it is not whole.

        Nothing may follow a line that was cut short: the journal must then be closed.
        """
        line = _line(record)
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        if written < len(line):
            raise ConfigError(f"{self._path}: cannot be written: no space left")

    def sync(self) -> None:
        """Return when what was written would survive a power cut. Raises ConfigError."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def close(self) -> None:
        """Close the file, which gives up its lock (but not in a fork of its process)."""
        os.close(self._file)


class Piece(NamedTuple):
    """What was read of a journal, and the byte at which the next reading starts."""

    records: list[Record]
    end: int


def read_journal(path: Path, start: int = 0) -> Piece:
    """Read the whole lines of a journal from a byte on.

    Raises DataError, naming the file, where a line is none of ours or was changed.
    """
    if not NAME.fullmatch(path.name):
        raise DataError(f"{path}: no journal of an outcome store is called so; move it away")
    try:
        with path.open("rb") as file:
            file.seek(start)
            lines = file.read().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    lines.pop()  # what has no end yet: nothing, or a line cut short
    records, end = [], start
    for line in lines:
        records.append(_record(path, end, line))
        end += len(line) + 1
    return Piece(records, end)


@contextmanager
def locked(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the lock of a store's folder: shared to read, exclusive to rearrange its files.

    Raises ConfigError where there is no such folder, or no right to it.
    """
    path = folder / LOCK
    try:
        file = _open_lock(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Say whether the process that wrote a journal is gone, and hold the journal if so."""
    file = os.open(path, os.O_RDONLY)
    try:
        gone = False
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = True
        yield gone
    finally:
        os.close(file)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY)  # somebody else's store, to be read


def _line(record: Record) -> bytes:
    row = json.dumps(to_row(record), separators=(",", ":")).encode()
    return b"%08x %s\n" % (crc32(row), row)


def _record(path: Path, at: int, line: bytes) -> Record:
    row = line[_CRC_DIGITS + 1 :]
    if line[: _CRC_DIGITS + 1] != b"%08x " % crc32(row):
        raise DataError(
            f"{path}: the line at byte {at} was changed or is no record; restore the file, or"
            " move it away and lose the answers in it"
        )
    return from_row(json.loads(row))


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: cannot be written: {error.strerror or error}")
