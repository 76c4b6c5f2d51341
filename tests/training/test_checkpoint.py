"""Checkpoints: at any moment a whole one stands, and a damaged one is named, never used."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed
import pytest

from r2reasoner.errors import ConfigError, DataError
from r2reasoner.training.checkpoint import LATEST, MANIFEST, Checkpoint, Info, latest, save, verify

FILES = ("model.safetensors", "config.json", "state/optimizer.bin")


def writer(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"{name} of {step}")

    return write


def saved(folder: Path, step: int, keep: int = 1) -> Checkpoint:
    return save(folder, writer(step), Info("policy", "sft", step), keep=keep)


def standing(folder: Path) -> set[str]:
    return set(os.listdir(folder)) - {LATEST}


def test_the_newest_checkpoint_is_found_and_the_older_one_gone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "sft"
    assert latest(folder) is None
    first = saved(folder, 9)
    assert latest(folder) == first
    second = saved(folder, 10)
    assert latest(folder, kind="policy", stage="sft") == second
    assert second.info == Info("policy", "sft", 10)
    assert (second.path / "model.safetensors").read_text() == "model.safetensors of 10"
    assert standing(folder) == {"step-00000010"}
    assert first.seal != second.seal


def test_as_many_stay_as_are_asked_for(tmp_path: Path) -> None:
    for step in range(5):
        saved(tmp_path, step, keep=3)
    assert standing(tmp_path) == {"step-00000002", "step-00000003", "step-00000004"}
    saved(tmp_path, 10**8, keep=2)
    assert standing(tmp_path) == {"step-00000004", "step-100000000"}
    found = latest(tmp_path)
    assert found is not None
    assert found.info.step == 10**8


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    first = saved(tmp_path, 3)
    again = saved(tmp_path, 3)
    assert latest(tmp_path) == again
    assert again.path != first.path
    assert saved(tmp_path, 3).info.step == 3
    assert len(standing(tmp_path)) == 1


def test_no_step_is_saved_behind_a_later_one(tmp_path: Path) -> None:
    kept = saved(tmp_path, 200)
    with pytest.raises(DataError, match="step 200 is saved here already"):
        saved(tmp_path, 100)
    assert latest(tmp_path) == kept


def test_a_checkpoint_can_be_moved(tmp_path: Path) -> None:
    made = saved(tmp_path / "here", 3)
    moved = made.path.rename(tmp_path / "policy")
    found = verify(moved, kind="policy")
    assert (found.info, found.seal) == (made.info, made.seal)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_every_flip_cut_and_loss_is_named(tmp_path: Path, name: str) -> None:
    saved(tmp_path, 6, keep=2)
    made = saved(tmp_path, 7, keep=2)
    file = made.path / name
    whole = file.read_bytes()

    def refused(what: str) -> None:
        with pytest.raises(DataError, match=what) as caught:
            latest(tmp_path)
        assert str(file) in str(caught.value)
        assert "put back a copy, or remove" in str(caught.value)

    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused("changed since it was written")
    for cut in (0, 1, len(whole) - 1):
        file.write_bytes(whole[:cut])
        refused("changed since it was written" if name == MANIFEST else "bytes, expected")
    file.write_bytes(whole + b"\n")
    refused("changed since it was written" if name == MANIFEST else "bytes, expected")
    file.unlink()
    refused("missing")
    file.write_bytes(whole)
    assert latest(tmp_path) == made


def test_a_foreign_file_in_a_checkpoint_is_named(tmp_path: Path) -> None:
    made = saved(tmp_path, 7)
    strange = made.path / "state" / "pytorch_model.bin"
    strange.write_text("pickle")
    with pytest.raises(DataError, match=r"pytorch_model\.bin: not among the files"):
        latest(tmp_path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    made = saved(tmp_path, 7)
    with pytest.raises(DataError, match="a checkpoint of kind 'policy', expected 'trainer'"):
        latest(tmp_path, kind="trainer")
    with pytest.raises(DataError, match="a checkpoint of stage 'sft', expected 'grpo'"):
        verify(made.path, stage="grpo")
    other = saved(tmp_path / "other", 7)
    (other.path / "config.json").write_text("another")
    shutil.copy(other.path / MANIFEST, made.path / MANIFEST)
    (made.path / "config.json").write_text("a stranger")
    with pytest.raises(DataError, match=r"config\.json"):
        latest(tmp_path)


def test_a_folder_of_other_things_is_no_folder_of_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-500").mkdir()
    with pytest.raises(DataError, match="checkpoint-500: expected checkpoints"):
        latest(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        latest(Path(__file__))


def test_a_lost_checkpoint_is_not_taken_for_a_beginning(tmp_path: Path) -> None:
    saved(tmp_path, 6, keep=2)
    made = saved(tmp_path, 7, keep=2)
    shutil.rmtree(made.path)
    with pytest.raises(DataError, match=r"step-00000007: missing; .* remove .*latest\.json"):
        latest(tmp_path)
    (tmp_path / LATEST).unlink()
    found = latest(tmp_path)
    assert found is not None
    assert found.info.step == 6
    shutil.rmtree(found.path)
    (tmp_path / LATEST).write_text("{}")
    with pytest.raises(DataError, match=r"latest\.json: cut or changed"):
        latest(tmp_path)


def test_a_writer_that_fails_leaves_what_was(tmp_path: Path) -> None:
    made = saved(tmp_path, 7)

    def fail(error: BaseException) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / "model.safetensors").write_text("half")
            raise error

        return write

    info = Info("policy", "sft", 8)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, fail(KeyboardInterrupt()), info)
    with pytest.raises(ConfigError, match=r"no checkpoint could be saved: .*No space left"):
        save(tmp_path, fail(OSError(28, "No space left on device")), info)
    with pytest.raises(ValueError, match="wrote no file"):
        save(tmp_path, lambda folder: None, info)
    with pytest.raises(ValueError, match="must leave the name"):
        save(tmp_path, lambda folder: (folder / MANIFEST).write_text("mine"), info)
    assert latest(tmp_path) == made
    assert standing(tmp_path) == {"step-00000007"}


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="no checkpoint could be saved"):
        saved(tmp_path / "file" / "sft", 1)


def test_steps_and_numbers_to_keep_are_checked(tmp_path: Path) -> None:
    for step, keep in ((-1, 1), (1, 0)):
        with pytest.raises(ValueError, match="expected keep >= 1"):
            saved(tmp_path, step, keep)


@pytest.mark.parametrize(
    ("scenario", "at_least"), [("while_saving_everywhere", 25), ("while_saving_at_random", 10)]
)
def test_a_kill_while_saving_loses_nothing(tmp_path: Path, scenario: str, at_least: int) -> None:
    done = subprocess.run(
        [sys.executable, killed.__file__, scenario, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= at_least


@pytest.mark.slow
def test_a_trainer_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers: Any = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def new_model() -> Any:
        torch.manual_seed(0)
        shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(vocab_size=11, **shape, **heads)
        )

    rows = [{"input_ids": [i % 11, 3, 5], "labels": [i % 11, 3, 5]} for i in range(32)]

    class Saving(transformers.TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            written = Path(args.output_dir) / f"checkpoint-{state.global_step}"

            def take(to: Path) -> None:
                shutil.copytree(written, to, dirs_exist_ok=True)

            save(tmp_path / "sft", take, Info("trainer", "sft", state.global_step), keep=2)

    def trainer(out: str, *callbacks: Any) -> Any:
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / out), max_steps=8, save_steps=4, use_cpu=True,
            per_device_train_batch_size=4, report_to="none", disable_tqdm=True,
            dataloader_pin_memory=False,
        )  # fmt: skip
        return transformers.Trainer(
            new_model(), arguments, train_dataset=rows, callbacks=list(callbacks)
        )

    whole = trainer("whole", Saving)
    whole.train()
    newest = latest(tmp_path / "sft", kind="trainer")
    assert newest is not None
    assert newest.info.step == 8
    assert {"model.safetensors", "optimizer.pt"} <= set(os.listdir(newest.path))
    resumed = trainer("resumed")
    resumed.train(resume_from_checkpoint=str(verify(tmp_path / "sft" / "step-00000004").path))
    for before, after in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(before, after)

    policy = save(tmp_path / "policy", whole.model.save_pretrained, Info("policy", "sft", 8))
    again = transformers.LlamaForCausalLM.from_pretrained(verify(policy.path).path)
    assert torch.equal(again.lm_head.weight, whole.model.lm_head.weight)
