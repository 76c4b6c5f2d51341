"""From a file or a folder to records, or to one sentence that says what is wrong, and where.

All is read and checked before anything is returned, so that a store never takes half of a set.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes.layouts.base import Context, Grade, Layout, Skipped
from r2reasoner.outcomes.layouts.files import ENDINGS, JSON, PICKLES, NumberedRow, read_rows
from r2reasoner.outcomes.records import Outcome, Record, Row

MOST_SHOWN: Final = 200
"""Characters of a list of fields in a message."""


class Refusal(NamedTuple):
    """A layout that is known and cannot be imported; `why` ends the sentence after its name."""

    name: str
    fields: frozenset[str]
    why: str


class Imported(NamedTuple):
    """What files said. `skipped`: what is no outcome in them, by why, and how often."""

    layout: str
    records: list[Record]
    skipped: Mapping[str, int]


class _File(NamedTuple):
    path: Path
    rows: list[NumberedRow]


_Layouts: TypeAlias = Mapping[str, Layout]


def read(
    path: Path,
    layouts: _Layouts,
    refused: Sequence[Refusal],
    name: str | None,
    grade: Grade | None,
) -> Imported:
    """Return what a file or a folder says; see `read_records`."""
    named = layouts if name is None else _named(name, layouts)
    files = [_File(file, read_rows(file)) for file in _files(path)]
    for file in files:
        _refuse(file, refused)
    outcomes, beside = _sorted_out(path, files, named)
    outcomes = _last_runs(outcomes, layouts)
    folders = {layouts[layout].folder: file.path for layout, file in outcomes}
    if len(folders) > 1:
        said = ", ".join(f"{file.name} is {folder}" for folder, file in folders.items())
        raise DataError(f"{path}: files of several layouts: {said}; import each on its own")
    collected = _Collected()
    for layout, file in outcomes:
        context = Context(file.path.stat().st_mtime, _beside(file.path, layouts[layout], beside))
        collected.take(file, layout, layouts[layout], context._replace(grade=grade))
    shown = outcomes[0][0] if len(outcomes) == 1 else next(iter(folders))
    return Imported(shown, collected.records, collected.skipped)


def _named(name: str, layouts: _Layouts) -> _Layouts:
    found = {key: each for key, each in layouts.items() if name in (key, each.folder)}
    if not found:
        raise ConfigError(f"no layout {name!r}; known: {', '.join(layouts)}")
    return found


def _files(path: Path) -> list[Path]:
    """Return the file, or the folder's files that may hold rows."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
    found = found or sorted(path.rglob(f"*{JSON}"))  # LLMRouterBench keeps a tree of documents
    if not found:
        pickles = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in PICKLES]
        if pickles:
            read_rows(pickles[0])
        raise DataError(f"{path}: no file that ends in {', '.join(ENDINGS)}")
    return found


def _refuse(file: _File, refused: Sequence[Refusal]) -> None:
    if not file.rows:
        raise DataError(f"{file.path}: no rows")
    for layout in refused:
        if layout.fields <= file.rows[0].row.keys():
            raise DataError(f"{file.path}: this is {layout.name}, which {layout.why}")


def _sorted_out(
    path: Path, files: Sequence[_File], layouts: _Layouts
) -> tuple[list[tuple[str, _File]], list[_File]]:
    """Return the files with outcomes, with their layouts, and those that stand beside them."""
    outcomes, others = [], []
    for file in files:
        layout = _layout_of(file, layouts)
        if layout is None:
            others.append(file)
        else:
            outcomes.append((layout, file))
    if not outcomes and len(files) == 1 and len(layouts) == 1:
        return [(next(iter(layouts)), files[0])], []  # named, so its rows say what is wrong
    present = [layouts[name] for name, _ in outcomes]
    for file in others:
        known = (fields for layout in present for fields in layout.beside.values())
        if not any(fields <= file.rows[0].row.keys() for fields in known):
            raise DataError(
                f"{file.path}: expected rows of one of these layouts: {', '.join(layouts)};"
                f" got the fields {_list(file.rows[0].row)}"
            )
    if not outcomes:
        raise DataError(f"{path}: no file with outcomes")
    return outcomes, others


def _last_runs(outcomes: Sequence[tuple[str, _File]], layouts: _Layouts) -> list[tuple[str, _File]]:
    """Return the files without those of which a later run stands there too."""
    last: dict[tuple[str, ...], tuple[str, _File]] = {}
    for name, file in sorted(outcomes, key=lambda found: found[1].path.name):
        run = layouts[name].run
        same = (str(file.path),) if run is None else run(file.rows[0].row)
        last[(name, *same)] = (name, file)
    return sorted(last.values(), key=lambda found: found[1].path)


def _layout_of(file: _File, layouts: _Layouts) -> str | None:
    first = file.rows[0].row.keys()
    return next((name for name, layout in layouts.items() if layout.fields <= first), None)


def _beside(file: Path, layout: Layout, others: Sequence[_File]) -> dict[str, list[Row]]:
    """Return the rows of a layout's other files, looked for beside a single file too."""
    if layout.beside and not others:
        siblings = sorted(each for each in file.parent.glob(f"*{file.suffix}") if each != file)
        others = [_File(each, rows) for each in siblings if (rows := _quietly(each))]
    return {
        name: [
            row.row for other in others if fields <= other.rows[0].row.keys() for row in other.rows
        ]
        for name, fields in layout.beside.items()
    }


def _quietly(file: Path) -> list[NumberedRow]:
    """Return the rows of a file that nobody named: none where it is not for us."""
    try:
        return read_rows(file)
    except DataError:
        return []


class _Collected:
    """Records of files, each once, with where they came from."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.skipped: Counter[str] = Counter()
        self._seen: dict[Record, None] = {}
        self._verdicts: dict[str, tuple[float | None, str]] = {}

    def take(self, file: _File, name: str, layout: Layout, context: Context) -> None:
        """Take in the rows of a file. Raises DataError, with the row."""
        first: dict[str, str] = {}
        models: dict[str, dict[str, None]] = {}
        for number, row in file.rows:
            where = f"{file.path}:{number}"
            for record in self._records_of(where, row, name, layout, context):
                if isinstance(record, Outcome):
                    self._check(record, where)
                    first.setdefault(record.item, where)
                    models.setdefault(record.item, {})[record.model] = None
                if record not in self._seen:
                    self._seen[record] = None
                    self.records.append(record)
        if layout.complete:
            _refuse_holes(first, models)

    def _records_of(
        self, where: str, row: Row, name: str, layout: Layout, context: Context
    ) -> Iterator[Record]:
        if missing := sorted(layout.fields - row.keys()):
            raise DataError(
                f"{where}: expected a row of layout {name!r}: without {', '.join(missing)};"
                f" it has {_list(row)}"
            )
        try:
            for found in layout.records(row, context):
                if isinstance(found, Skipped):
                    self.skipped[found.why] += 1
                else:
                    yield found
        except KeyError as error:
            message = f"without {error.args[0]}"
            raise DataError(f"{where}: expected a row of layout {name!r}: {message}") from None
        except (ValueError, TypeError) as error:
            raise DataError(f"{where}: expected a row of layout {name!r}: {error}") from None

    def _check(self, outcome: Outcome, where: str) -> None:
        before = self._verdicts.setdefault(outcome.key, (outcome.score, where))
        if before[0] != outcome.score:
            raise DataError(
                f"{where}: the same item as {before[1]} with another verdict of {outcome.model}:"
                f" {outcome.score} after {before[0]}; keep the right one of the two"
            )


def _refuse_holes(first: Mapping[str, str], models: Mapping[str, Mapping[str, None]]) -> None:
    every = list(dict.fromkeys(model for found in models.values() for model in found))
    for item, found in models.items():
        if missing := [model for model in every if model not in found]:
            raise DataError(
                f"{first[item]}: no outcome of {', '.join(missing)}, which other rows have"
            )


def _list(row: Row) -> str:
    return ", ".join(map(str, row))[:MOST_SHOWN]
