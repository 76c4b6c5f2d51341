"""Where a trainer stands, on disk: saved whole at the end of a step, and gone on from."""

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from r2reasoner.training import checkpoint

KIND = "trainer"


class States(TrainerCallback):  # type: ignore[misc]
    """Saves a stage's trainer every so many steps; `resume` is what to go on from, if anything.

    The trainer writes into `work`; what it wrote becomes a verified checkpoint in `folder`.
    """

    def __init__(self, folder: Path, stage: str, every: int) -> None:
        self._folder = folder
        self._stage = stage
        self._every = every
        self.work = folder / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        found = checkpoint.latest(folder, kind=KIND, stage=stage) if folder.exists() else None
        self.resume = None if found is None else found.path
        self.step = 0 if found is None else found.info.step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask the trainer to save. A step ends after a generation was learned from as a whole."""
        if state.global_step % self._every == 0 and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make a checkpoint of what the trainer wrote."""
        written = self.work / f"checkpoint-{state.global_step}"

        def copy(to: Path) -> None:
            shutil.copytree(written, to, dirs_exist_ok=True)

        checkpoint.save(self._folder, copy, checkpoint.Info(KIND, self._stage, state.global_step))
        shutil.rmtree(written)
