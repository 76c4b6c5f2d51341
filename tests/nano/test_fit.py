"""Fitting: how rows become batches, and that a model learns and an interrupted run goes on."""

import json
from itertools import islice
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

from r2reasoner.client.text import BOS, EOS, SEP, split_words  # noqa: E402
from r2reasoner.nano import fit as fitting  # noqa: E402
from r2reasoner.nano.data import rows  # noqa: E402
from r2reasoner.nano.fit import (  # noqa: E402
    BATCH_TOKENS,
    IGNORED,
    LINE,
    Batch,
    Encoded,
    batches,
    encode,
    fit,
    new_model,
)
from r2reasoner.nano.items import weight_set  # noqa: E402
from r2reasoner.nano.presets import Shape  # noqa: E402
from r2reasoner.nano.vocabulary import vocabulary  # noqa: E402

TOKENS = vocabulary()
SMALLEST = Shape(8, 1)


def encoded(count: int, seed: int = 0) -> Encoded:
    known = frozenset(TOKENS)
    drawn = rows(weight_set("addprim_jump").mix, count, seed)
    return encode(
        ((split_words(r.question, known), split_words(r.answer, known)) for r in drawn), TOKENS
    )


@pytest.fixture(scope="module")
def data() -> Encoded:
    return encoded(3000)


def texts_of(batch: Batch) -> list[str]:
    """Return the packed rows as text."""
    return [
        " ".join(TOKENS[i] for i in ids[row == number].tolist())
        for ids, row in zip(batch.ids, batch.row, strict=True)
        for number in range(1, int(row.max()) + 1)
    ]


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_rows_are_encoded_one_after_the_other() -> None:
    two = encode(iter([(["walk"], ["I_WALK"]), (["1", "+", "2"], ["3"])]), TOKENS)
    texts = [TOKENS[i] for i in two.ids]
    assert texts == [BOS, "walk", SEP, "I_WALK", EOS, BOS, "1", "+", "2", SEP, "3", EOS]
    assert two.starts.tolist() == [0, 5, 12]
    assert two.answers.tolist() == [3, 5]


def test_a_batch_holds_whole_rows_and_teaches_their_answers_only(data: Encoded) -> None:
    (batch,) = batches(data, 1, seed=0)
    assert batch.ids.shape == (BATCH_TOKENS // LINE, LINE)
    known = {
        " ".join(TOKENS[i] for i in data.ids[a:b])
        for a, b in zip(data.starts, data.starts[1:], strict=False)
    }
    assert set(texts_of(batch)) <= known
    for ids, labels in zip(batch.ids, batch.labels, strict=True):
        taught = (labels != IGNORED).nonzero().flatten().tolist()
        assert all(labels[at] == ids[at + 1] for at in taught)
        told = [TOKENS[int(labels[at])] for at in taught]
        assert not set(told) & {BOS, SEP}
        whole = [TOKENS[i] for i in ids.tolist()]
        assert told.count(EOS) == whole.count(EOS)


def test_a_token_sees_earlier_ones_of_its_own_row_alone(data: Encoded) -> None:
    (batch,) = batches(data, 1, seed=0)
    mask, row = batch.mask()[:, 0], batch.row
    for line in range(4):
        for at in range(LINE):
            seen = mask[line, at].nonzero().flatten().tolist()
            assert seen == [b for b in range(at + 1) if row[line, b] == row[line, at]]


def test_positions_start_anew_with_every_row(data: Encoded) -> None:
    (batch,) = batches(data, 1, seed=0)
    for positions, row in zip(batch.positions, batch.row, strict=True):
        for number in range(1, int(row.max()) + 1):
            own = positions[row == number].tolist()
            assert own == list(range(len(own)))


def test_batches_are_the_same_for_a_seed_and_every_row_comes_once_a_round(data: Encoded) -> None:
    first, same, other = (list(batches(data, 4, seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a.ids, b.ids) for a, b in zip(first, other, strict=True))
    few = encoded(400)
    per_round = sum(len(texts_of(batch)) for batch in islice(batches(few, 50, seed=0), 2))
    assert per_round <= 400


def test_the_shape_names_the_model_and_sets_its_size() -> None:
    model = new_model(SMALLEST, len(TOKENS), seed=0)
    assert SMALLEST.name == "8x1"
    assert sum(p.numel() for p in model.parameters()) == 1072
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_a_model_learns_and_says_what_it_was_trained_on(data: Encoded, tmp_path: Path) -> None:
    losses = []
    for steps in (1, 80):
        out = tmp_path / f"{steps}" / "8x1"
        fit(data, SMALLEST, TOKENS, steps, 0, out)
        told = json.loads((out / "training.json").read_text())
        assert (told["shape"], told["parameters"], told["steps"]) == ([8, 1], 1072, steps)
        assert 0 < told["tokens_seen"] <= steps * BATCH_TOKENS
        assert not out.with_suffix(".state").exists()
        model = type(new_model(SMALLEST, len(TOKENS), 0)).from_pretrained(out)
        (batch,) = batches(data, 1, seed=9)
        with torch.no_grad():
            logits = model(
                input_ids=batch.ids, attention_mask=batch.mask(), position_ids=batch.positions
            ).logits
        losses.append(
            float(
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED
                )
            )
        )
    assert losses[1] < losses[0] - 0.5


def test_the_same_seed_makes_the_same_model(data: Encoded, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(data, SMALLEST, TOKENS, 5, seed, tmp_path / name)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    assert weights_of(tmp_path / "a") != weights_of(tmp_path / "c")


class Interrupted(Exception):
    """Stands for Ctrl-C."""


@pytest.mark.slow
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(data, SMALLEST, TOKENS, 520, 0, tmp_path / "whole")
    monkeypatch.setattr(fitting, "SAVE_EVERY_S", 0.0)

    def interrupt(line: str) -> None:
        raise Interrupted(line)

    out = tmp_path / "cut"
    with pytest.raises(Interrupted):
        fit(data, SMALLEST, TOKENS, 520, 0, out, say=interrupt)
    assert out.with_suffix(".state").exists()
    fit(data, SMALLEST, TOKENS, 520, 0, out)
    assert weights_of(out) == weights_of(tmp_path / "whole")
