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
            "skipped": {},
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


class TestJudge:
    @pytest.fixture
    def judged(self, tmp_path: Path) -> Path:
        rows = [
            {
                "domain": "law" if i % 2 else "art",
                "prompt": f"Question {i} of {'law' if i % 2 else 'art'}?",
                "weak_correct": i % 2 == 0,
                "strong_correct": i % 10 != 0,
            }
            for i in range(120)
        ]
        for name, part in (("train", rows[:80]), ("test", rows[70:])):
            file = tmp_path / f"{name}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in part))
            run("import", file, "--out", tmp_path / name)
        return tmp_path

    def test_a_result_file(self, judged: Path) -> None:
        out = judged / "result.json"
        shown = run(
            *("judge", "--train", judged / "train", "--test", judged / "test"),
            *("--router", "group,knn", "--out", out, "--draws", 50),
        ).stdout
        assert "routellm_mmlu: 40 items" in shown
        assert "best single" in shown
        result = json.loads(out.read_text())
        rows = {row["router"]: row for row in result["rows"]}
        assert list(rows) == ["random", "best single", "oracle", "group", "knn"]
        assert rows["group"]["apgr"] > 0.6
        assert rows["random"]["apgr"] == pytest.approx(0.5)
        assert result["sets"][0]["dropped_test_items"] == 10
        assert [row["against"] for row in result["comparisons"]] == ["knn"]
        assert result["provenance"]["stores"]["train"]["name"] == "train"
        assert len(result["provenance"]["stores"]["test"]["sha256"]) == 64
        assert str(judged) not in json.dumps(result["provenance"]["stores"])

    def test_cross_validation_as_json(self, judged: Path) -> None:
        found = document(
            *("judge", "--train", judged / "train", "--router", "group"),
            *("--folds", 4, "--repeats", 2, "--draws", 20, "--set", "routellm_mmlu"),
        )
        assert [row["n"] for row in found["rows"]] == [80] * 4
        assert found["settings"] == {"folds": 4, "repeats": 2, "draws": 20, "seed": 0}

    def test_names_that_there_are_not(self, judged: Path) -> None:
        with pytest.raises(ConfigError, match="no router 'none'; known: "):
            run("judge", "--train", judged / "train", "--router", "none")
        with pytest.raises(ConfigError, match="no outcome set 'none'; it has routellm_mmlu"):
            run("judge", "--train", judged / "train", "--router", "knn", "--set", "none")
        with pytest.raises(ConfigError, match="expected names with commas between"):
            run("judge", "--train", judged / "train", "--router", ",")


def test_steps(tmp_path: Path) -> None:
    rows = []
    for i in range(24):
        steps = ["Prove it.", "Add."] if i % 2 else ["Add.", "Prove it."]
        tries = [["gpt-4-turbo", "llama3-8b"], ["llama3-8b", "gpt-4-turbo"]]
        rows.append(
            {
                "benchmark": "MATH",
                "question_id": i,
                "decomposition_id": 0,
                "question": f"Question {i}",
                "steps": steps,
                "edges": [],
                "trials": [
                    {
                        "allocation": [[n, model] for n, model in enumerate(tried, 1)],
                        "correct": tried[steps.index("Prove it.")] == "gpt-4-turbo",
                    }
                    for tried in tries
                ],
            }
        )
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("import", file, "--out", tmp_path / "store")
    out = tmp_path / "steps.json"
    shown = run("steps", "--train", tmp_path / "store", "--folds", 3, "--out", out).stdout
    assert "all strong" in shown
    assert "learned against lottery" in shown
    found = json.loads(out.read_text())
    learned = [row for row in found["rows"] if row["arm"] == "learned, recorded"]
    assert learned[0]["success"] == 1.0
    assert found["provenance"]["seed"] == 0


def test_rows_that_are_left_out_are_said(tmp_path: Path) -> None:
    label = {
        "benchmark": "SCAN",
        "question": "jump",
        "all_subtasks": "step1: Read.; step2: ",
        "subtask": "",
        "difficulty": 1,
    }
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps(label | {"subtask": "Read."}) + "\n" + json.dumps(label) + "\n")
    shown = run("import", file, "--out", tmp_path / "store").stdout
    assert "left out: 1 x label of an empty step" in shown
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(label) + "\n" + json.dumps(label | {"subtask": "none"}) + "\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:2: "):
        run("import", bad, "--out", tmp_path / "other")
    assert not (tmp_path / "other").exists()
