"""Supervised fine-tuning of a policy by TRL's SFTTrainer (section "SFT" of the paper).

The loss is on the answer only. A nano policy trains by Muon and with positions that have gaps, as
the nano workers do; a large one by the optimizer that its recipe names.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from r2reasoner.nano.fit import MuonAdamW, warm_up_and_decay
from r2reasoner.training.pairs import Pair
from r2reasoner.training.policies import Policy
from r2reasoner.training.recipe import Learning, Sft

IGNORED: Final = -100
LINE: Final = 64
Hear = Callable[[int, dict[str, float]], None]


class Packed:
    """A collator of word rows, packed into lines; a row sees nothing of the others on its line.

    Positions of half of the rows have gaps, of up to `stretch` in all, drawn by what is in the
    batch: so a training that is gone on with draws the same.
    """

    def __init__(self, pad: int, stretch: int) -> None:
        self._pad = pad
        self._stretch = stretch

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return ids, labels, positions (lines, length) and a mask (lines, 1, length, length)."""
        lines = _lines([len(row["input_ids"]) for row in rows])
        length = max(sum(len(rows[i]["input_ids"]) for i in line) for line in lines)
        shape = (len(lines), length)
        ids = np.full(shape, self._pad, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        positions, owner = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        rng = np.random.default_rng([n for row in rows for n in row["input_ids"]])
        for at, line in enumerate(lines):
            first = 0
            for number, i in enumerate(line, 1):
                own = rows[i]["input_ids"]
                last = first + len(own)
                ids[at, first:last] = own
                labels[at, first:last] = rows[i]["labels"]
                positions[at, first:last] = gapped_positions(len(own), rng, self._stretch)
                owner[at, first:last] = number
                first = last
        same = owner[:, :, None] == owner[:, None, :]
        batch = {
            "input_ids": ids,
            "labels": labels,
            "attention_mask": (same & np.tri(length, dtype=bool))[:, None],
            "position_ids": positions,
        }
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def gapped_positions(count: int, rng: np.random.Generator, stretch: int) -> npt.NDArray[np.int64]:
    """Return a row's positions; in half of the rows with gaps, up to `stretch` in all.

    A policy that has seen only short rows then also works at the distances of longer ones.
    """
    if stretch == 0 or rng.random() < 0.5:
        return np.arange(count)
    width = count + int(rng.integers(1, stretch + 1))
    return np.sort(rng.choice(width, count, replace=False))


def _lines(lengths: Sequence[int]) -> list[list[int]]:
    """Return rows by their numbers, line by line: each where it first fits."""
    lines: list[list[int]] = []
    room: list[int] = []
    for i, n in enumerate(lengths):
        at = next((k for k, left in enumerate(room) if n <= left), None)
        if at is None:
            at = len(lines)
            lines.append([])
            room.append(max(LINE, n))
        lines[at].append(i)
        room[at] -= n
    return lines


class Listener(TrainerCallback):  # type: ignore[misc]
    """Passes on what a trainer logs: (step, figures)."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Pass on numbers."""
        self._hear(
            state.global_step,
            {k: float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)},
        )


class Patience(TrainerCallback):  # type: ignore[misc]
    """Ends training where validation stops improving, and keeps the best state."""

    def __init__(self, model: Any, patience: int) -> None:
        self._model = model
        self._patience = patience
        self._best = float("inf")
        self._waited = 0
        self._state: dict[str, torch.Tensor] = {}

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
    ) -> None:
        """Compare the loss on held-out rows with the best so far."""
        loss = float((metrics or {}).get("eval_loss", float("inf")))
        if loss < self._best:
            self._best, self._waited = loss, 0
            self._state = {
                name: p.detach().clone()
                for name, p in self._model.named_parameters()
                if p.requires_grad
            }
        else:
            self._waited += 1
            control.should_training_stop |= 0 < self._patience <= self._waited

    def restore(self) -> None:
        """Put the best state back."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                if name in self._state:
                    parameter.copy_(self._state[name])


def fine_tune(
    policy: Policy,
    pairs: Sequence[Pair],
    validation: Sequence[Pair],
    arguments: dict[str, Any],
    sft: Sft,
    *,
    hear: Hear = lambda step, figures: None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: Path | None = None,
) -> None:
    """Train a policy to write what the pairs say. `arguments` are all of SFTConfig's.

    `validation` rows say when it is enough; `resume` is a trainer's checkpoint.
    """
    words = policy.tokens is not None
    config = SFTConfig(**arguments)
    patience = Patience(policy.model, sft.patience)
    trainer = SFTTrainer(
        model=policy.model,
        args=config,
        train_dataset=Dataset.from_list([policy.row(p) for p in pairs]),
        eval_dataset=Dataset.from_list([policy.row(p) for p in validation]) if validation else None,
        processing_class=policy.tokenizer,
        data_collator=Packed(policy.tokenizer.pad_token_id, sft.stretch) if words else None,
        optimizers=optimizers(policy, sft, sft.learning_rate, config.max_steps),
        callbacks=[Listener(hear), patience, *callbacks],
    )
    quiet(trainer)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    patience.restore()


def quiet(trainer: Any) -> None:
    """Let a trainer print nothing: what it logs goes to the run folder."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


def optimizers(
    policy: Policy, learning: Learning, rate: float, steps: int
) -> tuple[torch.optim.Optimizer | None, Any]:
    """Return optimizer and schedule where they are ours (muon); else a pair of None."""
    if learning.optimizer != "muon":
        return None, None
    optimizer = MuonAdamW(policy.model, rate, learning.other_rate)
    warm_up = round(learning.warm_up * steps)
    return optimizer, warm_up_and_decay(optimizer, steps, warm_up, learning.decay_share)
