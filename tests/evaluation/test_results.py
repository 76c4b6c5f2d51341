import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_rows import ROW

from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.results import pareto_front, summarise, write_result
from r2reasoner.evaluation.rows import ItemRow


def rows(strategy: str, right: Sequence[bool | None], cost: int | None = 3) -> list[ItemRow]:
    return [
        replace(
            ROW,
            strategy=strategy,
            item=f"i{n}",
            right=verdict is True,
            scored=verdict is not None,
            workers_cost=cost and 2 * cost,
            net_cost=cost and 3 * cost,
        )
        for n, verdict in enumerate(right)
    ]


def test_figures_are_means_over_items_and_exact() -> None:
    mixed = rows("r2", [True, True, False, None])
    mixed[0] = replace(mixed[0], plan_failed=True, decomposed=False, net_cost=10**20 + 1)
    mixed[1] = replace(mixed[1], fell_back=True, models={"m": 1, "n": 3})
    mixed[2] = replace(mixed[2], status="failed", error="gone", models={}, latency_s=2.5)
    (figures,) = summarise([mixed], seed=0).rows
    assert (figures["n"], figures["accuracy"], figures["unscored"]) == (4, 2 / 3, 1)
    assert figures["net_cost"] == (10**20 + 1 + 27) / 4 / 10**12
    assert figures["workers_cost"] == 6e-12
    assert (figures["calls"], figures["latency_s"], figures["subtasks"]) == (3.0, 1.0, 2.0)
    assert (figures["plan_failures"], figures["failed"], figures["fell_back"]) == (1, 1, 1)
    assert figures["decomposed_share"] == 0.75
    assert figures["model_share"] == {"m": 5 / 8, "n": 3 / 8}


def test_an_unknown_cost_makes_the_mean_unknown_and_nothing_scored_no_accuracy() -> None:
    priced, unpriced = rows("r2", [None, None]), rows("cot", [None, None])
    unpriced[1] = replace(unpriced[1], workers_cost=None, net_cost=None)
    summary = summarise([priced, unpriced], seed=0)
    assert [row["net_cost"] for row in summary.rows] == [9e-12, None]
    assert [(row["accuracy"], row["ci95"]) for row in summary.rows] == [(None, None)] * 2
    (comparison,) = summary.comparisons
    assert comparison["net_cost_ratio"] is None
    assert comparison["net_cost_ratio_ci95"] is None
    assert comparison["accuracy_difference"] is None


def test_ours_is_compared_with_each_other_strategy_item_by_item() -> None:
    ours = rows("r2", [True] * 30 + [False] * 10)
    theirs = rows("cot", [True] * 20 + [False] * 20, cost=12)
    theirs[0] = replace(theirs[0], scored=False)
    summary = summarise([theirs, ours, rows("r2@1", [False] * 40)], seed=0)
    pairs = [(c["strategy"], c["against"]) for c in summary.comparisons]
    assert pairs == [("r2", "cot"), ("r2@1", "cot")]
    first = summary.comparisons[0]
    assert first["accuracy_difference"] == 10 / 39
    assert first["accuracy_difference_ci95"] is not None
    assert 0 < first["accuracy_difference_ci95"][0] < 10 / 39 < first["accuracy_difference_ci95"][1]
    assert (first["net_cost_ratio"], first["net_cost_ratio_ci95"]) == (0.25, [0.25, 0.25])


def test_a_score_has_a_mean_over_what_was_judged_and_is_left_out_where_there_is_none() -> None:
    scored = rows("r2", [True, False, False, None])
    scores = (1.0, 0.5, 0.0, None)
    scored = [replace(row, score=score) for row, score in zip(scored, scores, strict=True)]
    with_score, without = summarise([scored, rows("cot", [True] * 4)], seed=0).rows
    assert with_score["score"] == 0.5
    ends = with_score["score_ci95"]
    assert ends is not None
    assert 0 <= ends[0] < 0.5 < ends[1] <= 1
    assert "score" not in without


def test_several_seeds_are_one_mean_and_an_interval_over_the_items() -> None:
    verdicts = [[True] * 30 + [False] * 10, [False] * 10 + [True] * 30]
    drawn = [
        replace(row, seed=seed, net_cost=6 * (seed + 1))
        for seed, right in enumerate(verdicts)
        for row in rows("r2", right)
    ]
    fixed = rows("cot", [True] * 20 + [False] * 20, cost=3)
    summary = summarise([drawn, fixed], seed=0)
    ours, other = summary.rows
    assert (ours["n"], ours["accuracy"], ours["net_cost"]) == (40, 0.75, 9e-12)
    assert (ours["seeds"], ours["accuracy_by_seed"]) == ([0, 1], [0.75, 0.75])
    assert "seeds" not in other
    (comparison,) = summary.comparisons
    assert comparison["n"] == 40
    assert comparison["accuracy_difference"] == 0.25
    assert (comparison["net_cost_ratio"], comparison["net_cost_ratio_ci95"]) == (1.0, [1.0, 1.0])


def test_a_seed_more_with_the_same_answers_changes_no_figure() -> None:
    once = rows("r2", [True, False, None, True, False])
    twice = [replace(row, seed=seed) for seed in (0, 1) for row in once]
    others = rows("cot", [False, True, True, True, False], cost=7)
    one, two = (summarise([own, others], seed=3) for own in (once, twice))
    assert one.comparisons == two.comparisons
    before, after = one.rows[0], two.rows[0]
    assert (before["n"], before["accuracy"], before["ci95"], before["net_cost"]) == (
        *(after["n"], after["accuracy"], after["ci95"]),
        after["net_cost"],
    )
    assert (before["unscored"], after["unscored"]) == (1, 2)


def test_the_front_is_what_nobody_beats() -> None:
    points = [
        ("best", 0.9, 9.0),
        ("same", 0.9, 9.0),
        ("dearer", 0.9, 10.0),
        ("worse", 0.8, 9.5),
        ("cheap", 0.5, 1.0),
        ("unknown", 1.0, None),
        ("unscored", None, 0.1),
        ("oracle", 1.0, 0.1),
    ]
    assert pareto_front(points) == {"best", "same", "cheap"}


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "result.json"
    write_result(file, {"rows": [1]})
    assert json.loads(file.read_text()) == {"rows": [1]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(file, {"rows": [float("nan")]})
    assert json.loads(file.read_text()) == {"rows": [1]}
    assert [f.name for f in file.parent.iterdir()] == ["result.json"]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_result(file / "below.json", {})
