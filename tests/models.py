"""Real CTranslate2 models that say what a test wants, made with numpy alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs import TransformerDecoderModelSpec, common_spec

from r2reasoner.client.text import SPECIAL


def write_model(folder: Path, words: Sequence[str], chain: Mapping[str, Sequence[str]]) -> Path:
    """Write a converted model to which each token says what may follow, the likeliest first.

    Attention and MLP are zero, embeddings are one-hot: the output layer is the table.
    """
    tokens = [*SPECIAL, *words]
    size = len(tokens)
    follows = np.zeros((size, size), np.float32)
    for token, following in chain.items():
        for place, other in enumerate(following):
            follows[tokens.index(other), tokens.index(token)] = 3 - place
    spec = TransformerDecoderModelSpec.from_config(
        num_layers=1,
        num_heads=1,
        activation=common_spec.Activation.SWISH,
        rms_norm=True,
        ffn_glu=True,
        rotary_dim=0,
        rotary_interleave=False,
    )
    decoder: Any = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = np.eye(size, dtype=np.float32)
    decoder.projection.weight = follows
    decoder.layer_norm.gamma = np.ones(size, np.float32)
    layer = decoder.layer[0]
    for norm in (layer.self_attention.layer_norm, layer.ffn.layer_norm):
        norm.gamma = np.ones(size, np.float32)
    layer.self_attention.linear[0].weight = np.zeros((3 * size, size), np.float32)
    layer.self_attention.linear[1].weight = np.zeros((size, size), np.float32)
    layer.ffn.linear_0.weight = np.zeros((4, size), np.float32)
    layer.ffn.linear_0_noact.weight = np.zeros((4, size), np.float32)
    layer.ffn.linear_1.weight = np.zeros((size, 4), np.float32)
    spec.register_vocabulary(tokens)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<bos>", "<eos>", "<unk>"
    spec.validate()
    spec.optimize()
    folder.mkdir(parents=True)
    spec.save(str(folder))
    (folder / "codec.json").write_text(json.dumps({"codec": "words"}))
    return folder
