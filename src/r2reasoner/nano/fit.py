"""Fit one nano model: a small Llama on (question, answer) rows, loss on the answer only.

The only module of the nano pool that needs torch and transformers, beside `convert`. Training
state is on disk, so that an interrupted run goes on where it stopped.
"""

import json
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from r2reasoner.client.text import BOS, EOS, SEP
from r2reasoner.errors import DataError
from r2reasoner.nano.interchangeable import Interchangeable, with_words
from r2reasoner.nano.presets import Shape

BATCH_TOKENS: Final = 2048
LINE: Final = 64
WARM_UP: Final = 100
MATRIX_RATE: Final = 0.02
MOMENTUM: Final = 0.95
WEIGHT_DECAY: Final = 0.05
OTHER_RATE: Final = 0.005
DECAY_SHARE: Final = 0.8
SAVE_EVERY_S: Final = 60.0
POSITIONS: Final = 256
IGNORED: Final = -100

Ids = npt.NDArray[np.uint8]
disable_progress_bar()


class Encoded(NamedTuple):
    """Rows as token ids: `<bos> question <sep> answer <eos>`, one after the other.

    ids (tokens,), starts (rows + 1,), answers (rows,): index in the row where the answer begins.
    """

    ids: Ids
    starts: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int16]


def encode(rows: Iterator[tuple[list[str], list[str]]], tokens: list[str]) -> Encoded:
    """Encode tokenised (question, answer) rows."""
    number = {token: i for i, token in enumerate(tokens)}
    ids, starts, answers = bytearray(), [0], []
    for question, answer in rows:
        ids += bytes(number[t] for t in (BOS, *question, SEP, *answer, EOS))
        starts.append(len(ids))
        answers.append(len(question) + 2)
    return Encoded(
        np.frombuffer(bytes(ids), np.uint8), np.array(starts), np.array(answers, np.int16)
    )


def new_model(
    shape: Shape, vocabulary: int, seed: int, interchangeable: Sequence[int] = ()
) -> LlamaForCausalLM:
    """Return an untrained model of a shape; tokens may be interchangeable, by their ids."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(1, shape.width // 16),
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        initializer_range=shape.width**-0.5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    if interchangeable:
        return Interchangeable(with_words(config, interchangeable))
    return LlamaForCausalLM(config)


class Batch(NamedTuple):
    """Packed rows. ids, labels, positions: (lines, LINE); row: (lines, LINE), 0 where empty."""

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    row: torch.Tensor

    def mask(self) -> torch.Tensor:
        """Return who may look at whom, (lines, 1, LINE, LINE): earlier tokens of the same row."""
        same = self.row[:, :, None] == self.row[:, None, :]
        return (same & torch.ones(LINE, LINE, dtype=torch.bool).tril())[:, None]


def batches(data: Encoded, steps: int, seed: int) -> Iterator[Batch]:
    """Yield `steps` batches of BATCH_TOKENS tokens, rows of all lengths packed into lines."""
    rng = np.random.default_rng(seed)
    lengths = np.diff(data.starts)
    done = 0
    line: list[int] = []
    lines: list[list[int]] = []
    room = LINE
    while True:
        for i in rng.permutation(len(lengths)):
            if lengths[i] > room:
                lines.append(line)
                line, room = [], LINE
                if len(lines) == BATCH_TOKENS // LINE:
                    yield _pack(data, lines)
                    lines = []
                    done += 1
                    if done == steps:
                        return
            line.append(int(i))
            room -= int(lengths[i])


def _pack(data: Encoded, lines: list[list[int]]) -> Batch:
    ids = np.zeros((len(lines), LINE), np.int64)
    labels = np.full_like(ids, IGNORED)
    positions, row = np.zeros_like(ids), np.zeros_like(ids)
    for at, line in enumerate(lines):
        first = 0
        for number, i in enumerate(line, 1):
            text = data.ids[data.starts[i] : data.starts[i + 1]]
            last = first + len(text)
            ids[at, first:last] = text
            answer = int(data.answers[i])
            # the token before says the next one, hence labels stand one to the left
            labels[at, first + answer - 1 : last - 1] = text[answer:]
            positions[at, first:last] = np.arange(len(text))
            row[at, first:last] = number
            first = last
    return Batch(*(torch.from_numpy(a) for a in (ids, labels, positions, row)))


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz (Jordan et al. 2024), in float32.

    `torch.optim.Muon` computes in bfloat16, which a CPU without that type makes slower than the
    whole rest of a step. Matrices of one shape go together. Muon reached in 2,000 steps a loss
    that AdamW alone had not reached after 8,000.
    """

    def __init__(self, matrices: Iterable[torch.nn.Parameter], rate: float = MATRIX_RATE) -> None:
        super().__init__(matrices, {"lr": rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for matrix in group["params"]:
                by_shape.setdefault(matrix.shape, []).append(matrix)
            for matrices in by_shape.values():
                self._step_shape(matrices, group["lr"])

    def _step_shape(self, matrices: list[torch.nn.Parameter], rate: float) -> None:
        gradient = torch.stack([m.grad for m in matrices if m.grad is not None])
        momenta = [self.state[m].setdefault("momentum", torch.zeros_like(m)) for m in matrices]
        momentum = torch.stack(momenta).lerp_(gradient, 1 - MOMENTUM)
        update = _orthogonal(gradient.lerp(momentum, MOMENTUM))
        rows, columns = matrices[0].shape
        scale = rate * max(1.0, rows / columns) ** 0.5
        for i, matrix in enumerate(matrices):
            self.state[matrix]["momentum"].copy_(momentum[i])
            matrix.mul_(1 - rate * WEIGHT_DECAY).sub_(update[i], alpha=scale)


def _orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return the nearest (semi-)orthogonal matrices, roughly: five Newton-Schulz steps."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x: torch.Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.transpose(1, 2) if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the matrices and AdamW for the rest of a small Llama, as one optimizer."""

    def __init__(
        self, model: LlamaForCausalLM, rate: float = MATRIX_RATE, other_rate: float = OTHER_RATE
    ) -> None:
        matrices: list[torch.nn.Parameter] = []
        rest: list[torch.nn.Parameter] = []
        for name, parameter in model.named_parameters():
            (matrices if parameter.ndim == 2 and "embed" not in name else rest).append(parameter)
        self._parts: list[torch.optim.Optimizer] = [
            Muon(matrices, rate),
            torch.optim.AdamW(rest, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        super().__init__([*matrices, *rest], {})
        # schedules change the rates of these very groups
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step of both."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the state of both."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def warm_up_and_decay(
    optimizer: torch.optim.Optimizer,
    steps: int,
    warm_up: int = WARM_UP,
    decay_share: float = DECAY_SHARE,
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule: warm-up, then the full rate, then linear decay to 0."""
    decay = decay_share * steps
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / max(1, warm_up), 1.0, max(0.0, (steps - s) / decay))
    )


def fit(
    data: Encoded,
    shape: Shape,
    tokens: list[str],
    steps: int,
    seed: int,
    out: Path,
    *,
    say: Callable[[str], None] = print,
) -> None:
    """Train a model and write it to `out` (safetensors), going on from saved state if any."""
    torch.set_num_threads(1)
    model = new_model(shape, len(tokens), seed)
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = MuonAdamW(model)
    schedule = warm_up_and_decay(optimizer, steps)
    state = out.with_suffix(".state")
    first, seen, before_s = _resume(state, model, optimizer, schedule)
    started = saved = time.monotonic()
    loss_sum = 0.0
    for step, batch in enumerate(batches(data, steps, seed)):
        if step < first:
            continue
        logits = model(
            input_ids=batch.ids,
            attention_mask=batch.mask(),
            position_ids=batch.positions,
            use_cache=False,
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        seen += int((batch.row > 0).sum())
        loss_sum += loss.item()
        if (step + 1) % 500 == 0:
            rate = (step + 1 - first) / (time.monotonic() - started)
            say(
                f"{shape.name} {step + 1}/{steps} loss {loss_sum / 500:.4f}"
                f" {rate:.1f} steps/s, {(steps - step - 1) / rate / 60:.1f} min left"
            )
            loss_sum = 0.0
        if time.monotonic() - saved > SAVE_EVERY_S:
            spent_s = before_s + time.monotonic() - started
            _save(state, (step + 1, seen, spent_s), model, optimizer)
            saved = time.monotonic()
    model.save_pretrained(out)
    (out / "training.json").write_text(
        json.dumps(
            {
                "shape": list(shape),
                "parameters": parameters,
                "steps": steps,
                "seed": seed,
                "tokens_seen": int(seen),
                "minutes": round((before_s + time.monotonic() - started) / 60, 2),
            }
        )
    )
    state.unlink(missing_ok=True)


def _save(
    path: Path, at: tuple[int, int, float], model: LlamaForCausalLM, optimizer: MuonAdamW
) -> None:
    """Save where a run stands, whole or not at all. `at`: steps, tokens and seconds so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save({"at": at, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, part)
    os.replace(part, path)


def _resume(
    path: Path,
    model: LlamaForCausalLM,
    optimizer: MuonAdamW,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> tuple[int, int, float]:
    """Load saved state, if any; return the steps, tokens and seconds that are behind.

    Raises DataError, naming the file, for a state that cannot be read or is of another model.
    """
    if not path.exists():
        return 0, 0, 0.0
    try:
        whole = torch.load(path, weights_only=True)
        model.load_state_dict(whole["model"])
        optimizer.load_state_dict(whole["optimizer"])
        step, seen, seconds = whole["at"]
        schedule.last_epoch = int(step)
    except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path}: no training state of this model ({type(error).__name__});"
            " remove the file to train it anew"
        ) from error
    return int(step), int(seen), float(seconds)
