"""The folder of a training run: what it was told, what happened, what came out.

    config.toml     the resolved config          rollouts/      sample rollouts, to be read by eye
    seeds.json      every seed                   checkpoints/   a folder a stage (`checkpoint`)
    data.json       sha256 of every input        stages/        a note for each stage that is done
    metrics.jsonl   figures (`metrics`)          summary.*      the bill and the last figures
                                                 plots/         pictures (`plots`)

Opening a folder again goes on with its run, so what the run was told must be the same; one
process at a time has it open. Every file but the metrics is written whole, and what a stage
produced is compared with its checksums before anyone builds on it.
"""

import fcntl
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from r2reasoner.errors import ConfigError, DataError, R2Error
from r2reasoner.files import write_whole
from r2reasoner.training import metrics as metric_lines
from r2reasoner.training.summary import markdown, summarise
from r2reasoner.training.sums import (
    check,
    from_json,
    read_sealed,
    sealed,
    stamp,
    sums,
    to_json,
    write_sealed,
)

CONFIG: Final = "config.toml"
SEEDS: Final = "seeds.json"
DATA: Final = "data.json"
METRICS: Final = "metrics.jsonl"
LOCK: Final = ".lock"
OURS: Final = (METRICS, "checkpoints", "stages", "rollouts", "summary.json")
MOST_NAMED: Final = 5
_BACK: Final = "put back a copy, or choose another folder for a new run"
_STAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CONTROL: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class RunFolder:
    """An open run folder. Stages are named by letters, digits, dots, dashes and underscores."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock: int | None = lock
        self._checked: dict[Path, object] = {}  # what files were checked against, and their stamp

    @classmethod
    def open(
        cls,
        path: Path,
        config_text: str,
        seeds: Mapping[str, int],
        data: Mapping[str, Path],
        free: Collection[str] = (),
    ) -> Self:
        """Make a run folder, or open it to go on with its run.

        `config_text` is the resolved config as TOML, `data` the input files and folders by name,
        `free` the keys (`table.key`) of which a run may take another value when it goes on.
        Raises ConfigError where the config or seeds are not those of the run (naming the keys
        that differ), or another process has the folder open; DataError where inputs changed or
        a file of the run is missing or damaged.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
        folder = cls(path, lock)
        try:
            folder._claim()
            folder._sweep()
            if (path / CONFIG).exists():
                folder._compare(config_text, seeds, free)
                folder.use_data(data)
            else:
                folder._begin(config_text, seeds, data)
            metric_lines.mend(path / METRICS)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def reading(cls, path: Path) -> Self:
        """Return the folder of a run only to read what it produced; it need not be free."""
        return cls(path, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process have the folder; the end of this one does so too."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def use_data(self, data: Mapping[str, Path]) -> None:
        """Add inputs (files and folders by name) that came to be only after the run began.

        Raises DataError where one of that name has another content than it had.
        """
        file = self.path / DATA
        known = read_sealed(file, _BACK)["data"]
        for name in data.keys() & known.keys():
            check(
                data[name],
                from_json(known[name]["files"]),
                f"the run in {self.path} began with another {name!r}: put that back, or choose"
                " another folder for a new run",
            )
        fresh = {name: path for name, path in data.items() if name not in known}
        if fresh:
            write_sealed(file, _data_content(fresh, known))

    def checkpoints(self, stage: str) -> Path:
        """Return the folder for a stage's checkpoints; `checkpoint.save` makes it."""
        return self.path / "checkpoints" / _plain_name(stage)

    def metrics(self, stage: str, step: int, **figures: Any) -> int:
        """Append figures of a step; return how many were NaN or infinite (written as null).

        The module `metrics` says which names have a meaning. Raises ConfigError where the disk
        refuses.
        """
        return metric_lines.append(self.path / METRICS, _plain_name(stage), step, figures)

    def went_back(self, stage: str, step: int) -> None:
        """Note that a stage goes on from its state after `step`: later figures are void."""
        metric_lines.went_back(self.path / METRICS, _plain_name(stage), step)

    def rows(self) -> list[dict[str, Any]]:
        """Return the metrics, one row a stage and step. Raises DataError for a damaged line."""
        return metric_lines.read(self.path / METRICS)

    def billed(self) -> dict[str, float]:
        """Return what all stages were billed so far. Raises DataError for a damaged line."""
        lines = metric_lines.read_lines(self.path / METRICS)
        of_stages = metric_lines.billed(lines).values()
        return {name: sum(paid[name] for paid in of_stages) for name in metric_lines.BILL}

    def rollouts(self, stage: str, step: int, samples: Iterable[Mapping[str, Any]]) -> Path:
        """Write samples as text to be read by eye: each a few named values, in their order."""
        shown = list(samples)
        file = self.path / "rollouts" / f"{_plain_name(stage)}-{step:06d}.txt"
        lines = [f"{stage}, step {step}: {len(shown)} samples"]
        for number, sample in enumerate(shown, 1):
            lines += ["", f"---- {number} of {len(shown)} ----", *_sample_lines(sample)]
        _make(file.parent)
        write_whole(file, _readable("\n".join(lines)) + "\n", replace=True)
        return file

    def stage_done(self, name: str, produced: Mapping[str, Path] | None = None) -> None:
        """Note that a stage is done, with the checksums of the files and folders it produced.

        Raises DataError where one of them cannot be read.
        """
        marker = self._marker(name)
        content = {
            label: {"path": self._inside(path), "files": to_json(sums(path))}
            for label, path in (produced or {}).items()
        }
        _make(marker.parent)
        write_sealed(marker, {"stage": name, "produced": content})

    def is_done(self, name: str) -> bool:
        """Tell whether a stage is done. Raises DataError where what it produced has changed."""
        marker = self._marker(name)
        if not marker.exists():
            return False
        self.produced(name)
        return True

    def produced(self, name: str) -> dict[str, Path]:
        """Return what a stage that is done produced, compared with its checksums.

        Raises DataError naming the file that is missing or changed.
        """
        marker = self._marker(name)
        advice = f"put back a copy, or remove {marker} to do the stage again"
        content = read_sealed(marker, advice)["produced"]
        paths = {label: self.path / of_label["path"] for label, of_label in content.items()}
        for label, path in paths.items():
            # Weights of many gigabytes are read once, unless something touched them.
            files = content[label]["files"]
            if self._checked.get(path) != (files, stamp(path)):
                check(path, from_json(files), advice)
                self._checked[path] = (files, stamp(path))
        return paths

    def summary(self) -> dict[str, Any]:
        """Write summary.json and summary.md; return what the first of them holds.

        Raises DataError for a damaged line of the metrics.
        """
        done = {file.stem for file in (self.path / "stages").glob("*.json")}
        document = summarise(metric_lines.read_lines(self.path / METRICS), done)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        write_whole(self.path / "summary.json", text, replace=True)
        lines = "".join(f"{line}\n" for line in markdown(document))
        write_whole(self.path / "summary.md", lines, replace=True)
        return document

    def _claim(self) -> None:
        assert self._lock is not None
        # A record lock belongs to the process: opening twice in one is no conflict, and the first
        # of the two that is closed gives it up.
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ConfigError(
                f"{self.path}: another process is training in it;"
                " wait until that is done, or choose another folder"
            ) from None

    def _sweep(self) -> None:
        """Remove files that a killed process left half-written; finished ones are never hidden."""
        own = (CONFIG, SEEDS, DATA, "summary.json", "summary.md")
        left = [file for name in own for file in self.path.glob(f".{name}.*")]
        left += [file for name in ("stages", "rollouts", "plots") for file in self._hidden(name)]
        for file in left:
            file.unlink(missing_ok=True)

    def _hidden(self, name: str) -> list[Path]:
        return list((self.path / name).glob(".*.*"))

    def _begin(self, config_text: str, seeds: Mapping[str, int], data: Mapping[str, Path]) -> None:
        """Write what the run is told. The config comes last: it says that the rest is there."""
        _toml(config_text, "the config of this run", ConfigError)
        began = next((name for name in OURS if (self.path / name).exists()), None)
        if began is not None:
            raise DataError(
                f"{self.path / CONFIG}: missing, though a run began here ({began} is there);"
                f" {_BACK}"
            )
        texts = {
            SEEDS: json.dumps(dict(sorted(seeds.items())), indent=1) + "\n",
            DATA: sealed(_data_content(data, {})),
            CONFIG: config_text,
        }
        for name, text in texts.items():
            file = self.path / name
            if not file.exists():
                write_whole(file, text)
            elif file.read_bytes() != text.encode():
                raise ConfigError(
                    f"{file}: there already, but no {CONFIG} beside it; remove the file if"
                    " it was left by a run that was cut while it began, or choose another folder"
                )

    def _compare(self, config_text: str, seeds: Mapping[str, int], free: Collection[str]) -> None:
        given = _toml(config_text, "the config of this run", ConfigError)
        known = _toml(_read(self.path / CONFIG), str(self.path / CONFIG), DataError)
        try:
            known_seeds = json.loads(_read(self.path / SEEDS))
        except ValueError:
            known_seeds = None
        if not isinstance(known_seeds, dict):
            raise DataError(f"{self.path / SEEDS}: expected a JSON object of seeds; {_BACK}")
        differing = _differences(
            {**known, "seeds": known_seeds}, {**given, "seeds": dict(seeds)}, free
        )
        if differing:
            more = len(differing) - MOST_NAMED
            shown = "; ".join(differing[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
            raise ConfigError(
                f"{self.path}: the run in it has another config: {shown}."
                " Choose another folder, or go on with the config of that run"
            )
        if _differences(known, given, ()):
            write_whole(self.path / CONFIG, config_text, replace=True)

    def _marker(self, name: str) -> Path:
        return self.path / "stages" / f"{_plain_name(name)}.json"

    def _inside(self, path: Path) -> str:
        """Return a path relative to the folder where it is inside, so that a run can be moved."""
        whole, home = path.absolute(), self.path.absolute()
        return str(whole.relative_to(home) if whole.is_relative_to(home) else whole)


def _data_content(data: Mapping[str, Path], known: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: {"path": str(p), "files": to_json(sums(p))} for name, p in sorted(data.items())}
    return {"data": {**known, **found}}


def _differences(known: dict[str, Any], given: dict[str, Any], free: Collection[str]) -> list[str]:
    """Return what differs between two configs, a line a key; what is free is not looked at."""
    there, here = _flat(known), _flat(given)
    return [
        f"{key}: {_show(there, key)} there, {_show(here, key)} now"
        for key in sorted((there.keys() | here.keys()) - set(free))
        if key not in there or key not in here or _exact(there[key]) != _exact(here[key])
    ]


def _exact(value: Any) -> str:
    """Return a text that differs wherever values do, as 1 and true do, and nan does not."""
    return json.dumps(value, sort_keys=True, default=str)


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat


def _show(table: Mapping[str, Any], key: str) -> str:
    return repr(table[key])[:60] if key in table else "nothing"


def _toml(text: str, where: str, kind: type[R2Error]) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise kind(f"{where}: not valid TOML: {error}") from None


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        raise DataError(f"{file}: missing; {_BACK}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}; {_BACK}") from None


def _plain_name(stage: str) -> str:
    if not _STAGE.fullmatch(stage):
        raise ValueError(f"not the name of a stage: {stage!r}")
    return stage


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from error


def _sample_lines(sample: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, sample), default=0)
    for name, value in sample.items():
        items = value if isinstance(value, list | tuple) else str(_short(value)).splitlines()
        first, *others = [str(_short(item)) for item in items] or [""]
        yield f"{name:<{width}}  {first}".rstrip()
        yield from (f"{'':<{width}}  {other}" for other in others)


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _readable(text: str) -> str:
    """Write out characters that could move a terminal's cursor or hide text: models wrote some."""
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)
