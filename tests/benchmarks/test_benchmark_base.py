from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.benchmarks.base import MAX_LINE_BYTES, Benchmark, Item
from r2reasoner.benchmarks.grading import exact, number
from r2reasoner.errors import DataError

OWN = Benchmark(
    name="own", query_field="query", gold_field="answer", grade=exact, default_split="all"
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
