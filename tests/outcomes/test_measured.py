from pathlib import Path

import numpy as np
import pytest

from measured_files import COST, EACH, measured, rows, write
from pools import pool_at
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes.layouts import read_records
from r2reasoner.outcomes.layouts.own import take_in
from r2reasoner.outcomes.measured import query_outcomes, raw_files, subtask_outcomes
from r2reasoner.outcomes.store import OutcomeStore

POOL = "http://mock/v1"


def test_a_calibrated_file_is_a_table_of_texts_and_workers(tmp_path: Path) -> None:
    found = subtask_outcomes(pool_at(POOL, outcomes=measured(tmp_path, "add", "prove")))
    assert found.models == ("small", "medium", "large")
    assert len(found) == 2 * EACH
    assert found.texts[0] == "add 0 and 7 apples"
    assert found.scores[0].tolist() == [1, 1, 1]
    assert found.scores[-1].tolist() == [0, 0, 1]
    assert found.prices[0].tolist() == [cost / 1e12 for cost in COST.values()]
    assert set(found.groups) == {""}


def test_subtasks_and_whole_queries_stand_apart(tmp_path: Path) -> None:
    write(tmp_path / "o.jsonl", rows("add"))
    write(tmp_path / "o.queries.jsonl", rows("prove"))
    pool = pool_at(POOL, outcomes=tmp_path / "o.npz")
    assert subtask_outcomes(pool).texts[0].startswith("add")
    assert query_outcomes(pool).texts[0].startswith("prove")


def test_a_packed_file_is_read_as_a_plain_one(tmp_path: Path) -> None:
    plain = subtask_outcomes(pool_at(POOL, outcomes=measured(tmp_path, "add")))
    packed = write(tmp_path / "packed.jsonl.gz", rows("add"))
    found = subtask_outcomes(pool_at(POOL, outcomes=tmp_path / "packed.npz"))
    assert raw_files(tmp_path / "packed.npz") == (packed,)
    assert found.texts == plain.texts
    assert np.array_equal(found.scores, plain.scores)


def test_several_answers_of_one_model_count_as_their_mean_and_others_models_not_at_all(
    tmp_path: Path,
) -> None:
    line = {"text": "a", "model": "large", "right": True, "cost": 4}
    lines = [line, line | {"right": False, "cost": 8}, line | {"model": "stranger"}]
    lines += [line | {"text": "b", "cost": None}, line | {"text": "b", "model": "small"}]
    write(tmp_path / "o.jsonl", lines)
    found = subtask_outcomes(pool_at(POOL, outcomes=tmp_path / "o.npz"))
    assert found.models == ("small", "large")
    assert found.scores[0, 1] == 0.5
    assert found.prices[0, 1] == 6e-12
    assert np.isnan(found.scores[0, 0])
    assert np.isnan(found.prices[1, 1])


def test_a_store_serves_as_well(tmp_path: Path) -> None:
    file = write(tmp_path / "o.jsonl", rows("add", "prove"))
    with OutcomeStore.open(tmp_path / "store") as store:
        take_in(read_records(file).records, store)
    pool = pool_at(POOL, outcomes=tmp_path / "store")
    found = query_outcomes(pool)
    assert found.models == ("small", "medium", "large")
    assert sorted(found.texts) == sorted({str(row["text"]) for row in rows("add", "prove")})
    assert found.scores.sum() == 4 * EACH


def test_what_was_not_measured_is_told_with_the_command_that_does_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not measured on such texts; `r2reasoner calibrate"):
        subtask_outcomes(pool_at(POOL))
    write(tmp_path / "o.jsonl", rows("add"))
    pool = pool_at(POOL, outcomes=tmp_path / "o.npz")
    with pytest.raises(ConfigError, match=r"o\.queries\.jsonl\); `.* --whole` does it"):
        query_outcomes(pool)
    strangers = pool_at(POOL, workers=("x",), outcomes=tmp_path / "o.npz")
    with pytest.raises(ConfigError, match="knows none of the pool's workers, but small"):
        subtask_outcomes(strangers)


@pytest.mark.parametrize(
    "line", ["{", "3", '{"text": "a"}', '{"text": 1, "model": "m", "right": true, "cost": 1}']
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    file = write(tmp_path / "o.jsonl", list(rows("add"))[:2])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"o\.jsonl, line 3: expected an outcome with text, model"):
        subtask_outcomes(pool_at(POOL, outcomes=tmp_path / "o.npz"))


def test_an_empty_file_and_a_cut_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_text("")
    with pytest.raises(DataError, match="empty"):
        subtask_outcomes(pool_at(POOL, outcomes=tmp_path / "o.npz"))
    file = write(tmp_path / "cut.jsonl.gz", rows("add"))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="EOFError"):
        subtask_outcomes(pool_at(POOL, outcomes=tmp_path / "cut.npz"))
