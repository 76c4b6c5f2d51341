import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2reasoner.errors import ConfigError
from r2reasoner.files import write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "x"
    assert write_whole(out, iter(["a\n", "b\n"])) == 2

    def breaking() -> Iterator[str]:
        yield "c\n"
        raise ConfigError("no more")

    with pytest.raises(ConfigError, match="no more"):
        write_whole(out, breaking(), replace=True)
    assert out.read_text() == "a\nb\n"
    assert list(tmp_path.iterdir()) == [out]


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    file = tmp_path / "r2.toml"
    write_whole(file, "mine")
    with pytest.raises(ConfigError, match=r"r2\.toml exists; .* --force"):
        write_whole(file, "other")
    assert file.read_text() == "mine"
    write_whole(file, "other", replace=True)
    assert file.read_text() == "other"
    assert list(tmp_path.iterdir()) == [file]


def test_of_many_writers_one_wins_whole(tmp_path: Path) -> None:
    file = tmp_path / "r2.toml"
    texts = [str(n) * 100_000 for n in range(8)]
    refused: list[ConfigError] = []

    def run(text: str) -> None:
        try:
            write_whole(file, text)
        except ConfigError as error:
            refused.append(error)

    threads = [threading.Thread(target=run, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert file.read_text() in texts
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        write_whole(tmp_path / "none" / "r2.toml", "x")
