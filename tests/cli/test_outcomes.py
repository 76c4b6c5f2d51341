import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from r2reasoner.calibrate import Measured, write_outcomes
from r2reasoner.cli.app import app
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.estimate import Outcome as Judged
from r2reasoner.outcomes.store import OutcomeStore
from recorded import answered, outcome


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["outcomes", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    with OutcomeStore.open(folder) as opened:
        for number in range(3):
            opened.put(answered(str(number), model="small"))
            opened.add(outcome(str(number), subtask=number, score=float(number == 0)))
        opened.put(answered("x", model="[bold]large", cost=None, source="\x1b[31msearch"))
    return folder


class TestStats:
    def test_tables(self, store: Path) -> None:
        lines = run("stats", store).stdout.splitlines()
        assert lines[0].split() == [
            "model", "answers", "in", "out", "cost", "latency", "judged", "right", "coverage",
        ]  # fmt: skip
        large, small = lines[1:3]
        assert large.split()[:4] == ["[bold]large", "1", "5", "3"]
        assert "$0.0000 + 1 unknown" in large
        assert small.split() == [
            "small", "3", "15", "9", "24.00", "µ$", "0.250", "s", "3", "33.3", "%", "100.0", "%",
        ]  # fmt: skip
        assert any(line.split() == ["exact", "0", "3"] for line in lines)
        assert any(line.split() == ["\ufffd[31msearch", "1", "0"] for line in lines)
        assert lines[-1] == (
            "4 answers, 3 outcomes; 3 subtasks of 1 items judged,"
            " 50.0 % of them for each model on average"
        )

    def test_json(self, store: Path) -> None:
        shown = document("stats", store)
        assert (shown["items"], shown["places"], shown["coverage"]) == (1, 3, 0.5)
        large, small = shown["models"]
        assert small == {
            "model": "small",
            "answers": 3,
            "outcomes": 3,
            "judged": 3,
            "right": pytest.approx(1 / 3),
            "unpriced": 0,
            "latency_s": 0.25,
            "coverage": 1.0,
            "input_tokens": 15,
            "output_tokens": 9,
            "cached_tokens": 6,
            "reasoning_tokens": 3,
            "cost_pico": 24_000_000,
            "cost_dollars": "0.000024",
        }
        assert (large["right"], large["unpriced"]) == (None, 1)
        assert shown["sources"][0] == {"source": "\x1b[31msearch", "answers": 1, "outcomes": 0}

    def test_an_empty_store(self, tmp_path: Path) -> None:
        OutcomeStore.open(tmp_path / "s").close()
        assert run("stats", tmp_path / "s").stdout.endswith("\n0 answers, 0 outcomes\n")
        assert document("stats", tmp_path / "s")["models"] == []

    def test_a_store_that_is_not_there_is_not_made(self, tmp_path: Path) -> None:
        for command in (("stats",), ("export", "--out", tmp_path / "x.jsonl")):
            with pytest.raises(ConfigError, match="no outcome store here"):
                run(*command, tmp_path / "none")
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_store_is_refused_by_name(self, store: Path) -> None:
        shard = next(store.glob("*.parquet"))
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(DataError, match=shard.name):
            run("stats", store)


class TestFiles:
    @pytest.mark.parametrize("ending", ["jsonl", "parquet"])
    def test_an_export_can_be_imported(self, store: Path, tmp_path: Path, ending: str) -> None:
        file = tmp_path / f"all.{ending}"
        assert run("export", store, "--out", file).stdout == f"{file}: 7 records\n"
        other = tmp_path / "other"
        assert run("import", file, "--out", other).stdout == (
            f"{other}: 4 answers and 3 outcomes added (export), 0 were there already\n"
        )
        assert document("stats", other) == document("stats", store)
        assert document("import", file, "--out", store) == {
            "store": str(store),
            "file": str(file),
            "layout": "export",
            "answers": 0,
            "outcomes": 0,
            "held": 7,
        }

    @pytest.mark.parametrize("named", ["mine.jsonl", "mine.npz"])
    def test_a_pools_measured_outcomes_can_be_imported(self, tmp_path: Path, named: str) -> None:
        judged = [Judged("2 + 3", model, model == "large", 5) for model in ("small", "large")]
        write_outcomes(Measured(outcomes=judged), tmp_path / "mine.npz")
        taken = document("import", tmp_path / named, "--out", tmp_path / "store")
        assert (taken["layout"], taken["answers"], taken["outcomes"]) == ("calibration", 2, 2)
        rows = {row["model"]: row for row in document("stats", tmp_path / "store")["models"]}
        assert (rows["small"]["right"], rows["large"]["right"]) == (0.0, 1.0)
        assert rows["small"]["cost_pico"] == 5

    def test_a_wrong_file_makes_no_store(self, tmp_path: Path) -> None:
        (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
        (tmp_path / "alone.npz").write_text("")
        for name, said in (
            ("x.jsonl", "one of these layouts"),
            ("none.jsonl", r"none\.jsonl: no such file; expected"),
            ("alone.npz", r"alone\.jsonl: no such file \(alone\.npz is what was learned from it\)"),
        ):
            with pytest.raises((ConfigError, DataError), match=said):
                run("import", tmp_path / name, "--out", tmp_path / "store")
        assert not (tmp_path / "store").exists()


def test_an_error_is_one_line_for_people_and_one_document_for_programs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "r2reasoner.cli.app", "outcomes", "stats", str(tmp_path)]
    script = "import sys; from r2reasoner.cli.app import main; sys.argv[0] = 'r2'; main()"
    command[1:3] = ["-c", script]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr == f"error: {tmp_path}: no outcome store here (no manifest.json)\n"
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert json.loads(told.stdout)["error"]["type"] == "ConfigError"
