"""The run folder: a run goes on only as it began, and what it made is checked before use."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import killed
import pytest

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.training.run_folder import RunFolder

CONFIG = 'name = "nano"\n[sft]\nlr = 0.001\nlayers = ["q", "v"]\n[grpo]\nlr = 0.0001\n'
SEEDS = {"torch": 1, "data": 2}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "decompositions"
    folder.mkdir()
    (folder / "0.parquet").write_bytes(b"rows")
    (tmp_path / "items.jsonl").write_text("{}\n")
    return {"decompositions": folder, "items": tmp_path / "items.jsonl"}


@pytest.fixture
def run(tmp_path: Path, data: dict[str, Path]) -> Iterator[RunFolder]:
    with RunFolder.open(tmp_path / "run", CONFIG, SEEDS, data) as opened:
        yield opened


def again(
    run: RunFolder,
    data: dict[str, Path],
    config: str = CONFIG,
    seeds: Mapping[str, int] = SEEDS,
) -> RunFolder:
    return RunFolder.open(run.path, config, seeds, data)


def test_what_the_run_was_told_is_readable(run: RunFolder, data: dict[str, Path]) -> None:
    assert (run.path / "config.toml").read_text() == CONFIG
    assert json.loads((run.path / "seeds.json").read_text()) == SEEDS
    content = json.loads((run.path / "data.json").read_text())["data"]
    assert content["decompositions"]["files"]["0.parquet"]["size"] == 4
    assert len(content["items"]["files"]["."]["sha256"]) == 64


def test_a_run_goes_on_with_the_same_config(run: RunFolder, data: dict[str, Path]) -> None:
    run.metrics("sft", 1, loss=2.0)
    with (run.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"stage": "sf')
    same = (
        '# by hand\nname = "nano"\ngrpo = { lr = 1e-4 }\nsft = { lr = 1e-3, layers = ["q","v"] }\n'
    )
    with again(run, data, same) as reopened:
        reopened.metrics("sft", 2, loss=1.0)
        assert [row["loss"] for row in reopened.rows()] == [2.0, 1.0]
    assert (run.path / "config.toml").read_text() == CONFIG


def test_another_config_is_refused_by_the_keys_that_differ(
    run: RunFolder, data: dict[str, Path]
) -> None:
    other = CONFIG.replace("0.0001", "0.5").replace('"v"', '"k"') + "clip = 0.2\n"
    with pytest.raises(ConfigError) as caught:
        again(run, data, other, {"torch": 1, "data": 3})
    said = str(caught.value)
    assert "grpo.lr: 0.0001 there, 0.5 now" in said
    assert "sft.layers: ['q', 'v'] there, ['q', 'k'] now" in said
    assert "grpo.clip: nothing there, 0.2 now" in said
    assert "seeds.data: 2 there, 3 now" in said
    assert "sft.lr" not in said
    assert "Choose another folder" in said


def test_a_key_that_is_free_may_change_and_is_written_down(
    run: RunFolder, data: dict[str, Path]
) -> None:
    run.close()
    other = CONFIG.replace("0.0001", "0.5")
    with RunFolder.open(run.path, other, SEEDS, data, ["grpo.lr"]):
        assert (run.path / "config.toml").read_text() == other
    with pytest.raises(ConfigError, match=r"grpo\.lr: 0\.5 there, 0\.0001 now"):
        RunFolder.open(run.path, CONFIG, SEEDS, data)
    with pytest.raises(ConfigError, match=r"sft\.layers"):
        RunFolder.open(run.path, other.replace('"v"', '"k"'), SEEDS, data, ["grpo.lr"])


def test_of_many_differing_keys_a_few_are_named(run: RunFolder, data: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="and 5 more"):
        again(run, data, "".join(f"k{n} = {n}\n" for n in range(6)))


def test_a_number_is_not_its_text_and_true_is_not_one(tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "x", "a = 1\n", {}, {}).close()
    for other in ('a = "1"\n', "a = true\n", "a = [1]\n", "[a]\nb = 1\n"):
        with pytest.raises(ConfigError, match="another config: a"):
            RunFolder.open(tmp_path / "x", other, {}, {})


def test_other_inputs_are_refused_by_name(run: RunFolder, data: dict[str, Path]) -> None:
    (data["decompositions"] / "0.parquet").write_bytes(b"rowz")
    with pytest.raises(DataError, match=r"0\.parquet: its content changed .*'decompositions'"):
        again(run, data)
    (data["decompositions"] / "0.parquet").unlink()
    with pytest.raises(DataError, match=r"0\.parquet: missing"):
        again(run, data)


def test_inputs_may_lie_elsewhere_and_come_later(
    run: RunFolder, data: dict[str, Path], tmp_path: Path
) -> None:
    moved = data["items"].rename(tmp_path / "moved.jsonl")
    later = tmp_path / "allocations.jsonl"
    later.write_text("1")
    with again(run, {**data, "items": moved}) as reopened:
        reopened.use_data({"allocations": later})
    later.write_text("2")
    with pytest.raises(DataError, match="'allocations'"):
        again(run, {"allocations": later})
    with pytest.raises(DataError, match="no such file"):
        RunFolder.open(tmp_path / "new", CONFIG, SEEDS, {"x": tmp_path / "none"})


@pytest.mark.parametrize("name", ["config.toml", "seeds.json", "data.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_damaged_notes_are_refused_by_name(
    run: RunFolder, data: dict[str, Path], name: str, damage: str
) -> None:
    run.metrics("sft", 1, loss=2.0)
    file = run.path / name
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_text(file.read_text()[:-9])
    else:
        file.write_bytes(b"\xff\x00")
    with pytest.raises(DataError, match=name.replace(".", r"\.")) as caught:
        again(run, data)
    assert damage == "cut" or "another folder" in str(caught.value) or "TOML" in str(caught.value)


def test_a_folder_of_something_else_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"data\.json: there already, but no config\.toml"):
        RunFolder.open(tmp_path, CONFIG, SEEDS, {})
    assert (tmp_path / "data.json").read_text() == "[1, 2]"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        RunFolder.open(tmp_path / "file", CONFIG, SEEDS, {})
    with pytest.raises(ConfigError, match="the config of this run: not valid TOML"):
        RunFolder.open(tmp_path / "new", "a = ", SEEDS, {})


def test_one_process_at_a_time_trains_in_a_folder(run: RunFolder, data: dict[str, Path]) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from r2reasoner.errors import ConfigError\n"
        "from r2reasoner.training.run_folder import RunFolder\n"
        "try:\n    RunFolder.open(Path(sys.argv[1]), sys.argv[2], {'torch': 1, 'data': 2}, {})\n"
        "except ConfigError as error:\n    print(error)\n"
    )

    def other() -> str:
        command = [sys.executable, "-c", code, str(run.path), CONFIG]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "another process is training in it" in other()
    run.close()
    run.close()
    assert other() == ""


def test_a_stage_is_done_when_its_products_stand(run: RunFolder, data: dict[str, Path]) -> None:
    assert not run.is_done("sft")
    policy = run.checkpoints("sft") / "policy"
    policy.mkdir(parents=True)
    (policy / "model.safetensors").write_bytes(b"weights")
    run.stage_done("sft", {"policy": policy, "items": data["items"]})
    run.stage_done("eval")
    assert run.is_done("sft")
    assert run.is_done("eval")
    assert run.produced("sft")["policy"] == policy
    with again(run, data) as reopened:
        assert reopened.is_done("sft")
    (policy / "model.safetensors").write_bytes(b"weightz")
    with (
        again(run, data) as reopened,
        pytest.raises(DataError, match=r"rs: its content changed .* or remove .*sft\.json"),
    ):
        reopened.is_done("sft")
    (policy / "model.safetensors").write_bytes(b"weights and more")
    with pytest.raises(DataError, match=r"model\.safetensors: 16 bytes, expected 7"):
        run.is_done("sft")
    (policy / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors: missing"):
        run.is_done("sft")
    (run.path / "stages" / "eval.json").write_text("{}")
    with pytest.raises(DataError, match=r"eval\.json: cut or changed"):
        run.is_done("eval")
    with pytest.raises(DataError, match="no such file"):
        run.stage_done("grpo", {"policy": run.path / "none"})
    assert not run.is_done("grpo")


def test_a_moved_run_still_knows_its_products(
    run: RunFolder, data: dict[str, Path], tmp_path: Path
) -> None:
    (run.path / "policy.bin").write_bytes(b"weights")
    run.stage_done("sft", {"policy": run.path / "policy.bin"})
    run.close()
    moved = run.path.rename(tmp_path / "moved")
    with RunFolder.open(moved, CONFIG, SEEDS, data) as reopened:
        assert reopened.produced("sft") == {"policy": moved / "policy.bin"}


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 101])
def test_a_stage_has_a_plain_name(run: RunFolder, name: str) -> None:
    for act in (run.checkpoints, run.is_done, lambda n: run.metrics(n, 1, loss=1.0)):
        with pytest.raises(ValueError, match="not the name of a stage"):
            act(name)


def test_rollouts_are_read_by_eye(run: RunFolder) -> None:
    file = run.rollouts(
        "grpo-1",
        20,
        [
            {
                "query": "3 + 4",
                "steps": ["3 + 4 = 7", "by 16x1"],
                "reward": 0.9312345,
                "right": True,
            },
            {"query": "two\nlines \x1b[2J\u202e\ud800", "steps": [], "answer": None},
        ],
    )
    assert file == run.path / "rollouts" / "grpo-1-000020.txt"
    assert file.read_text() == (
        "grpo-1, step 20: 2 samples\n\n"
        "---- 1 of 2 ----\n"
        "query   3 + 4\n"
        "steps   3 + 4 = 7\n"
        "        by 16x1\n"
        "reward  0.9312\n"
        "right   True\n\n"
        "---- 2 of 2 ----\n"
        "query   two\n"
        "        lines \\x1b[2J\\u202e\\ud800\n"
        "steps\n"
        "answer  None\n"
    )
    run.rollouts("grpo-1", 20, [])
    assert file.read_text() == "grpo-1, step 20: 0 samples\n"


def test_the_summary_is_written_for_eye_and_script(run: RunFolder) -> None:
    assert run.metrics("sft", 1, loss=float("nan"), paid_pico=2_500_000, calls=3, seconds=36.0) == 1
    run.went_back("sft", 0)
    run.stage_done("sft")
    document = run.summary()
    assert json.loads((run.path / "summary.json").read_text()) == document
    (stage,) = document["stages"]
    assert (stage["stage"], stage["done"], stage["not_finite"]) == ("sft", True, 1)
    assert document["total"] == {"dollars": 2.5e-6, "calls": 3, "unpriced": 0, "hours": 0.01}
    assert "| sft | yes |" in (run.path / "summary.md").read_text()


def test_what_was_billed_is_summed_over_stages_and_attempts(run: RunFolder) -> None:
    assert run.billed() == {"paid_pico": 0, "calls": 0, "unpriced": 0, "seconds": 0}
    run.metrics("sft", 0, paid_pico=5, calls=1, seconds=2.5)
    run.metrics("sft", 0, paid_pico=7, calls=2)
    run.metrics("grpo", 3, paid_pico=1, unpriced=1)
    assert run.billed() == {"paid_pico": 13, "calls": 3, "unpriced": 1, "seconds": 2.5}


def test_a_kill_anywhere_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, killed.__file__, "while_training", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 25
