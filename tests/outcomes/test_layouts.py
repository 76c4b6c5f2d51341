import json
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.calibrate import Measured, write_outcomes
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.estimate import Outcome as Judged
from r2reasoner.outcomes.layouts import LAYOUTS, read_records, take_in, write_export
from r2reasoner.outcomes.records import content_id, to_row
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.types import Role
from recorded import answered, outcome

JUDGED = [
    Judged("2 + 3", "small", right=True, cost=7),
    Judged("2 + 3", "large", right=True, cost=900),
    Judged("# [ 2 + 3 ] * 4", "small", right=False, cost=None),
]


@pytest.fixture
def store(tmp_path: Path) -> OutcomeStore:
    store = OutcomeStore.open(tmp_path / "store")
    for key in "ab":
        store.put(answered(key, answer=f"ünd {key}\n"))
        store.add(outcome(key))
    return store


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    write_outcomes(Measured(outcomes=list(JUDGED)), tmp_path / "mine.npz")
    return tmp_path / "mine.jsonl"


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class TestExport:
    @pytest.mark.parametrize("ending", ["jsonl", "parquet"])
    def test_a_store_comes_back_from_its_export(
        self, store: OutcomeStore, tmp_path: Path, ending: str
    ) -> None:
        file = tmp_path / f"all.{ending}"
        assert write_export(store, file) == 4
        name, records, skipped = read_records(file)
        assert (name, skipped) == ("export", {})
        with OutcomeStore.open(tmp_path / "other") as other:
            assert take_in(records, other) == (2, 2, 0)
            assert take_in(records, other) == (0, 0, 4)
            assert other.answers() == store.answers()
            assert other.outcomes() == store.outcomes()

    def test_another_ending_is_refused(self, store: OutcomeStore, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"ends in \.jsonl or \.parquet"):
            write_export(store, tmp_path / "all.csv")


class TestImport:
    def test_what_calibrate_measured(self, calibration: Path, store: OutcomeStore) -> None:
        name, records, _ = read_records(calibration)
        assert name == "calibration"
        assert take_in(records, store) == (3, 3, 0)
        assert take_in(records, store) == (0, 0, 6)
        answers = {a.key: a for a in store.answers() if a.source == "calibration"}
        judged = [o for o in store.outcomes() if o.source == "calibration"]
        assert [(o.item, o.model, o.score) for o in judged] == [
            (content_id(j.text), j.model, float(j.right)) for j in JUDGED
        ]
        for one, measured in zip(judged, JUDGED, strict=True):
            answer = answers[one.key]
            assert json.loads(answer.prompt) == [{"role": "user", "content": measured.text}]
            assert (answer.cost, answer.model) == (measured.cost, measured.model)
            # what was not measured is unknown, not nothing
            assert (answer.answer, answer.usage, answer.latency_s) == (None, None, None)
            assert (answer.at, answer.role) == (calibration.stat().st_mtime, Role.CALIBRATION)

    def test_a_layout_may_be_named(self, calibration: Path) -> None:
        assert read_records(calibration, "calibration")[0] == "calibration"
        with pytest.raises(ConfigError, match="no layout 'other'; known: export, calibration"):
            read_records(calibration, "other")
        with pytest.raises(DataError, match=r"mine\.jsonl:1: expected a row of layout 'export'"):
            read_records(calibration, "export")

    def test_layouts_can_be_told_apart(self) -> None:
        assert all(
            not one.fields <= two.fields
            for one in LAYOUTS.values()
            for two in LAYOUTS.values()
            if one is not two
        )

    def test_one_wrong_row_and_nothing_is_taken(self, tmp_path: Path) -> None:
        good = to_row(answered("a"))
        for bad, said in (
            ({**good, "cost": "x"}, "cost: expected int64"),
            ({**good, "role": "cook"}, "'cook' is not a valid Role"),
            ({}, "without key, kind, model, source"),
        ):
            file = write(tmp_path / "x.jsonl", good, bad)
            with pytest.raises(DataError, match=rf"x\.jsonl:2: .*{said}"):
                read_records(file)

    @pytest.mark.parametrize(
        "changed", [{"text": 3}, {"right": 1}, {"right": None}, {"cost": 0.5}, {"cost": -1}]
    )
    def test_a_wrong_row_of_a_calibration(self, tmp_path: Path, changed: dict[str, Any]) -> None:
        row = {"text": "a", "model": "m", "right": True, "cost": 3}
        file = write(tmp_path / "x.jsonl", row, row | changed)
        with pytest.raises(DataError, match=r"x\.jsonl:2: expected a row of layout 'calibration'"):
            read_records(file)

    def test_files_of_no_layout(self, tmp_path: Path) -> None:
        file = write(tmp_path / "x.jsonl", {"question": "?", "answer": "!"})
        with pytest.raises(DataError, match=r"layouts: export, calibration, .*; got the fields"):
            read_records(file)
        for text, said in (
            ("", "no rows"),
            ("\n\n", "no rows"),
            ("[1]\n", r"x\.jsonl:1: expected JSON lines"),
            ('\n{"a":', r"x\.jsonl:2: expected JSON lines"),
            ("\udcff\n", r"x\.jsonl:1: expected JSON lines"),
        ):
            file.write_text(text, errors="surrogateescape")
            with pytest.raises(DataError, match=said):
                read_records(file)
        with pytest.raises(DataError, match=r"none\.jsonl: cannot be read: No such file"):
            read_records(tmp_path / "none.jsonl")
        (tmp_path / "x.parquet").write_text("no")
        with pytest.raises(DataError, match=r"x\.parquet: expected a Parquet file"):
            read_records(tmp_path / "x.parquet")
