import json
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.report.evidence import easy_tax, kind_namer, rows_of
from r2reasoner.report.results import Evaluated, read_result
from results_on_disk import evaluated, write


def row(strategy: str, item: int, right: bool, cost: int | None, **more: Any) -> str:
    facts = {
        "context": "c",
        "benchmark": "toy",
        "split": "all",
        "strategy": strategy,
        "item": str(item),
        "pool": "f00d" * 16,
        "seed": 0,
        "right": right,
        "net_cost": cost,
        "latency_s": 1.0,
        "trace": None,
    }
    return json.dumps(facts | more) + "\n"


@pytest.fixture
def result(tmp_path: Path) -> Evaluated:
    document = evaluated()
    for line, accuracy in zip(document["rows"], (0.75, 1.0, 0.25, 0.5), strict=True):
        line |= {"n": 4, "accuracy": accuracy, "ci95": None}
    found = read_result(write(tmp_path / "e.json", document))
    assert isinstance(found, Evaluated)
    return found


def write_rows(result: Evaluated, *lines: str) -> None:
    write(result.file.with_name(f"{result.file.name}.rows.jsonl"), "".join(lines))


def both(**more: Any) -> list[str]:
    ours = [row("r2", i, i != 3, 3_000_000, **more) for i in range(4)]
    return ours + [row("single:large", i, i in (0, 3), 1_000_000, **more) for i in range(4)]


def test_the_tax_is_over_items_that_one_call_solves(result: Evaluated) -> None:
    write_rows(result, *both(), '{"torn')
    tax = easy_tax(result, result.rows[0])
    assert tax is not None
    assert (tax.single, tax.items, tax.of, tax.still_right) == ("single:large", 2, 4, 0.5)
    assert (tax.ours_cost, tax.single_cost) == (3e-6, 1e-6)


@pytest.mark.parametrize("change", [{"pool": "other"}, {"seed": 5}, {"split": "b"}])
def test_rows_of_another_run_are_not_used(result: Evaluated, change: dict[str, Any]) -> None:
    write_rows(result, *both(**change))
    assert rows_of(result, result.rows[0]) == []
    assert easy_tax(result, result.rows[0]) is None


def test_rows_that_do_not_add_up_to_the_result_are_not_used(result: Evaluated) -> None:
    write_rows(result, *both()[1:])
    assert rows_of(result, result.rows[0]) == []


def test_an_unknown_cost_makes_no_tax(result: Evaluated) -> None:
    write_rows(result, *[line.replace("3000000", "null") for line in both()])
    assert easy_tax(result, result.rows[0]) is None


@pytest.mark.parametrize(
    ("benchmark", "text", "kind"),
    [
        ("arithmetic", "12 + 3", "2x1 +"),
        ("arithmetic", "( 12 + 3 ) * 5", "a longer expression"),
        ("scan", "walk around left", "verb around direction"),
        ("scan", "walk and run", "a whole command"),
        ("scan", "I_WALK I_RUN", None),
        ("mine", "anything", None),
    ],
)
def test_kinds_of_subtasks(benchmark: str, text: str, kind: str | None) -> None:
    assert kind_namer(benchmark)(text) == kind
