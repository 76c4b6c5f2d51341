"""Supervised fine-tuning of a policy by TRL's SFTTrainer (section "SFT" of the paper).

The loss is on the answer only. A nano policy trains by Muon and with positions that have gaps, as
the nano workers do; a large one by the optimizer that its recipe names.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from r2reasoner.nano.fit import MuonAdamW, gapped_positions, warm_up_and_decay
from r2reasoner.training.pairs import Pair
from r2reasoner.training.policies import Policy
from r2reasoner.training.recipe import Learning, Sft

IGNORED: Final = -100
Hear = Callable[[int, dict[str, float]], None]


class Gaps:
    """A collator of word rows; positions of half of them have gaps of up to `stretch` in all."""

    def __init__(self, pad: int, stretch: int, seed: int) -> None:
        self._pad = pad
        self._stretch = stretch
        self._rng = np.random.default_rng(seed)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return ids, labels, mask and positions, padded on the right: (rows, longest)."""
        longest = max(len(row["input_ids"]) for row in rows)
        shape = (len(rows), longest)
        ids = np.full(shape, self._pad, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        mask, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for i, row in enumerate(rows):
            own = np.array(row["input_ids"])
            n = len(own)
            ids[i, :n] = own
            labels[i, :n] = row["labels"]
            mask[i, :n] = 1
            positions[i, :n] = gapped_positions(n, self._rng, self._stretch)
        batch = {
            "input_ids": ids,
            "labels": labels,
            "attention_mask": mask,
            "position_ids": positions,
        }
        return {name: torch.from_numpy(array) for name, array in batch.items()}


class Listener(TrainerCallback):
    """Passes on what a trainer logs: (step, figures)."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Pass on numbers."""
        self._hear(
            state.global_step,
            {k: float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)},
        )


class Patience(TrainerCallback):
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
        data_collator=Gaps(policy.tokenizer.pad_token_id, sft.stretch, config.seed)
        if words
        else None,
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
