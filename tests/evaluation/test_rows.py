import resource
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_samples import closing, entry
from ledger_samples import trace as sample_trace
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.evaluation.rows import ItemRow, RowsFile, critical_path_s, latency_s
from r2reasoner.types import Plan, Role, Step, Subtask

ROW = ItemRow(
    context="c",
    benchmark="b",
    split="s",
    strategy="r2",
    item="i0",
    pool="p",
    seed=0,
    settings="t",
    right=True,
    scored=True,
    answer="x",
    status="complete",
    error=None,
    workers_cost=1,
    net_cost=2,
    calls=3,
    latency_s=0.5,
    critical_path_s=0.4,
    plan_failed=False,
    decomposed=True,
    subtasks=2,
    models={"m": 2},
    fell_back=False,
    reached=True,
    trace="t0",
)
LINES = 3


def written(folder: Path) -> Path:
    file = folder / "rows.jsonl"
    with RowsFile(file) as rows:
        for n in range(LINES):
            rows.append(replace(ROW, item=f"i{n}", answer="naïve \ud800\n" * n))
    return file


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    with RowsFile(written(tmp_path)) as rows:
        assert [row.item for row in rows.rows.values()] == ["i0", "i1", "i2"]
        assert rows.rows[ROW.key] == replace(ROW, answer="")
        assert rows.rows[replace(ROW, item="i2").key].answer == "naïve ?\n" * 2
        rows.append(replace(ROW, right=False))
    with RowsFile(rows.path) as rows:
        assert len(rows.rows) == LINES
        assert not rows.rows[ROW.key].right


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1))
def test_a_last_line_cut_anywhere_is_dropped_and_the_rest_is_kept(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    file = written(tmp_path_factory.mktemp("rows"))
    lines = file.read_bytes().splitlines(keepends=True)
    kept = lines[-1][: int(share * (len(lines[-1]) - 1))]
    file.write_bytes(b"".join(lines[:-1]) + kept)
    with RowsFile(file) as rows:
        assert len(rows.rows) == LINES - 1
        rows.append(replace(ROW, item="i2", answer="naïve \ud800\n" * 2))
    assert file.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": 1}\n', 1),
        ("my notes, no newline at the end", 1),
        ('{"context": "c", "strategy": "r2", "item": "i"}\n', 1),
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=f"rows.jsonl:{line}: expected a row"), RowsFile(file):
        pass
    assert file.read_text() == text


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    file = written(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1].replace(b"true", b"trup") + lines[2])
    with pytest.raises(DataError, match=r"rows.jsonl:2: expected a row"), RowsFile(file):
        pass


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    file = written(tmp_path)
    with (
        RowsFile(file),
        pytest.raises(ConfigError, match="another evaluation is writing"),
        RowsFile(file),
    ):
        pass


def test_a_file_that_cannot_grow_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = written(tmp_path)
    whole = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RowsFile(file) as rows:
        rows.append(ROW)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 9, limits[1]))
        try:
            with pytest.raises(DataError, match=r"rows.jsonl: cannot be written: no space left"):
                rows.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with RowsFile(file) as rows:
        assert len(rows.rows) == LINES
    assert file.read_bytes() == whole


@pytest.mark.parametrize("path", ["/dev/zero", "."])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="expected a file to write rows to"), RowsFile(Path(path)):
        pass


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="cannot be written"),
        RowsFile(tmp_path / "file" / "rows.jsonl"),
    ):
        pass


def test_the_critical_path_is_the_longest_chain_with_the_routing_before_it() -> None:
    plan = Plan((Subtask("a"), Subtask("b"), Subtask("c #1"), Subtask("d #2 #3")), "#4")
    seconds = (1.0, 5.0, 2.0, 4.0)
    steps = tuple(Step(n, "m", "", "x", None, 10.0, 10.0 + s) for n, s in enumerate(seconds, 1))
    trace = replace(sample_trace(), plan=plan, steps=steps, calls=())
    assert critical_path_s(trace) == 9.0


def test_calls_on_record_take_what_they_took_when_they_were_made() -> None:
    plan = Plan((Subtask("a"), Subtask("b"), Subtask("c #1 #2")), "#3")
    steps = tuple(Step(n, "m", "", "x", None, 0.0, s) for n, s in enumerate((0.1, 2.0, 0.5), 1))
    routing = replace(closing(entry(role=Role.ALLOCATOR)), attempt=0, subtask=1, latency_s=1.0)
    again = replace(closing(entry()), attempt=0, subtask=1, latency_s=3.0)
    failed = replace(again, attempt=1, latency_s=0.25)
    trace = replace(sample_trace(), plan=plan, steps=steps, calls=(routing, failed, again))
    assert critical_path_s(trace) == 1.0 + 3.25 + 0.5
    assert latency_s(replace(trace, wall_s=0.6)) == critical_path_s(trace)
    assert latency_s(replace(trace, wall_s=9.0)) == 9.0
    assert latency_s(replace(trace, wall_s=0.6, calls=(failed,))) == 0.6


def test_rows_of_before_there_were_stores_are_read(tmp_path: Path) -> None:
    file = written(tmp_path)
    later = b', "on_record": 0, "score": null}'
    file.write_bytes(file.read_bytes().replace(later, b"}"))
    assert b"on_record" not in file.read_bytes()
    with RowsFile(file) as rows:
        assert rows.rows[ROW.key].on_record == 0
        assert rows.rows[ROW.key].score is None
