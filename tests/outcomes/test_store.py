"""The store on a real disk, written by real processes, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

import r2reasoner.outcomes.store as module
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.outcomes.journal import read_journal
from r2reasoner.outcomes.store import OutcomeStore
from recorded import answered, keys_on_disk, outcome, rows_on_disk

DYING = Path(__file__).with_name("dying.py")


def process(mode: str, folder: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(DYING), mode, str(folder), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(mode: str, folder: Path, *more: str, end: int = 0) -> list[str]:
    with process(mode, folder, *more) as child:
        lines = child.communicate()[0].splitlines()
    assert child.returncode == end
    return lines


def held(folder: Path) -> set[str]:
    return {a.key for a in OutcomeStore.open(folder).answers()}


class TestKeeping:
    def test_what_was_put_is_had_at_once_and_after_opening_anew(self, tmp_path: Path) -> None:
        first, second = answered("a"), answered("b", logprob=None, answer="né ü\0\n")
        with OutcomeStore.open(tmp_path / "s") as store:
            store.put(first)
            store.put(second)
            store.add(outcome("a"))
            assert (store.get("a"), store.get("b"), store.get("c")) == (first, second, None)
        with OutcomeStore.open(tmp_path / "s") as store:
            assert {store.get("a"), store.get("b")} == {first, second}
            assert store.outcomes() == (outcome("a"),)
            assert len(store) == 2

    def test_an_outcome_is_not_doubled(self, tmp_path: Path) -> None:
        for _ in range(2):
            with OutcomeStore.open(tmp_path) as store:
                store.add(outcome("a"))
                store.add(outcome("a"))
                store.add(outcome("a", score=0.0))
                assert sum(len(read_journal(p).records) for p in tmp_path.glob("journal-*")) in (
                    0,
                    2,
                )
        assert len(rows_on_disk(tmp_path)) == 2

    def test_of_one_key_the_latest_counts(self, tmp_path: Path) -> None:
        early, late = answered("a", at=1.0), answered("a", at=2.0, logprob=-0.1)
        with OutcomeStore.open(tmp_path) as store:
            store.put(late)
            store.put(early)
            assert store.answers() == (late,)
        with OutcomeStore.open(tmp_path) as store:
            assert store.answers() == (late,)
            latest = answered("a", at=3.0)
            store.put(latest)
        assert OutcomeStore.open(tmp_path).answers() == (latest,)

    def test_closing_makes_one_shard_and_leaves_no_journal(self, tmp_path: Path) -> None:
        with OutcomeStore.open(tmp_path) as store:
            for number in range(50):
                store.put(answered(str(number)))
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names[:2] == [".lock", "manifest.json"]
        assert len(names) == 3
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        (shard,) = manifest["shards"]
        assert (shard["name"], shard["rows"]) == (names[2], 50)

    def test_reading_changes_nothing(self, tmp_path: Path) -> None:
        with OutcomeStore.open(tmp_path) as store:
            store.put(answered("a"))
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with OutcomeStore.open(tmp_path) as store:
            assert store.get("a")
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_many_shards_become_few_and_large_ones_are_cut(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST_SHARDS", 4)
        monkeypatch.setattr(module, "SHARD_RECORDS", 3)
        for number in range(5):
            with OutcomeStore.open(tmp_path) as store:
                store.put(answered(str(number)))
                store.add(outcome(str(number)))
        assert len(list(tmp_path.glob("*.parquet"))) == 4  # 10 records, 3 a shard
        assert keys_on_disk(tmp_path) == list("01234")
        assert len(OutcomeStore.open(tmp_path).outcomes()) == 5

    def test_a_long_journal_becomes_a_shard_when_flushed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LONG_JOURNAL", 3)
        store = OutcomeStore.open(tmp_path)
        store.flush()
        for key in "ab":
            store.put(answered(key))
        store.flush()
        assert len(list(tmp_path.glob("journal-*"))) == 1
        store.put(answered("c"))
        store.flush()
        assert not list(tmp_path.glob("journal-*"))
        store.put(answered("d"))
        store.close()
        assert keys_on_disk(tmp_path) == list("abcd")

    def test_a_closed_store_can_be_read_but_not_written(self, tmp_path: Path) -> None:
        store = OutcomeStore.open(tmp_path)
        store.put(answered("a"))
        store.close()
        store.close()
        assert store.get("a")
        with pytest.raises(DataError, match="closed"):
            store.put(answered("b"))


class TestOpening:
    def test_a_store_that_is_not_there_is_made_only_if_wanted(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"deep/s: no outcome store here"):
            OutcomeStore.open(tmp_path / "deep" / "s", create=False)
        assert list(tmp_path.iterdir()) == []
        OutcomeStore.open(tmp_path / "deep" / "s").close()
        OutcomeStore.open(str(tmp_path / "deep" / "s"), create=False).close()

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "letter.txt").write_text("mine")
        with pytest.raises(DataError, match=r"manifest\.json is missing, but there is letter\.txt"):
            OutcomeStore.open(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_text("")
        with pytest.raises(ConfigError, match="s: cannot be made: File exists"):
            OutcomeStore.open(tmp_path / "s")

    def test_without_pyarrow_it_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ConfigError, match=r"pip install 'r2reasoner\[training\]'"):
            OutcomeStore.open(tmp_path / "s")
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A store with two shards and the journal of a process that is gone."""
    folder = tmp_path / "store"
    for key in "ab":
        with OutcomeStore.open(folder) as store:
            store.put(answered(key))
    store = OutcomeStore.open(folder)
    for key in "cd":
        store.put(answered(key))
    store._leave_journal()
    return folder


def change(path: Path, at: int, to: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[at] = content[at] ^ 1 if to is None else to
    path.write_bytes(content)


class TestDamage:
    @pytest.mark.parametrize("at", [0, 100, -1])
    def test_a_flipped_shard_is_refused_by_name(self, filled: Path, at: int) -> None:
        shard = sorted(filled.glob("*.parquet"))[1]
        change(shard, at)
        with pytest.raises(DataError, match=rf"{shard.name}: its sha256 is not that"):
            OutcomeStore.open(filled)

    @pytest.mark.parametrize("left", [0, 1, 500])
    def test_a_cut_shard_is_refused_by_name(self, filled: Path, left: int) -> None:
        shard = next(filled.glob("*.parquet"))
        shard.write_bytes(shard.read_bytes()[:left])
        with pytest.raises(DataError, match=rf"{shard.name}: expected \d+ bytes, got {left}: cut"):
            OutcomeStore.open(filled)

    def test_a_missing_shard_is_refused_by_name(self, filled: Path) -> None:
        shard = next(filled.glob("*.parquet"))
        shard.unlink()
        with pytest.raises(DataError, match=rf"{shard.name}: cannot be read: No such file"):
            OutcomeStore.open(filled)

    def test_a_foreign_shard_is_refused_by_name(self, filled: Path, tmp_path: Path) -> None:
        with OutcomeStore.open(tmp_path / "other") as other:
            other.put(answered("theirs"))
        (foreign,) = (tmp_path / "other").glob("*.parquet")
        target = filled / foreign.name
        target.write_bytes(foreign.read_bytes())
        with pytest.raises(DataError, match=rf"{foreign.name} is not in manifest\.json"):
            OutcomeStore.open(filled)
        target.unlink()
        ours = next(filled.glob("*.parquet"))
        ours.write_bytes(foreign.read_bytes())
        with pytest.raises(DataError, match=ours.name):
            OutcomeStore.open(filled)

    def test_a_torn_last_line_is_dropped_wherever_it_was_cut(self, filled: Path) -> None:
        (journal,) = filled.glob("journal-*")
        content = journal.read_bytes()
        first = content.index(b"\n") + 1
        for end in (first + 1, first + 9, len(content) - 1):
            journal.write_bytes(content[:end])
            assert held(filled) == set("abc")
        with OutcomeStore.open(filled) as store:
            store.put(answered("d"))
        assert keys_on_disk(filled) == list("abcd")

    @pytest.mark.parametrize("at", [0, 8, 12, 200])
    def test_a_flipped_line_of_a_journal_is_refused_by_name(self, filled: Path, at: int) -> None:
        (journal,) = filled.glob("journal-*")
        change(journal, at)
        with pytest.raises(DataError, match=rf"{journal.name}: the line at byte 0 was changed"):
            OutcomeStore.open(filled)

    def test_two_lines_grown_together_are_refused(self, filled: Path) -> None:
        (journal,) = filled.glob("journal-*")
        change(journal, journal.read_bytes().index(b"\n"), ord(" "))
        with pytest.raises(DataError, match=journal.name):
            OutcomeStore.open(filled)

    def test_a_foreign_journal_is_refused_by_name(self, filled: Path) -> None:
        (filled / "journal-of-mine.log").write_text("dear journal\n")
        with pytest.raises(DataError, match=r"journal-of-mine\.log: no journal of an outcome"):
            OutcomeStore.open(filled)

    def test_a_missing_manifest_is_refused(self, filled: Path) -> None:
        (filled / "manifest.json").unlink()
        with pytest.raises(DataError, match=r"manifest\.json is missing"):
            OutcomeStore.open(filled)


class TestProcesses:
    def test_nothing_is_lost_or_doubled_by_kill_9(self, tmp_path: Path) -> None:
        random = Random(5)
        put: set[str] = set()
        for name in "abcd":
            with process("endless", tmp_path / "s", name) as child:
                assert child.stdout is not None
                put |= {child.stdout.readline().strip() for _ in range(random.randint(1, 200))}
                time.sleep(random.random() / 20)
                child.send_signal(signal.SIGKILL)
                put |= set(child.stdout.read().split())
            found = held(tmp_path / "s")
            assert found >= put
            assert len(found - put) <= ord(name) - ord("a") + 1  # put, and killed before it said so
        with OutcomeStore.open(tmp_path / "s") as store:
            found = {a.key for a in store.answers()}
            store.put(answered("last"))
        assert keys_on_disk(tmp_path / "s") == sorted(found | {"last"})
        assert not list((tmp_path / "s").glob("journal-*"))

    def test_whatever_step_of_rearranging_it_dies_in(self, tmp_path: Path) -> None:
        steps = said("every_step", tmp_path)[-1]
        assert int(steps) > 8
        for number in range(int(steps) + 1):
            folder = tmp_path / str(number)
            assert held(folder) == {"old-1", "old-2", "new"}
            with OutcomeStore.open(folder) as store:
                assert store.outcomes() == (outcome("new"),)
                store.put(answered("next"))
            assert keys_on_disk(folder) == ["new", "next", "old-1", "old-2"]
            assert {path.name for path in folder.iterdir()} == {
                ".lock",
                "manifest.json",
                *(path.name for path in folder.glob("shard-*.parquet")),
            }

    def test_several_processes_write_at_the_same_time(self, tmp_path: Path) -> None:
        folder = tmp_path / "s"
        reader = OutcomeStore.open(folder)
        children = [process("some", folder, name, "100") for name in ("one", "two")]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        while any(child.poll() is None for child in children):
            reader.refresh()
            time.sleep(0.01)
        for child in children:
            child.communicate()
            assert child.returncode == 0
        expected = {f"{name}-{n}" for name in ("one", "two", "both") for n in range(100)}
        reader.refresh()
        assert {a.key for a in reader.answers()} == expected == held(folder)
        assert len(reader.outcomes()) == 100
        kinds = [row["kind"] for row in rows_on_disk(folder)]
        assert kinds.count("outcome") == 100
        assert not list(folder.glob("journal-*"))

    def test_a_reader_sees_what_others_put_when_it_refreshes(self, tmp_path: Path) -> None:
        writer, reader = OutcomeStore.open(tmp_path), OutcomeStore.open(tmp_path)
        writer.put(answered("a"))
        assert reader.get("a") is None
        reader.refresh()
        assert reader.get("a")
        writer.put(answered("b"))
        writer.close()
        assert reader.get("b") is None
        reader.refresh()
        assert reader.get("b")

    def test_the_journal_of_a_living_process_is_left_to_it(self, tmp_path: Path) -> None:
        living, other = OutcomeStore.open(tmp_path), OutcomeStore.open(tmp_path)
        living.put(answered("a"))
        other.put(answered("b"))
        other.close()
        assert len(list(tmp_path.glob("journal-*"))) == 1
        living.put(answered("c"))
        living.close()
        assert keys_on_disk(tmp_path) == list("abc")

    def test_a_fork_goes_on_with_a_journal_of_its_own(self, tmp_path: Path) -> None:
        put = said("forking", tmp_path, end=-signal.SIGKILL)
        assert sorted(put) == ["after", "before", "child", "parent"]
        assert held(tmp_path) == set(put)
        with OutcomeStore.open(tmp_path) as store:
            store.put(answered("last"))
        assert keys_on_disk(tmp_path) == sorted([*put, "last"])

    def test_where_nothing_more_fits_it_says_so_and_keeps_the_rest(self, tmp_path: Path) -> None:
        *put, error, after = said("full", tmp_path, end=-signal.SIGKILL)
        assert error.startswith("error ")
        assert "cannot be written" in error
        assert len(put) > 2
        assert held(tmp_path) == {*put, after}


def test_a_folder_without_the_right_to_write_can_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    with OutcomeStore.open(tmp_path) as store:
        store.put(answered("a"))
    for path in (*tmp_path.iterdir(), tmp_path):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert held(tmp_path) == {"a"}
    finally:
        tmp_path.chmod(0o755)


def manifest_with(folder: Path, **changed: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"format": "other"},
        {"version": 2},
        {"shards": [{"name": "shard-0000000000000000.parquet"}]},
        {"shards": {"a": 1}},
        {"spent": ["../../letter.txt"]},
        {"spent": 3},
    ],
)
def test_a_manifest_that_is_none_of_ours_is_refused(
    filled: Path, changed: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    manifest_with(filled, **changed)
    with pytest.raises(DataError, match=r"manifest\.json: expected the manifest of an outcome"):
        OutcomeStore.open(filled)
    assert (tmp_path / "letter.txt").exists()


def test_a_manifest_that_is_no_json_is_refused(filled: Path) -> None:
    for text in ("", "[]", "3", '{"format"', "\udcff"):
        (filled / "manifest.json").write_text(text, errors="surrogateescape")
        with pytest.raises(DataError, match=r"manifest\.json: expected"):
            OutcomeStore.open(filled)
