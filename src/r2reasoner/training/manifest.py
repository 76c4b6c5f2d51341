"""What a folder of shards is made of, and which shards are whole: `manifest.json`.

It is the truth for resume, and what `data.json` of a training run quotes. It is replaced in one
step whenever a shard is finished, and carries a hash of itself.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from r2reasoner.errors import DataError
from r2reasoner.files import write_whole
from r2reasoner.training.journal import digest, dumps

MANIFEST: Final = "manifest.json"
KIND: Final = "r2reasoner shards"
FORMAT: Final = 1


class Shard(NamedTuple):
    """One entry of a manifest. `keys` and `sha256` are digests of its keys and of the file."""

    file: str
    rows: int
    keys: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder is made of (`config`, `key`, `columns`, `rows`, `inputs`, `shard_rows`).

    `shards` has those that are whole, by their number.
    """

    made_of: Mapping[str, Any]
    shards: Mapping[int, Shard]

    @property
    def rows(self) -> int:
        """How many rows stand in shards."""
        return sum(shard.rows for shard in self.shards.values())

    @property
    def whole(self) -> bool:
        """True when all rows do."""
        return bool(self.rows == self.made_of["rows"])

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest in one step. Raises ConfigError where that fails."""
        shards = [shard._asdict() for _, shard in sorted(self.shards.items())]
        body = {"kind": KIND, "format": FORMAT, "made_of": self.made_of, "shards": shards}
        text = json.dumps({**body, "check": digest(dumps(body))}, indent=1, ensure_ascii=False)
        write_whole(folder / MANIFEST, f"{text}\n", replace=True)

    def differences(self, made_of: Mapping[str, Any]) -> list[str]:
        """Return what differs between this folder and one made of something else, key by key."""
        there, here = dict(_leaves(self.made_of)), dict(_leaves(made_of))
        return [
            f"{name} was {there.get(name, 'not there')}, now {here.get(name, 'not there')}"
            for name in here | there
            if there.get(name) != here.get(name)
        ]


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder. Raises DataError where it is missing, cut or changed."""
    file = folder / MANIFEST
    try:
        body = json.loads(file.read_bytes())
        kind, check = (body["kind"], body["format"]), body.pop("check")
        if kind != (KIND, FORMAT):
            raise DataError(f"{file}: expected {KIND!r} of format {FORMAT}, got {kind}")
        if check != digest(dumps(body)):
            raise ValueError
        shards = [Shard(**entry) for entry in body["shards"]]
        return Manifest(body["made_of"], {int(s.file.partition(".")[0]): s for s in shards})
    except FileNotFoundError:
        raise DataError(f"{folder}: expected a folder of shards; it has no {MANIFEST}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{file} is no manifest of shards, or was cut or changed: put the right one back, or"
            " choose another folder"
        ) from None


def read_whole(folder: Path, shard: Shard) -> bytes:
    """Return a shard's bytes. Raises DataError where they are not those of the manifest."""
    file = folder / shard.file
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file} is missing: put it back, or choose another folder") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise DataError(
            f"{file} was cut or changed: its sha256 is not that of {MANIFEST}; put the right one"
            " back, or choose another folder"
        )
    return content


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield what a nested mapping holds as JSON, by dotted names."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, dumps(value)
