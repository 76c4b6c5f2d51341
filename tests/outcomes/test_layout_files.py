from pathlib import Path

import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.layouts.files import read_rows


def test_lines_are_counted_as_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert [(n, row["a"]) for n, row in read_rows(file)] == [(1, 1), (3, 2)]


def test_a_document_gives_its_own_fields_to_its_records(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"model": "m", "cost": 9, "more": {}, "records": [{"cost": 1}, {}]}')
    assert [tuple(each) for each in read_rows(file)] == [
        (1, {"model": "m", "cost": 1}),
        (2, {"model": "m", "cost": 9}),
    ]


def test_csv_with_quotes_and_long_fields(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    long = "word " * 50_000
    file.write_text(f'\ufeffa,b\n"1\n2","say ""x"""\n{long},\n')
    assert [row for _, row in read_rows(file)] == [
        {"a": "1\n2", "b": 'say "x"'},
        {"a": long, "b": ""},
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"a,b\n1\n", r"x\.csv:1: expected 2 columns"),
        ("x.csv", b"a,b\n1,2,3\n", r"x\.csv:1: expected 2 columns"),
        ("x.csv", b"a\n\xff\n", r"x\.csv: expected CSV in UTF-8"),
        ("x.json", b'{"records": [1]}', "a list of `records`"),
        ("x.json", b"{", "a list of `records`"),
        ("x.pkl", b"cos\nsystem\n", "a pickle runs code when it is loaded"),
    ],
)
def test_files_that_are_no_rows(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_rows(tmp_path / name)
