from pathlib import Path

import pytest

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes.journal import Journal, abandoned, locked, read_journal
from recorded import answered, outcome


def test_it_is_read_on_from_where_the_last_reading_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    path = tmp_path / journal.name
    assert read_journal(path) == ([], 0)
    journal.append(answered("a"))
    first = read_journal(path)
    journal.append(outcome("a"))
    journal.sync()
    with path.open("ab") as stream:
        stream.write(b"0123")  # what another process is just writing
    second = read_journal(path, first.end)
    assert (first.records, second.records) == ([answered("a")], [outcome("a")])
    assert second.end == path.stat().st_size - 4
    journal.close()


def test_a_lock_says_whether_its_process_is_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with abandoned(tmp_path / journal.name) as gone:
        assert not gone
    journal.close()
    with abandoned(tmp_path / journal.name) as gone:
        assert gone


def test_two_journals_have_two_names(tmp_path: Path) -> None:
    journals = [Journal(tmp_path) for _ in range(3)]
    assert len({journal.name for journal in journals}) == 3
    for journal in journals:
        journal.close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"\.lock: cannot be opened: No such file"),
        locked(tmp_path / "none", exclusive=False),
    ):
        pass


def test_a_line_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"journal-{'0' * 24}.log"
    path.write_text("2026-11-01 started\n")
    with pytest.raises(DataError, match=r"0\.log: the line at byte 0 was changed or is no record"):
        read_journal(path)
