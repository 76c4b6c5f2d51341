"""Result files as values: what `evaluate`, `outcomes judge`, training and `savings` write.

A file is recognised by its fields and read whole or refused, with its name, what was expected and
what came. Fields that this version does not know are left alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from r2reasoner.config import read_toml
from r2reasoner.errors import DataError
from r2reasoner.training.metrics import Row, read, read_lines
from r2reasoner.training.summary import summarise

MAX_BYTES: Final = 64 * 2**20
EXPECTED: Final = (
    "a result of `r2reasoner evaluate`, `outcomes judge` or `savings`, an ablation, a nano ladder,"
    " or a training run's folder, summary.json or metrics.jsonl"
)
ROWS: Final = ".rows.jsonl"
"""What `evaluate` ends the name of the file with that has a row an item."""
_ROWS: Final = {"strategy": "evaluate", "router": "outcomes judge", "variant": "an ablation"}
M = TypeVar("M", bound="Model")
T = TypeVar("T")


def _in_order(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    if ends is not None and ends[0] > ends[1]:
        raise ValueError(f"an interval from {ends[0]} to {ends[1]}, upside down")
    return ends


def _share(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"a share from 0 to 1 was expected, got {value}")
    return value


Interval: TypeAlias = Annotated[tuple[float, float] | None, AfterValidator(_in_order)]
Share: TypeAlias = Annotated[float | None, AfterValidator(_share)]


class Model(BaseModel):
    """What is read from a file: finite numbers, unknown fields left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class PoolName(Model):
    """A pool by name and content."""

    name: str
    sha256: str = ""


class Provenance(Model):
    """Where figures come from; whatever a file does not say is None."""

    command: str = ""
    commit: str | None = None
    date: str | None = None
    seed: int | None = None
    pool: PoolName | None = None
    versions: Mapping[str, str] = {}
    python: str | None = None
    platform: str | None = None
    cpu_count: int | None = None
    trade_off: float | None = None
    engine: str | None = None
    in_flight: int | None = None
    calls: int | None = None
    calls_on_record: int | None = None
    notes: tuple[str, ...] = ()


class StrategyRow(Model):
    """A strategy on a benchmark, as `evaluation.results.StrategyFigures`."""

    benchmark: str
    split: str
    strategy: str
    n: int
    accuracy: Share
    ci95: Interval = None
    score: float | None = None
    score_ci95: Interval = None
    seeds: tuple[int, ...] = ()
    accuracy_by_seed: tuple[float | None, ...] = ()
    workers_cost: float | None
    net_cost: float | None
    calls: float
    latency_s: float
    critical_path_s: float | None = None
    plan_failures: int = 0
    model_share: Mapping[str, float] = {}
    unscored: int = 0
    failed: int = 0
    fell_back: int = 0
    decomposed_share: Share = None
    subtasks: float | None = None
    coverage: Share = None

    @property
    def ours(self) -> bool:
        """Whether it is our router: `r2`, or `r2@` some setting of the dial."""
        return self.strategy == "r2" or self.strategy.startswith("r2@")

    @property
    def dial(self) -> float | None:
        """The setting in `r2@...`; None for any other strategy."""
        name, _, setting = self.strategy.partition("@")
        try:
            return float(setting) if name == "r2" else None
        except ValueError:
            return None


class ComparisonRow(Model):
    """A strategy of ours against another, as `evaluation.results.Comparison`."""

    benchmark: str
    split: str
    strategy: str
    against: str
    n: int
    accuracy_difference: float | None
    accuracy_difference_ci95: Interval = None
    net_cost_ratio: float | None
    net_cost_ratio_ci95: Interval = None


class JudgeRow(Model):
    """A router on recorded outcomes. Prices are what the set says, mostly dollars a query."""

    set: str
    router: str
    n: int
    apgr: float | None = None
    apgr_ci95: Interval = None
    cpt50: float | None = None
    cpt50_ci95: Interval = None
    cpt80: float | None = None
    cpt80_ci95: Interval = None
    aiq: float | None = None
    aiq_ci95: Interval = None
    mean_score: float | None = None
    mean_score_ci95: Interval = None
    mean_price: float | None = None
    mean_price_ci95: Interval = None
    price_at_best_single_score: float | None = None
    price_at_best_single_score_ci95: Interval = None
    oracle: float | None = None
    oracle_ci95: Interval = None
    coverage: Share = None
    coverage_ci95: Interval = None


class JudgeComparison(Model):
    """A router less another on the same items and draws."""

    set: str
    router: str
    against: str
    apgr_difference: float | None = None
    apgr_difference_ci95: Interval = None
    aiq_difference: float | None = None
    aiq_difference_ci95: Interval = None
    mean_score_difference: float | None = None
    mean_score_difference_ci95: Interval = None
    mean_price_difference: float | None = None
    mean_price_difference_ci95: Interval = None


class AblationFigures(Model):
    """What a variant of the training came to on a task, by seed or as a mean."""

    accuracy: float
    workers_cost: float | None = None
    net_cost: float | None = None
    subtasks: float | None = None
    direct: float | None = None
    unparseable: float | None = None
    most_used: float | None = None


class AblationRow(Model):
    """A variant of the training on a task, over seeds."""

    variant: str
    task: str
    seeds: tuple[int, ...]
    minutes: float | None = None
    dollars: float | None = None
    mean: AblationFigures
    by_seed: tuple[AblationFigures, ...]
    dial: Mapping[str, AblationFigures] = {}


class LadderKind(Model):
    """A kind of subtask and how often each model of a nano pool gets it right."""

    family: str
    kind: str
    items: int
    accuracy: Mapping[str, float]
    cheapest: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A result of `evaluate`."""

    file: Path
    provenance: Provenance
    rows: tuple[StrategyRow, ...]
    comparisons: tuple[ComparisonRow, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """A result of `outcomes judge`."""

    file: Path
    provenance: Provenance
    rows: tuple[JudgeRow, ...]
    comparisons: tuple[JudgeComparison, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ablated:
    """A training ablation."""

    file: Path
    provenance: Provenance
    rows: tuple[AblationRow, ...]


@dataclass(frozen=True, slots=True)
class Laddered:
    """A nano pool's ladder."""

    file: Path
    provenance: Provenance
    kinds: tuple[LadderKind, ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """A training run: its summary, and its figures step by step where they are there."""

    file: Path
    summary: Mapping[str, Any]
    steps: tuple[Row, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    began_at: float | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """A result of `savings`, as it stands in the file."""

    file: Path
    provenance: Provenance
    document: Mapping[str, Any]


Result: TypeAlias = Evaluated | Judged | Ablated | Laddered | Trained | Saved


@dataclass(slots=True)
class Results:
    """All files of a report, in the order given."""

    evaluated: list[Evaluated] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    ablated: list[Ablated] = field(default_factory=list)
    laddered: list[Laddered] = field(default_factory=list)
    trained: list[Trained] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Take one in."""
        match result:
            case Evaluated():
                self.evaluated.append(result)
            case Judged():
                self.judged.append(result)
            case Ablated():
                self.ablated.append(result)
            case Laddered():
                self.laddered.append(result)
            case Trained():
                self.trained.append(result)
            case Saved():
                self.saved.append(result)


def read_results(paths: Sequence[Path]) -> Results:
    """Return what stands in some files or run folders.

    Raises DataError, naming the file, for one that is no result, is damaged, mixes results of
    several kinds, or is given twice.
    """
    results = Results()
    seen: dict[Path, Path] = {}
    for path in paths:
        if (place := _place(path)) in seen:
            raise DataError(
                f"{path}: given twice (as {seen[place]}); its figures would count twice"
            )
        seen[place] = path
        results.add(read_result(path))
    if not seen:
        raise DataError(f"no result files named; expected {EXPECTED}")
    return results


def read_result(path: Path) -> Result:
    """Return what stands in one file or run folder. Raises DataError."""
    if path.is_dir():
        return _run_folder(path)
    if path.suffix == ".jsonl":
        return _metrics(path)
    document = _document(path)
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected {EXPECTED}; got {_named(document)}")
    return _recognised(path, document)


def _place(path: Path) -> Path:
    """Return what tells two names of one result apart from two results."""
    whole = path.resolve()
    in_run = whole.name in ("summary.json", "metrics.jsonl") and (
        whole.with_name("metrics.jsonl").exists()
    )
    return whole.parent if in_run else whole


def _document(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB; expected {EXPECTED}")
        return json.loads(path.read_bytes().decode(), parse_constant=_refuse)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected {EXPECTED}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); expected {EXPECTED}") from None


def _refuse(constant: str) -> float:
    raise ValueError(f"it holds {constant}, which is no number")


def _recognised(path: Path, document: dict[str, Any]) -> Result:
    if document.get("what") == "savings":
        return Saved(path, _provenance(path, document), document)
    if isinstance(document.get("rows"), list):
        return _with_rows(path, document)
    if {"total", "stages"} <= document.keys():
        return _run(path, _summary(path, document))
    if {"kinds", "pool"} <= document.keys():
        kinds = _all(path, LadderKind, "kinds", document)
        origin = Provenance(
            seed=document.get("seed"),
            pool=PoolName(name=str(document["pool"])),
        )
        return Laddered(path, origin, kinds)
    has = ", ".join(map(repr, list(document)[:8])) or "nothing"
    raise DataError(f"{path}: expected {EXPECTED}; got an object with {has}")


def _with_rows(path: Path, document: dict[str, Any]) -> Result:
    rows = document["rows"]
    if not rows:
        raise DataError(f"{path}: no rows in it; expected {EXPECTED}")
    kinds = [_kind_of(path, number, row) for number, row in enumerate(rows, 1)]
    for number, kind in enumerate(kinds, 1):
        if kind != kinds[0]:
            raise DataError(
                f"{path}: row {number} is of {_ROWS[kind]}, row 1 of {_ROWS[kinds[0]]};"
                " expected rows of one kind, so write them to two files"
            )
    origin = _provenance(path, document)
    match kinds[0]:
        case "strategy":
            found = _all(path, StrategyRow, "rows", document)
            _no_doubles(path, [(r.benchmark, r.split, r.strategy) for r in found])
            compared = _all(path, ComparisonRow, "comparisons", document)
            return Evaluated(path, origin, found, compared)
        case "router":
            judged = _all(path, JudgeRow, "rows", document)
            _no_doubles(path, [(r.set, r.router) for r in judged])
            against = _all(path, JudgeComparison, "comparisons", document)
            told = document.get("notes")
            notes = tuple(map(str, told)) if isinstance(told, list) else ()
            return Judged(path, origin, judged, against, notes)
        case _:
            variants = _all(path, AblationRow, "rows", document)
            _no_doubles(path, [(r.variant, r.task) for r in variants])
            return Ablated(path, origin, variants)


def _kind_of(path: Path, number: int, row: Any) -> str:
    found = [key for key in _ROWS if isinstance(row, dict) and key in row]
    if len(found) != 1:
        has = ", ".join(map(repr, list(row)[:8])) if isinstance(row, dict) else _named(row)
        raise DataError(
            f"{path}: row {number}: expected one of {', '.join(map(repr, _ROWS))}; got {has}"
        )
    return found[0]


def _no_doubles(path: Path, keys: Sequence[tuple[str, ...]]) -> None:
    first: dict[tuple[str, ...], int] = {}
    for number, key in enumerate(keys, 1):
        if (before := first.setdefault(key, number)) != number:
            raise DataError(f"{path}: row {number} is {' '.join(key)} again, as row {before} is")


def _provenance(path: Path, document: Mapping[str, Any]) -> Provenance:
    return _checked(path, "provenance", lambda: Provenance(**(document.get("provenance") or {})))


def _all(path: Path, kind: type[M], key: str, document: Mapping[str, Any]) -> tuple[M, ...]:
    rows = document.get(key) or []
    if not isinstance(rows, list):
        raise DataError(f"{path}: {key}: expected a list, got {_named(rows)}")

    def one(row: Any) -> Callable[[], M]:
        return lambda: kind.model_validate(row)

    return tuple(_checked(path, f"{key} {n}", one(row)) for n, row in enumerate(rows, 1))


def _checked(path: Path, where: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {where}: {place}: {first['msg'].lower()}") from None
    except TypeError:
        raise DataError(f"{path}: {where}: expected an object") from None


def _summary(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    stages = document["stages"]
    whole = isinstance(document["total"], dict) and isinstance(stages, list)
    if not whole or not all(isinstance(s, dict) and _has_stage(s) for s in stages):
        raise DataError(f"{path}: expected the summary of a training run: a total and its stages")
    return document


def _has_stage(stage: Mapping[str, Any]) -> bool:
    numbers = ("dollars", "calls", "hours")
    return isinstance(stage.get("stage"), str) and all(
        isinstance(stage.get(name), int | float) for name in numbers
    )


def _run_folder(folder: Path) -> Trained:
    for name in ("summary.json", "metrics.jsonl"):
        if (folder / name).is_file():
            found = read_result(folder / name)
            if isinstance(found, Trained):
                return found
    raise DataError(f"{folder}: a folder without metrics.jsonl; expected {EXPECTED}")


def _metrics(path: Path) -> Trained:
    if path.name.endswith(ROWS):
        raise DataError(
            f"{path}: rows of an evaluation, which go with {path.name.removesuffix(ROWS)};"
            f" expected {EXPECTED}"
        )
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: no figures in it; expected {EXPECTED}")
    summary = path.with_name("summary.json")
    if summary.is_file():
        found = read_result(summary)
        if isinstance(found, Trained):
            return found
    return _run(path, summarise(lines))


def _run(path: Path, summary: Mapping[str, Any]) -> Trained:
    metrics, config = path.with_name("metrics.jsonl"), path.with_name("config.toml")
    lines = read_lines(metrics)
    recipe = read_toml(config).get("recipe", {}) if config.is_file() else {}
    began_at = lines[0].get("at") if lines else None
    return Trained(path, summary, tuple(read(metrics)), recipe, began_at)


def _named(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
