"""GSM8K's test questions answered by four systems.

Source: Mixtral-8x7B and gpt-4-1106-preview from lm-sys/RouteLLM, text-davinci-002 with and without
"Let's think step by step" from kojima-takeshi188/zero_shot_cot. Verdicts and word counts only.

Prices are estimates: a question's tokens from its length (4 characters a token), the answer's from
its words (4 tokens to 3 words), at RouteLLM's stated averages ($24.7 and $0.24 per million
tokens, see `routellm`) and OpenAI's list price of text-davinci-002, $20 per million tokens read or
written. Zero-shot-CoT asks twice, the second time with its reasoning before it: both are counted.
"""

from collections.abc import Iterator
from typing import Final

from r2reasoner.outcomes.layouts.base import (
    Context,
    Found,
    Judged,
    Layout,
    count,
    per_million,
    text,
    tokens_in,
    tokens_of_words,
    verdict,
)
from r2reasoner.outcomes.layouts.routellm import PRICES, STRONG, WEAK
from r2reasoner.outcomes.records import Row
from r2reasoner.types import Usage

NAME: Final = "gsm8k_four_systems"
DAVINCI: Final = per_million("20", "OpenAI's list price of text-davinci-002")
SYSTEMS: Final = (
    ("text-davinci-002_zero_shot", "zero_shot_output_words", DAVINCI),
    ("text-davinci-002_zero_shot_cot", "zero_shot_cot_output_words", DAVINCI),
    ("mixtral-8x7b-instruct", "mixtral_output_words", PRICES[WEAK]),
    ("gpt-4-1106-preview", "gpt-4-1106_output_words", PRICES[STRONG]),
)
"""System (its verdict is `<system>_correct`), where its words are counted, price."""


def asked_twice(question: str, words: int) -> Usage:
    """Return the tokens of zero-shot-CoT: the reasoning, then the answer from it."""
    asked, reasoned = tokens_in(question), tokens_of_words(words)
    return Usage(2 * asked + reasoned, reasoned)


def _records(row: Row, context: Context) -> Iterator[Found]:
    prompt = text(row, "prompt")
    text(row, "gold")
    for system, counted, price in SYSTEMS:
        words = count(row, counted)
        usage = Usage(tokens_in(prompt), tokens_of_words(words))
        if system.endswith("_cot"):
            usage = asked_twice(prompt, words)
        yield from Judged(
            source=NAME,
            text=prompt,
            model=system,
            score=verdict(row, f"{system}_correct"),
            at=context.written_at,
            cost=price.cost(usage),
            price=price,
        ).records()


LAYOUT: Final = Layout(
    fields=frozenset({"prompt", "gold", *(f"{system}_correct" for system, _, _ in SYSTEMS)}),
    records=_records,
    folder=NAME,
)
