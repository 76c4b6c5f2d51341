"""The outcome store: a folder that keeps every answer that was ever paid for, and how each did.

What a process puts goes to its own journal at once; journals become Parquet shards when a store is
closed (or a journal grows long), under a lock. Several processes may write one folder at the same
time; each sees what it put itself and what was there when it opened or last refreshed. All of it
is held in memory, for looking an answer up must cost next to nothing.

Money paid stands in the ledger, which has every call, failed ones too; a store has answers only.
Network file systems need working locks (`flock`). `keys` says when two requests are the same.
"""

import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self, TypeAlias

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes import journal
from r2reasoner.outcomes.journal import Journal, abandoned, locked, read_journal
from r2reasoner.outcomes.keys import answer_key
from r2reasoner.outcomes.records import Answered, Outcome, Record, content_id
from r2reasoner.outcomes.shards import MANIFEST, Manifest, pyarrow, read_shard, replace

__all__ = ["Answered", "Outcome", "OutcomeStore", "Record", "answer_key", "content_id"]

LONG_JOURNAL: Final = 20_000
"""From so many records on, `flush` makes a shard of the journal."""
SHARD_RECORDS: Final = 100_000
MOST_SHARDS: Final = 32
"""Above so many shards, all are written anew as few."""

_Identity: TypeAlias = str | Outcome


class OutcomeStore:
    """Answers by key, and outcomes. Use `open`, and close it (or use it as a context manager).

    It may be used from several threads; a forked child goes on with a journal of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._journal: Journal | None = None
        self._closed = False
        self._answers: dict[str, Answered] = {}
        self._outcomes: dict[Outcome, None] = {}
        self._read_shards: set[str] = set()
        self._in_shards: set[_Identity] = set()
        self._read_to: dict[str, int] = {}
        self._in_journals: dict[str, list[Record]] = {}

    @classmethod
    def open(cls, folder: Path | str, *, create: bool = True) -> Self:
        """Open the store in a folder; with `create`, make it where there is none.

        Raises ConfigError where it cannot be had, or pyarrow is missing, and DataError, naming
        the file, where a file was cut, changed, or is none of the store's.
        """
        pyarrow()
        store = cls(Path(folder))
        if not (store.folder / MANIFEST).exists():
            store._make(create=create)
        store.refresh()
        return store

    def __len__(self) -> int:
        """Return how many answers it holds."""
        return len(self._answers)

    def get(self, key: str) -> Answered | None:
        """Return the answer under a key, or None."""
        return self._answers.get(key)

    def answers(self) -> tuple[Answered, ...]:
        """Return all answers."""
        with self._lock:
            return tuple(self._answers.values())

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return all outcomes."""
        with self._lock:
            return tuple(self._outcomes)

    def put(self, answered: Answered) -> None:
        """Keep an answer, also should the process die now; of one key the latest (`at`) counts.

        Raises ConfigError where it cannot be written, DataError after `close`.
        """
        with self._lock:
            self._append(answered)

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome; one that is held already is not doubled. Raises as `put`."""
        with self._lock:
            if outcome not in self._outcomes:
                self._append(outcome)

    def refresh(self) -> None:
        """Take in what other processes have put since. Raises as `open`."""
        with self._lock, locked(self.folder, exclusive=False):
            self._read()

    def flush(self) -> None:
        """Return when what was put would survive a power cut; make a shard of a long journal.

        Raises ConfigError where it cannot be written.
        """
        with self._lock:
            if (own := self._own()) is not None:
                own.sync()
                if len(self._in_journals[own.name]) >= LONG_JOURNAL:
                    self.compact()

    def compact(self) -> None:
        """Make shards of this process's journal and of those whose process is gone.

        Raises as `open`; nothing is lost then.
        """
        with self._lock, ExitStack() as held:
            held.enter_context(locked(self.folder, exclusive=True))
            manifest = self._read()
            own = self._leave_journal()
            taken = [
                name
                for name in self._in_journals
                if name == own or held.enter_context(abandoned(self.folder / name))
            ]
            if not taken:
                return
            spent, found = list(taken), self._winners(taken)
            if len(manifest.shards) >= MOST_SHARDS:
                spent += [shard.name for shard in manifest.shards]
                found = self._winners_in_shards() | found
            records = list(found.values())
            pieces = [records[i : i + SHARD_RECORDS] for i in range(0, len(records), SHARD_RECORDS)]
            manifest = replace(self.folder, manifest, pieces, spent)
            self._read_shards = {shard.name for shard in manifest.shards}
            self._in_shards.update(found)
            for name in taken:
                self._forget(name)

    def close(self) -> None:
        """Make a shard of what was put, and close; again: nothing happens.

        Raises as `compact`; the journal is kept then.
        """
        with self._lock:
            if self._own() is not None:
                self.compact()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self, *, create: bool) -> None:
        if not create:
            raise ConfigError(f"{self.folder}: no outcome store here (no {MANIFEST})")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._refuse_strangers()
        except OSError as error:
            raise ConfigError(f"{self.folder}: cannot be made: {error.strerror}") from error
        with locked(self.folder, exclusive=True):
            if not (self.folder / MANIFEST).exists():
                self._refuse_strangers()
                Manifest().write(self.folder)

    def _refuse_strangers(self) -> None:
        """Raise DataError where a folder without manifest is not empty."""
        names = sorted(path.name for path in self.folder.iterdir() if path.name != journal.LOCK)
        strangers = [name for name in names if not name.startswith(f".{MANIFEST}.")]
        if strangers and not (self.folder / MANIFEST).exists():
            raise DataError(
                f"{self.folder / MANIFEST} is missing, but there is {strangers[0]}: expected an"
                " outcome store or an empty folder; restore the manifest, or name another folder"
            )

    def _append(self, record: Record) -> None:
        if self._closed:
            raise DataError(f"{self.folder}: this outcome store is closed")
        own = self._own()
        if own is None:
            own = self._journal = Journal(self.folder)
            self._in_journals[own.name] = []
        try:
            own.append(record)
        except ConfigError:
            self._leave_journal()
            raise
        self._in_journals[own.name].append(record)
        self._take_in(record)

    def _own(self) -> Journal | None:
        """Return the own journal, if there is one; a forked child leaves its parent's."""
        if self._journal is not None and self._journal.pid != os.getpid():
            self._leave_journal()
        return self._journal

    def _leave_journal(self) -> str | None:
        """Close the own journal, as a dead process would leave it; return its name."""
        own, self._journal = self._journal, None
        if own is None:
            return None
        own.close()
        return own.name

    def _read(self) -> Manifest:
        """Take in what is new on disk. For the holder of the folder's lock."""
        manifest = Manifest.read(self.folder)
        manifest.refuse_foreign(self.folder)
        for shard in manifest.shards:
            if shard.name not in self._read_shards:
                self._sharded(read_shard(self.folder, shard))
        self._read_shards = {shard.name for shard in manifest.shards}
        own = self._own()
        mine = own.name if own else None
        theirs = {path.name for path in self.folder.glob("journal-*")} - {*manifest.spent, mine}
        for name in sorted(theirs):
            self._read_journal(self.folder / name)
        for name in set(self._in_journals) - theirs - {mine}:
            self._forget(name)
        return manifest

    def _read_journal(self, path: Path) -> None:
        records, end = read_journal(path, self._read_to.get(path.name, 0))
        self._read_to[path.name] = end
        self._in_journals.setdefault(path.name, []).extend(records)
        for record in records:
            self._take_in(record)

    def _take_in(self, record: Record) -> None:
        if isinstance(record, Outcome):
            self._outcomes.setdefault(record)
        else:
            held = self._answers.get(record.key)
            if held is None or held.at <= record.at:
                self._answers[record.key] = record

    def _sharded(self, records: Iterable[Record]) -> None:
        for record in records:
            self._take_in(record)
            self._in_shards.add(_identity(record))

    def _forget(self, name: str) -> None:
        self._in_journals.pop(name, None)
        self._read_to.pop(name, None)

    def _winners(self, journals: Iterable[str]) -> dict[_Identity, Record]:
        """Return what journals hold that no shard has, each once, the latest of one key."""
        found: dict[_Identity, Record] = {}
        for name in journals:
            for record in self._in_journals[name]:
                if isinstance(record, Outcome):
                    if record not in self._in_shards:
                        found[record] = record
                elif self._answers[record.key] is record:
                    found[record.key] = record
        return found

    def _winners_in_shards(self) -> dict[_Identity, Record]:
        held: Iterable[Record] = (*self._answers.values(), *self._outcomes)
        return {i: record for record in held if (i := _identity(record)) in self._in_shards}


def _identity(record: Record) -> _Identity:
    return record if isinstance(record, Outcome) else record.key
