from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.benchmarks import CSQA
from r2reasoner.benchmarks.base import MAX_LINE_BYTES, Benchmark, Item, Verdict, text_of
from r2reasoner.benchmarks.grading import exact, number
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.types import Task

OWN = Benchmark(
    name="own", query_field="query", gold_field="answer", grade=exact, default_split="all"
)


def read(row: Mapping[str, Any]) -> Task:
    if text_of(row, "right") == "never":
        raise ValueError("right: expected something that can be")
    return Task(f"{text_of(row, 'left')}?", row["right"])


MADE = Benchmark(
    name="made",
    columns=("left", "right"),
    read=read,
    grade=exact,
    score=lambda answer, gold: len(answer) / 10,
    default_split="test",
    files={"test": "made.jsonl"},
)
GOOD = '{"query": "a", "answer": "b"}\n'


def load(folder: Path, text: str | bytes, benchmark: Benchmark = OWN) -> tuple[Item, ...]:
    file = folder / "items.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return benchmark.load(file)


def test_items_keep_their_order_and_extra_columns_are_not_read(tmp_path: Path) -> None:
    items = load(tmp_path, GOOD + "\n" + '{"query": "c", "answer": 1.50, "level": 3}\n')
    assert [(i.query, i.gold) for i in items] == [("a", "b"), ("c", "1.50")]


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_an_id_is_made_of_the_content_alone(query: str, gold: str) -> None:
    one, two = (OWN.items([{"query": query, "answer": gold, "n": n}]) for n in (1, 2))
    assert one == two
    (other,) = OWN.items([{"query": query, "answer": gold + "!"}])
    assert other.id != one[0].id


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "expected a JSON object"),
        ("[1, 2]", "expected an object with 'query' and 'answer'"),
        ('{"question": "x", "answer": "y"}', "no 'query'; expected 'query' and 'answer', got"),
        ('{"query": "x"}', "no 'answer'"),
        ('{"query": "x", "answer": ""}', "answer is empty"),
        ('{"query": " ", "answer": "y"}', "query is empty"),
        ('{"query": "x", "answer": null}', "answer: expected a text or a number"),
        ('{"query": "x", "answer": true}', "answer: expected a text or a number"),
        ('{"query": "x", "answer": NaN}', "answer: expected a text or a number"),
        ('{"query": " a ", "answer": "z"}', "the same query as at"),
        ("[" * 100_000, "expected a JSON object"),
        ('{"query": "x", "answer": ' + "9" * 5000 + "}", "expected a JSON object"),
        ('{"query": "' + "x" * MAX_LINE_BYTES + '", "answer": "y"}', "a line longer than"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(DataError, match=r"items\.jsonl:2: ") as caught:
        load(tmp_path, GOOD + line + "\n")
    assert says in str(caught.value)


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items.jsonl:2: expected a JSON object: .*utf-8"):
        load(tmp_path, GOOD.encode() + b'{"query": "\xff", "answer": "y"}\n')


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_items_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="expected one JSON object a line"):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.jsonl: cannot be read: No such file"):
        OWN.load(tmp_path / "nowhere.jsonl")


def test_a_gold_answer_that_the_scorer_cannot_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items.jsonl:1: answer 'b' is nothing to score"):
        load(tmp_path, GOOD, replace(OWN, grade=number))


def test_a_chat_model_is_told_what_to_do_and_a_plain_one_gets_the_item() -> None:
    told = replace(OWN, instruction="Do this:")
    (item,) = OWN.items([{"query": "a", "answer": "b"}])
    assert told.query(item, plain=True) == OWN.query(item, plain=False) == "a"
    assert told.query(item, plain=False) == "Do this:\na"


def test_rows_that_are_read_become_items_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    good = '{"left": "a", "right": "b"}\n'
    (item,) = load(tmp_path, good, MADE)
    assert (item.query, item.gold) == ("a?", "b")
    for line, says in (
        ('{"left": "c"}', "no 'right'; expected 'left' and 'right', got 'left'"),
        ('{"left": "c", "right": "never"}', "right: expected something that can be"),
        ('{"left": "c", "right": " "}', "right is empty"),
        ('{"left": null, "right": "x"}', "left: expected a text or a number"),
        ('{"left": " a ", "right": "x", "more": 1}', None),
        ('{"left": "a", "right": "x"}', "the same item as at "),
    ):
        if says is None:
            assert len(load(tmp_path, good + line, MADE)) == 2
            continue
        with pytest.raises(DataError, match=r"items\.jsonl:2: ") as caught:
            load(tmp_path, good + line, MADE)
        assert says in str(caught.value)


def test_rows_of_another_benchmark_are_named_as_such(tmp_path: Path) -> None:
    mixed = '{"left": "a", "right": "b"}\n{"command": "walk", "actions": "I_WALK"}\n'
    with pytest.raises(
        DataError, match=r"items\.jsonl:2: no 'left'.*: columns of scan, and a file"
    ):
        load(tmp_path, mixed, MADE)


def test_of_items_that_a_published_file_repeats_the_first_stands(tmp_path: Path) -> None:
    lines = '{"left": "a", "right": "b"}\n{"left": " a", "right": "c"}\n'
    (item,) = load(tmp_path, lines, replace(MADE, repeats=True))
    assert item.gold == "b"


def test_a_verdict_has_right_and_score() -> None:
    assert MADE.judge("b", "b") == Verdict(True, 0.1)
    assert OWN.judge("c", "b") == Verdict(False, None)


def test_a_folder_needs_a_layout(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="own has no split 'all' in a folder; known: none: give"):
        OWN.load(tmp_path)
    assert CSQA.files["dev"] == "dev.jsonl"
