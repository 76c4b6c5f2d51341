"""Figures of a training run, one JSON object a line: `{"stage", "step", "at", figures...}`.

Lines are appended whole; what a kill tore off at the end is dropped. A run that goes on from a
checkpoint repeats steps, so reading resolves them: the last value of a figure at a step wins, and
`went_back` voids what a lost stretch had written. Only the bill is never resolved: what was paid
for a step that was repeated was paid.

Some figures have fixed names, since plots and summaries read them:

| name | what |
|---|---|
| `reward`, `accuracy`, `loss`, `kl`, with `val_` before it on held-out items | means; KL and an SFT loss in nats a token |
| `cost`, `val_cost` / `workers_cost` | dollars a query, all calls / workers only |
| `plan_length`, `val_plan_length` | subtasks a plan |
| `shares` | object: share of the subtasks that each worker took, in the pool's order |
| `plans`, `unparseable`, `faults` | plans written since the line before; those that were none; why (object of counts) |
| `dropped` | groups of rollouts dropped since the line before (reward NaN, raised, timed out) |
| `paid_pico`, `calls`, `unpriced`, `seconds` | the bill since the line before: pico-dollars, calls to models, how many of them have no known price, wall-clock time |
"""  # noqa: E501

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from r2reasoner.errors import ConfigError, DataError

BILL: Final = ("paid_pico", "calls", "unpriced", "seconds")
COUNTS: Final = ("plans", "unparseable", "faults", "dropped")
NOT_FINITE: Final = "not_finite"
WENT_BACK: Final = "went_back"
OWN: Final = ("stage", "step", "at")

Row = dict[str, Any]


def append(file: Path, stage: str, step: int, figures: Mapping[str, Any]) -> int:
    """Append one line; return how many of its figures were not finite.

    NaN and infinity are written as null and counted under `not_finite`. Figures are numbers (also
    numpy's and torch's, of one element), booleans, texts, None, and lists and objects of those.
    Raises ConfigError where the line cannot be written; a part of it does not stay.
    """
    taken = {*OWN, NOT_FINITE} & figures.keys()
    if taken:
        raise ValueError(f"a figure cannot be called {min(taken)!r}")
    lost: list[str] = []
    row: Row = {"stage": stage, "step": step, "at": round(time.time(), 3)}
    row |= {name: _plain(name, value, lost) for name, value in figures.items()}
    if lost:
        row[NOT_FINITE] = len(lost)
    _append(file, (json.dumps(row, allow_nan=False) + "\n").encode())
    return len(lost)


def went_back(file: Path, stage: str, step: int) -> None:
    """Note that a stage goes on from the state after `step`: its figures of later steps are void.

    Raises ConfigError where that cannot be written.
    """
    append(file, stage, step, {WENT_BACK: True})


def mend(file: Path) -> None:
    """Cut off a last line that a kill tore, so that the next one starts a line of its own."""
    try:
        with file.open("rb+") as stream:
            content = stream.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                stream.truncate(whole)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error


def read_lines(file: Path) -> list[Row]:
    """Return every whole line as it was written; none where there is no file.

    Raises DataError naming the line that is none of ours.
    """
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    *lines, _torn = raw.split(b"\n")
    return [_parsed(f"{file}:{number}", line) for number, line in enumerate(lines, 1)]


def resolve(lines: list[Row]) -> list[Row]:
    """Return one row a stage and step, in order: stages as they began, then steps.

    The bill is left out: `billed` adds it up.
    """
    stages: dict[str, dict[int, Row]] = {}
    for line in lines:
        rows = stages.setdefault(line["stage"], {})
        step = line["step"]
        if WENT_BACK in line:
            for later in [s for s in rows if s > step]:
                del rows[later]
        else:
            row = rows.setdefault(step, {"stage": line["stage"], "step": step})
            row |= {name: value for name, value in line.items() if name not in BILL}
    return [row for rows in stages.values() for _, row in sorted(rows.items())]


def read(file: Path) -> list[Row]:
    """Return a run's rows, resolved. Raises DataError naming the line that is none of ours."""
    return resolve(read_lines(file))


def billed(lines: list[Row]) -> dict[str, dict[str, float]]:
    """Return what each stage was billed, over all lines: the sums of the figures in `BILL`."""
    bill: dict[str, dict[str, float]] = {}
    for line in lines:
        of_stage = bill.setdefault(line["stage"], dict.fromkeys(BILL, 0))
        for name in BILL:
            of_stage[name] += line.get(name) or 0
    return bill


def series(rows: list[Row], name: str) -> dict[str, list[tuple[int, Any]]]:
    """Return a figure's (step, value) points by stage; a value of None is where it was no number.

    Stages without the figure are left out.
    """
    points: dict[str, list[tuple[int, Any]]] = {}
    for row in rows:
        if name in row:
            points.setdefault(row["stage"], []).append((row["step"], row[name]))
    return points


def last_figures(rows: list[Row]) -> dict[str, Row]:
    """Return for each stage its last step and the last value of each figure that is no count."""
    last: dict[str, Row] = {}
    for row in rows:
        of_stage = last.setdefault(row["stage"], {})
        of_stage["step"] = row["step"]
        of_stage |= {k: v for k, v in row.items() if k not in (*OWN, *COUNTS, NOT_FINITE)}
    return last


def _append(file: Path, line: bytes) -> None:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before = os.fstat(handle).st_size
            if os.write(handle, line) < len(line):
                os.ftruncate(handle, before)
                raise ConfigError(f"{file}: cannot be written: no space left")
        finally:
            os.close(handle)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error


def _plain(name: str, value: Any, lost: list[str]) -> Any:
    """Return a value as JSON has it; names of what is not finite are added to `lost`."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(f"{name}.{k}", v, lost) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, v, lost) for v in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        return _plain(name, value.item(), lost)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"figure {name}: expected a number, got {type(value).__name__}") from None
    if not math.isfinite(number):
        lost.append(name)
        return None
    return number


def _parsed(where: str, line: bytes) -> Row:
    try:
        row = json.loads(line)
        if isinstance(row["stage"], str) and type(row["step"]) is int:
            return dict(row)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise DataError(
        f'{where}: expected an object with "stage" and "step"; put back a copy of the file,'
        " or remove the line if you can do without its figures"
    )
