from pathlib import Path
from typing import Any

import pytest

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes.layouts import LAYOUTS, REFUSED, read_records, take_in
from r2reasoner.outcomes.store import OutcomeStore
from shared_rows import SHARED, taken_in, write_rows

MMLU: dict[str, Any] = {
    "domain": "law",
    "prompt": "Is it?",
    "weak_correct": True,
    "strong_correct": False,
}
PUZZLE = {"name": "S:0", "sat": "def sat(x): ...", "engine_results": {"short": {}}}


def test_a_folder_is_recognised_by_its_fields_alone(tmp_path: Path) -> None:
    folder = tmp_path / "p3_codex_outcomes"
    folder.mkdir()
    (folder / "README.md").write_text("not rows")
    write_rows(folder / "some.jsonl", MMLU)
    taken = read_records(folder)
    assert taken.layout == "routellm_mmlu"
    assert {r.source for r in taken.records} == {"routellm_mmlu"}


def test_files_of_one_layout_are_one_set(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", MMLU)
    write_rows(tmp_path / "b.jsonl", MMLU | {"prompt": "Was it?"})
    assert len(read_records(tmp_path).records) == 8
    write_rows(tmp_path / "b.jsonl", MMLU | {"weak_correct": False})
    with pytest.raises(DataError, match=r"b\.jsonl:1: the same item as .*a\.jsonl:1 with another"):
        read_records(tmp_path)


def test_mixed_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*without domain, .* it has name, sat"):
        taken_in(tmp_path, MMLU, PUZZLE)
    write_rows(tmp_path / "rows.jsonl", MMLU)
    write_rows(tmp_path / "other.jsonl", PUZZLE)
    said = "files of several layouts: other.jsonl is p3_codex_outcomes, rows.jsonl is routellm_mmlu"
    with pytest.raises(DataError, match=said):
        read_records(tmp_path)
    write_rows(tmp_path / "other.jsonl", {"a": 1})
    with pytest.raises(DataError, match=r"other\.jsonl: expected rows of one of these layouts"):
        read_records(tmp_path)


def test_what_holds_no_outcomes_says_so(tmp_path: Path) -> None:
    for layout in REFUSED:
        row = dict.fromkeys(layout.fields, "x")
        with pytest.raises(DataError, match=f"this is {layout.name}, which has .* outcome"):
            taken_in(tmp_path, row)
    write_rows(tmp_path / "rows.jsonl", "")
    with pytest.raises(DataError, match=r"rows\.jsonl: no rows"):
        read_records(tmp_path)
    (tmp_path / "rows.jsonl").rename(tmp_path / "rows.txt")
    with pytest.raises(DataError, match="no file that ends in"):
        read_records(tmp_path)


@pytest.mark.parametrize("folder", ["open_agent_leaderboard", "dot_decompositions"])
def test_shared_sets_without_outcomes(folder: str) -> None:
    if not (SHARED / folder).exists():
        pytest.skip(f"no shared data at {SHARED / folder}")
    with pytest.raises(DataError, match=f"this is {folder}, which has"):
        read_records(SHARED / folder)


def test_a_layout_may_be_named_for_a_folder(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", MMLU)
    assert read_records(tmp_path, "routellm_mmlu").layout == "routellm_mmlu"
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*'p3_codex_outcomes': without engine_"):
        read_records(tmp_path, "p3_codex_outcomes")
    with pytest.raises(ConfigError, match="no layout 'none'; known: export"):
        read_records(tmp_path, "none")


def test_nothing_of_a_bad_set_is_taken(tmp_path: Path) -> None:
    good = taken_in(tmp_path, MMLU).records
    with OutcomeStore.open(tmp_path / "store") as store:
        assert take_in(good, store) == (2, 2, 0)
        assert take_in(good, store) == (0, 0, 4)
        other = taken_in(
            tmp_path, MMLU | {"prompt": "Was it?"}, MMLU | {"strong_correct": True}
        ).records
        with pytest.raises(DataError, match="stands in the store with another verdict of gpt-4"):
            take_in(other, store)
        assert (len(store), len(store.outcomes())) == (2, 2)


def test_every_layout_has_the_name_of_its_folder() -> None:
    assert {layout.folder for layout in LAYOUTS.values()} >= {
        *("csqa_dev_outcomes", "dot_query_outcomes", "dot_step_allocations"),
        *("gsm8k_four_systems", "llmrouter_nine_models", "p3_codex_outcomes"),
        *("routellm_gsm8k", "routellm_mmlu", "routellm_mtbench", "routerarena_sub10"),
        *("routerbench", "llmrouterbench"),
    }
