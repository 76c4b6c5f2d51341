"""Fit one nano model: a small Llama on (question, answer) rows, loss on the answer only.

The only module of the nano pool that needs torch and transformers, beside `convert`. Training
state is on disk, so that an interrupted run goes on where it stopped.
"""

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from r2reasoner.nano.vocabulary import BOS, EOS, PAD, PLACEHOLDERS, SEP

BATCH: Final = 128
WARM_UP: Final = 200
SAVE_EVERY_S: Final = 60.0
POSITIONS: Final = 256
IGNORED: Final = -100

Ids = npt.NDArray[np.uint8]


class Shape(NamedTuple):
    """Width and depth of a nano model."""

    width: int
    layers: int

    @property
    def name(self) -> str:
        """The name used in pool files, e.g. `48x2`."""
        return f"{self.width}x{self.layers}"


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
    return Encoded(np.frombuffer(bytes(ids), np.uint8), np.array(starts), np.array(answers, np.int16))


def new_model(shape: Shape, vocabulary: int, seed: int) -> LlamaForCausalLM:
    """Return an untrained model of a shape."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(1, shape.width // 16),
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def batches(data: Encoded, steps: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield `steps` batches (ids, labels), each (BATCH, longest), of rows of like length."""
    rng = np.random.default_rng(seed)
    lengths = np.diff(data.starts)
    done = 0
    while done < steps:
        order = rng.permutation(len(lengths))
        chunks = []
        for block in np.array_split(order, max(1, len(order) // (BATCH * 64))):
            block = block[np.argsort(lengths[block], kind="stable")]
            chunks += [block[i : i + BATCH] for i in range(0, len(block), BATCH)]
        for i in rng.permutation(len(chunks)):
            if done == steps:
                return
            done += 1
            yield _pad(data, chunks[i], lengths)


def _pad(
    data: Encoded, chunk: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    ids = np.zeros((len(chunk), int(lengths[chunk].max())), np.int64)
    labels = np.full_like(ids, IGNORED)
    for row, i in enumerate(chunk):
        text = data.ids[data.starts[i] : data.starts[i + 1]]
        ids[row, : len(text)] = text
        labels[row, data.answers[i] : len(text)] = text[data.answers[i] :]
    return torch.from_numpy(ids), torch.from_numpy(labels)


def peak_rate(shape: Shape) -> float:
    """Return the peak learning rate of a width."""
    return 0.003 * math.sqrt(64 / shape.width)


def fit(
    data: Encoded,
    shape: Shape,
    tokens: list[str],
    steps: int,
    seed: int,
    out: Path,
    *,
    threads: int = 1,
    say: Callable[[str], None] = print,
) -> None:
    """Train a model and write it to `out` (safetensors), going on from saved state if any.

    Placeholder words, where the vocabulary has any, keep frozen vectors drawn anew each step.
    """
    torch.set_num_threads(threads)
    model = new_model(shape, len(tokens), seed)
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak_rate(shape), betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / WARM_UP, max(0.0, (steps - s) / steps))
    )
    state = out.with_suffix(".state")
    first = _resume(state, model, optimizer, schedule)
    redraw = _placeholder_redraw(model, tokens, seed)
    started = saved = time.monotonic()
    seen, loss_sum = 0, 0.0
    for step, (ids, labels) in enumerate(batches(data, steps, seed)):
        if step < first:
            continue
        redraw()
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen += ids.numel()
        loss_sum += loss.item()
        if (step + 1) % 500 == 0:
            rate = (step + 1 - first) / (time.monotonic() - started)
            say(
                f"{shape.name} {step + 1}/{steps} loss {loss_sum / 500:.4f}"
                f" {rate:.1f} steps/s, {(steps - step - 1) / rate / 60:.1f} min left"
            )
            loss_sum = 0.0
        if time.monotonic() - saved > SAVE_EVERY_S:
            _save(state, step + 1, model, optimizer, schedule)
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
                "minutes": round((time.monotonic() - started) / 60, 2),
            }
        )
    )
    state.unlink(missing_ok=True)


def _save(
    path: Path,
    step: int,
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": {"last_epoch": schedule.last_epoch, "_step_count": schedule.last_epoch + 1},
    }
    part = path.with_suffix(".part")
    torch.save(whole, part)
    os.replace(part, path)


def _resume(
    path: Path,
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    """Load saved state, if any; return the step to go on from."""
    if not path.exists():
        return 0
    whole = torch.load(path, weights_only=True)
    model.load_state_dict(whole["model"])
    optimizer.load_state_dict(whole["optimizer"])
    schedule.load_state_dict(whole["schedule"])
    return int(whole["step"])


def _placeholder_redraw(
    model: LlamaForCausalLM, tokens: list[str], seed: int
) -> Callable[[], None]:
    held = [i for i, token in enumerate(tokens) if token in PLACEHOLDERS]
    if not held:
        return lambda: None
    weight = model.get_input_embeddings().weight
    index = torch.tensor(held)
    generator = torch.Generator().manual_seed(seed)

    def redraw() -> None:
        with torch.no_grad():
            scale = weight.std()
            weight[index] = torch.randn((len(held), weight.shape[1]), generator=generator) * scale

    return redraw
