from pathlib import Path

import pytest

from r2reasoner.benchmarks import BENCHMARKS, open_benchmark
from r2reasoner.errors import ConfigError
from r2reasoner.nano import scan


def test_scan_reads_commands_and_wants_the_whole_sequence(tmp_path: Path) -> None:
    file = tmp_path / "scan.jsonl"
    file.write_text('{"command": "walk twice", "actions": "I_WALK I_WALK"}\n')
    (item,) = open_benchmark("scan").load(file)
    grade = BENCHMARKS["scan"].grade
    assert grade(scan.interpret(item.query), item.gold) is True
    assert grade("I_WALK", item.gold) is False


def test_arithmetic_reads_expressions_and_wants_the_number(tmp_path: Path) -> None:
    file = tmp_path / "arithmetic.jsonl"
    file.write_text('{"expression": "1 + 2", "value": 3}\n')
    (item,) = open_benchmark("arithmetic").load(file)
    grade = BENCHMARKS["arithmetic"].grade
    assert (item.query, item.gold) == ("1 + 2", "3")
    assert grade("1 + 2 is 3.0", item.gold) is True
    assert grade("4", item.gold) is False


def test_chat_models_are_told_every_word_of_scan() -> None:
    told = BENCHMARKS["scan"].instruction
    words = {w for w in (*scan.ACTIONS, *scan.WORDS) if w not in ("walk", "look", "run", "jump")}
    assert all(word in told for word in words)


def test_an_own_file_has_the_scorer_that_is_named() -> None:
    assert open_benchmark("data/mine.jsonl").grade("7.0", "7") is False
    own = open_benchmark("data/mine.jsonl", "number")
    assert (own.name, own.grade("7.0", "7")) == ("mine", True)


@pytest.mark.parametrize(
    ("name", "scorer", "says"),
    [
        ("scam", None, "no benchmark 'scam'; known: p3, scan, math"),
        ("scan", "exact", "scan has its own scorer"),
        ("mine.jsonl", "close", "no scorer 'close'; known: exact, number, sequence"),
    ],
)
def test_what_is_unknown_is_told_with_what_is_known(
    name: str, scorer: str | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        open_benchmark(name, scorer)


def test_the_six_benchmarks_and_arithmetic_have_their_files() -> None:
    assert list(BENCHMARKS) == ["p3", "scan", "math", "champ", "csqa", "musique", "arithmetic"]
    for benchmark in BENCHMARKS.values():
        assert benchmark.default_split in benchmark.files
        assert benchmark.wanted
        hash(benchmark)
