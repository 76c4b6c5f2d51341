"""Which answers were judged, and how: rows of evaluations that lie beside the ledger.

`r2reasoner evaluate --db LEDGER --out FOLDER/name.json` in the ledger's folder writes them. A line
that is no row (one being written just now) is passed over: this only shows what is known.
"""

import json
import threading
from pathlib import Path
from typing import Final, NamedTuple

PATTERN: Final = "*.rows.jsonl"
MOST_BYTES: Final = 64 * 2**20


class Score(NamedTuple):
    """How one answer was judged, by which benchmark's scorer."""

    right: bool
    benchmark: str
    split: str
    strategy: str


class _File(NamedTuple):
    stamp: tuple[int, int]
    scores: dict[str, Score]


class Scores:
    """The scores by trace id, read again when a file changes. None: there is no folder to look."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._files: dict[Path, _File] = {}
        self._turn = threading.Lock()

    @classmethod
    def beside(cls, ledger: str) -> "Scores":
        """Return the scores beside a ledger's file; none where it is no file."""
        path = Path(ledger)
        return cls(path.parent if "://" not in ledger and path.is_file() else None)

    def all(self) -> dict[str, Score]:
        """Return all scores by the id of the trace that was judged."""
        if self.folder is None:
            return {}
        found: dict[str, Score] = {}
        with self._turn:
            for path in sorted(self.folder.glob(PATTERN)):
                found.update(self._read(path))
        return found

    def _read(self, path: Path) -> dict[str, Score]:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            known = self._files.get(path)
            if known is None or known.stamp != stamp:
                text = path.read_bytes() if status.st_size <= MOST_BYTES else b""
                known = self._files[path] = _File(stamp, _scores(text))
        except OSError:
            return {}
        return known.scores


def _scores(text: bytes) -> dict[str, Score]:
    found = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
            if row["scored"] is True and isinstance(row["trace"], str):
                names = (str(row["benchmark"]), str(row["split"]), str(row["strategy"]))
                found[row["trace"]] = Score(row["right"] is True, *names)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found
