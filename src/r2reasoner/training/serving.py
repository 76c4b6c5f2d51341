"""From a policy in training to the policy that is served: convert, check, put in the pool.

A nano policy (and any other that CTranslate2 runs) is served in process from a converted folder,
held to its checksum. `check` proves that what is served is what was trained.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest
from r2reasoner.client.embedded import EmbeddedClient, checksum
from r2reasoner.errors import CallError, DataError
from r2reasoner.ledger import Ledger, new_id
from r2reasoner.nano.convert import convert as convert_words
from r2reasoner.nano.train import nano_card
from r2reasoner.pool.cards import Card, Endpoint, Pool
from r2reasoner.training.policies import Policy, load_policy
from r2reasoner.training.recipe import PolicyName, Recipe
from r2reasoner.training.seats import billed_like
from r2reasoner.types import Message, Role

LEAST_ALIKE: Final = 0.97
NEAR_TIE: Final = 0.02  # nats
PARAMETERS: Final = "parameters.json"


def convert(trained: Path, out: Path) -> None:
    """Convert a saved policy to a CTranslate2 folder, whole or not at all.

    Nano policies become fp16; others, with an adapter merged into them, int8.
    """
    policy = load_policy(trained)
    parameters = sum(p.numel() for p in policy.model.parameters())
    if policy.tokens is not None:
        convert_words(trained, list(policy.tokens), out)
    else:
        _convert_chat(policy, out)
    (out / PARAMETERS).write_text(json.dumps({"parameters": parameters}))


def _convert_chat(policy: Policy, out: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    model = (
        policy.model.merge_and_unload() if hasattr(policy.model, "peft_config") else policy.model
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        source, part = Path(work) / "source", Path(work) / "converted"
        model.save_pretrained(source)
        policy.tokenizer.save_pretrained(source)
        TransformersConverter(str(source)).convert(str(part), quantization="int8")
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (source / name).is_file():
                shutil.copy(source / name, part)
        if out.exists():
            shutil.rmtree(out)
        os.replace(part, out)


def policy_card(pool: Pool, recipe: Recipe, name: PolicyName, served: Path) -> Card:
    """Return the card of a policy that is served from a converted folder.

    A nano policy costs one pico-dollar per parameter and token; any other what the pool says
    (`billed_like`, which raises ConfigError where it does not).
    """
    policy = recipe.policies[name]
    parameters = int(json.loads((served / PARAMETERS).read_text())["parameters"])
    endpoint = Endpoint(name="policies", kind="embedded", path=served.parent)
    card = nano_card(name, endpoint, parameters, plan_format="line")
    if policy.shape is None:
        like = billed_like(pool, recipe, name)
        card = replace(card, price=like.price, context=like.context, prompt=policy.prompt)
    return replace(
        card,
        model=served.name,
        max_tokens=policy.max_completion,
        sha256=checksum(served),
        dial=policy.dial,
        knows=tuple(w.name for w in pool.workers) if name == "allocator" else (),
    )


def check(policy: Policy, card: Card, asked: Sequence[str], max_tokens: int) -> float:
    """Return the share of prompts on which the served policy says what the trained one says.

    Greedy both. Where two answers part at tokens that the trained policy finds equally likely
    (`NEAR_TIE`), they count as one: engines round differently, and a policy that knows nothing yet
    has many such ties. Raises DataError where the checksum is another, or fewer than LEAST_ALIKE
    agree.
    """
    assert card.endpoint.path is not None
    folder = card.endpoint.path / card.model
    if card.sha256 is not None and checksum(folder) != card.sha256:
        raise DataError(f"{folder}: is not the policy that was trained (another checksum)")
    theirs = asyncio.run(_said(card, asked, max_tokens))
    ours = _greedy(policy, asked, max_tokens)
    same = [
        one == other or _is_near_tie(policy, text, one, other)
        for text, one, other in zip(asked, ours, theirs, strict=True)
    ]
    alike = sum(same) / max(1, len(asked))
    if alike < LEAST_ALIKE:
        raise DataError(
            f"{folder}: the served policy agrees with the trained one on {alike:.0%} of"
            f" {len(asked)} prompts, expected {LEAST_ALIKE:.0%}; convert it again"
        )
    return alike


async def _said(card: Card, asked: Sequence[str], max_tokens: int) -> list[str]:
    """Return what the served policy says, greedily; nothing where it wrote nothing."""
    client = EmbeddedClient()

    async def one(text: str, meter: Meter) -> str:
        request = ChatRequest(
            messages=(Message("user", text),), max_tokens=max_tokens, role=Role.CHECK
        )
        try:
            return (await client.complete(card, request, meter)).text
        except CallError:
            return ""

    with Ledger.in_memory() as ledger:
        meter = Meter(ledger, new_id())
        said = await asyncio.gather(*(one(text, meter) for text in asked))
    await client.close()
    return said


def _greedy(policy: Policy, asked: Sequence[str], max_tokens: int) -> list[str]:
    """Return what the policy in training says, greedily."""
    encoded = policy.encode(asked)
    policy.model.eval()
    with torch.no_grad():
        out = policy.model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            max_new_tokens=max_tokens,
            do_sample=False,
        )
    start = encoded["input_ids"].shape[1]
    texts = policy.tokenizer.batch_decode(out[:, start:], skip_special_tokens=True)
    return [policy.said(text) for text in texts]


def _is_near_tie(policy: Policy, asked: str, one: str, other: str) -> bool:
    """Tell whether two answers part where the policy finds either next token equally likely."""
    first, second = policy.answer_ids(one), policy.answer_ids(other)
    at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    if at is None:
        return False
    question = policy.encode([asked])["input_ids"]
    tokens = torch.cat([question, torch.tensor([first[:at]], dtype=question.dtype)], dim=1)
    with torch.no_grad():
        likely = policy.model(input_ids=tokens).logits[0, -1].float().log_softmax(-1)
    return abs(float(likely[first[at]] - likely[second[at]])) < NEAR_TIE
