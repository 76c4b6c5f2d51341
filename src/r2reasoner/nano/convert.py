"""Convert a fitted nano model to a CTranslate2 folder in fp16, with its codec and checksum."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from r2reasoner.client.embedded import checksum
from r2reasoner.client.text import BOS, EOS, PAD, UNK


def convert(model: Path, tokens: list[str], out: Path) -> str:
    """Write the converted model to `out`, whole or not at all; return its sha256."""
    from ctranslate2.converters import TransformersConverter
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    numbers = {token: i for i, token in enumerate(tokens)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(numbers, unk_token=UNK)),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        source, part = Path(work) / "source", Path(work) / "converted"
        shutil.copytree(model, source)  # what was trained stays as it was written
        tokenizer.save_pretrained(source)
        TransformersConverter(str(source)).convert(str(part), quantization="float16")
        (part / "codec.json").write_text(json.dumps({"codec": "words"}))
        if out.exists():
            shutil.rmtree(out)
        os.replace(part, out)
    return checksum(out)
