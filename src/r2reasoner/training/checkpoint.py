"""Checkpoints: folders that are written whole, and verified before anything reads them.

A folder of checkpoints holds `step-00000120/` and the like, each with a `manifest.json` that has
size and sha256 of every other file in it. A new one is written beside them under a hidden name,
brought to the disk and renamed; only then do older ones go. So at any moment a whole checkpoint
stands, and what `latest` returns is whole or there is a DataError that names the file: a run
never goes on from damaged state and never silently starts again.

What a checkpoint holds is its writer's business: `save(folder, model.save_pretrained, info)`, or
for the folder that a Trainer wrote `lambda to: shutil.copytree(written, to, dirs_exist_ok=True)`.
Nothing here loads it. One process at a time saves into a folder (`RunFolder` sees to that).
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.training.sums import check, from_json, read_sealed, sums, to_json, write_sealed

MANIFEST: Final = "manifest.json"
LATEST: Final = "latest.json"
FORMAT: Final = "r2reasoner checkpoint 1"
_NAME: Final = re.compile(r"step-([0-9]{8,15})(?:\.([0-9]{1,9}))?")
_HIDDEN: Final = (".saving-", ".removing-")

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Info:
    """What a checkpoint is: its kind (`policy`, `trainer`, ...), and the stage and step it is of.

    `step` counts from 0; a checkpoint made before training is of step 0.
    """

    kind: str
    stage: str
    step: int


class Checkpoint(NamedTuple):
    """A verified checkpoint. `seal` is a sha256 over all that it holds: its identity."""

    path: Path
    info: Info
    seal: str


def save(folder: Path, write: Callable[[Path], object], info: Info, *, keep: int = 1) -> Checkpoint:
    """Save a checkpoint: `write` fills the empty folder that it is given.

    The newest `keep` checkpoints stay. Raises ConfigError where the disk refuses, DataError where
    a later step stands already, and whatever `write` raises; what stood before then stays.
    """
    if keep < 1 or info.step < 0:
        raise ValueError(f"expected keep >= 1 and step >= 0, got {keep} and {info.step}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _to_disk(folder.parent)
        _sweep(folder)
        path = folder / _free_name(folder, info.step)
        temporary = folder / f"{_HIDDEN[0]}{secrets.token_hex(6)}"
        temporary.mkdir()
        try:
            write(temporary)
            seal = _complete(temporary, info)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _to_disk(folder)
        write_sealed(folder / LATEST, {"name": path.name})
        _to_disk(folder)
        for _, old in _standing(folder)[:-keep]:
            _remove(old)
    except OSError as error:
        raise ConfigError(f"{folder}: no checkpoint could be saved: {error}") from error
    return Checkpoint(path, info, seal)


def latest(folder: Path, *, kind: str | None = None, stage: str | None = None) -> Checkpoint | None:
    """Return the newest checkpoint, verified; None where none was ever saved.

    Raises DataError naming the file that is missing, cut, changed or foreign, or where the
    newest is not of the kind or stage that is asked for.
    """
    standing = _standing(folder)
    _check_none_is_gone(folder, standing)
    if standing:
        return verify(standing[-1][1], kind=kind, stage=stage)
    strange = [name for name in _listed(folder) if not name.startswith(".")]
    if strange:
        raise DataError(
            f"{folder / min(strange)}: expected checkpoints (step-00000000 and the like) and"
            " nothing else; move it away, or choose another folder"
        )
    return None


def verify(path: Path, *, kind: str | None = None, stage: str | None = None) -> Checkpoint:
    """Return a checkpoint of which every byte is as it was written.

    Raises DataError naming the file that is missing, cut, changed or foreign, or where it is
    not of the kind or stage that is asked for.
    """
    advice = (
        f"put back a copy, or remove {path.name} and {LATEST} to go on from an older checkpoint"
        f" if {path.parent} has one, or remove that folder to start this stage again"
    )
    manifest = path / MANIFEST
    content = read_sealed(manifest, advice)
    if content.get("format") != FORMAT:
        raise DataError(f"{manifest}: expected format {FORMAT!r}, got {content.get('format')!r}")
    info = Info(content["kind"], content["stage"], content["step"])
    for name, wanted, found in (("kind", kind, info.kind), ("stage", stage, info.stage)):
        if wanted is not None and wanted != found:
            raise DataError(
                f"{manifest}: a checkpoint of {name} {found!r}, expected {wanted!r};"
                " name the right folder, or move this one away"
            )
    expected = from_json(content["files"])
    itself = sums(manifest)["."]
    check(path, {**expected, MANIFEST: itself}, advice)
    return Checkpoint(path, info, itself.sha256)


def _complete(folder: Path, info: Info) -> str:
    """Write the manifest of a folder and bring all of it to the disk; return the seal."""
    if (folder / MANIFEST).exists():
        raise ValueError(f"a checkpoint's writer must leave the name {MANIFEST} free")
    files = sums(folder)
    if not files:
        raise ValueError("a checkpoint's writer wrote no file")
    content: dict[str, Any] = {"format": FORMAT, **asdict(info), "files": to_json(files)}
    write_sealed(folder / MANIFEST, content)
    for name in files:
        _to_disk(folder / name)
    for below in (path for path in folder.rglob("*") if path.is_dir()):
        _to_disk(below)
    _to_disk(folder)
    return sums(folder / MANIFEST)["."].sha256


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _free_name(folder: Path, step: int) -> str:
    """Return the name of a new checkpoint.

    No folder can take another one's place in one step, so a second one of a step gets a number.
    """
    standing = _standing(folder)
    last, number = standing[-1][0] if standing else (-1, 0)
    if last > step:
        raise DataError(
            f"{folder}: step {last} is saved here already, so step {step} would stand behind it;"
            " choose another folder, or remove this one to start the stage again"
        )
    return f"step-{step:08d}" + (f".{number + 1}" if last == step else "")


def _standing(folder: Path) -> list[tuple[Key, Path]]:
    """Return the checkpoints of a folder, oldest first."""
    keys = ((_key(name), folder / name) for name in _listed(folder))
    return sorted((key, path) for key, path in keys if key is not None)


def _key(name: str) -> Key | None:
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2] or 0))


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _check_none_is_gone(folder: Path, standing: list[tuple[Key, Path]]) -> None:
    """Raise DataError where the checkpoint that was saved last is no longer there."""
    note = folder / LATEST
    if not note.exists():
        return
    advice = (
        f"put back a copy, or remove {note} to go on from what is left,"
        f" or remove {folder} to start this stage again"
    )
    name = str(read_sealed(note, advice).get("name"))
    key = _key(name)
    # A kill between the rename and the note leaves a note that is one behind.
    if key is None or not standing or standing[-1][0] < key:
        raise DataError(f"{folder / name}: missing; {advice}")


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for name in _listed(folder):
        if name.startswith(_HIDDEN):
            shutil.rmtree(folder / name, ignore_errors=True)
        elif name.startswith(f".{LATEST}."):
            (folder / name).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Remove a checkpoint so that a kill on the way leaves nothing that looks like one."""
    hidden = path.with_name(f"{_HIDDEN[1]}{path.name}")
    with suppress(FileNotFoundError):
        path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
