"""LLMRouter: scores of nine models on 13 tasks.

Source: ulab-uiuc/LLMRouter, `data/dcrouter_preprocessed` and `data/example_data`. A score is what
the source recorded (exact match, F1, tests passed, coverage), from 0 to 1. An item's text is the
query and its options, as far as the source has them. The chatqa models fail on answer format.

Prices: the source gives each model's price per million tokens (`models.jsonl`) and no tokens. A
query's cost is that price for the text's tokens (4 characters a token) and an answer of a stated
128 tokens. Where `models.jsonl` is not there, the prices that it held on the day this was written
are taken; a model in neither is an error.
"""

from ast import literal_eval
from collections.abc import Iterator, Sequence
from typing import Any, Final

from r2reasoner.outcomes.layouts.base import (
    Context,
    Found,
    Judged,
    Layout,
    lettered,
    number,
    object_of,
    per_million,
    score,
    text,
    tokens_in,
)
from r2reasoner.outcomes.records import Row
from r2reasoner.pool.cards import Price
from r2reasoner.types import Usage

NAME: Final = "llmrouter_nine_models"
MODELS: Final = "models"
ANSWER_TOKENS: Final = 128
PUBLISHED: Final = {
    "codegemma-7b": "0.2",
    "gemma-2-9b-it": "0.1",
    "llama-3.1-8b-instruct": "0.2",
    "llama-3.1-nemotron-51b-instruct": "0.9",
    "llama-3.3-nemotron-super-49b-v1": "0.9",
    "llama3-chatqa-1.5-70b": "0.9",
    "llama3-chatqa-1.5-8b": "0.2",
    "mistral-7b-instruct-v0.3": "0.2",
    "qwen2.5-7b-instruct": "0.2",
}
"""Dollars per million tokens, read or written."""


def _records(row: Row, context: Context) -> Iterator[Found]:
    question, task = _question(row), text(row, "task")
    text(row, "ground_truth")
    scores = object_of(row, "scores")
    for model in scores:
        price = _price(model, context.beside.get(MODELS, ()))
        yield from Judged(
            source=NAME,
            text=question,
            model=model,
            score=score(scores, model),
            at=context.written_at,
            group=task,
            cost=price.cost(Usage(tokens_in(question), ANSWER_TOKENS)),
            price=price,
        ).records()


def _question(row: Row) -> str:
    query, choices = text(row, "query"), row["choices"]
    options = _options(choices)
    if not options:
        return query
    if any(option.startswith("assert ") for option in options):
        return "\n".join([query, *options])  # a program's tests
    return lettered(query, options)


def _options(choices: Any) -> Sequence[str]:
    """Return the options that the source keeps as a Python literal: a list, or one in a dict."""
    if choices is None or choices == "":
        return ()
    try:
        found = literal_eval(choices) if isinstance(choices, str) else choices
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if isinstance(found, dict):
        found = found.get("text")
    if not isinstance(found, list):
        raise ValueError(f"choices: expected a list of options, got {str(choices)[:40]!r}")
    return [str(option) for option in found]


def _price(model: str, priced: Sequence[Row]) -> Price:
    for row in priced:
        if row["model"] == model:
            rates = [number(row, f"{side}_price_per_million") for side in ("input", "output")]
            return per_million(f"{rates[0]}", "models.jsonl", output=f"{rates[1]}")
    if model not in PUBLISHED:
        raise ValueError(f"scores: the price of {model!r} is unknown: models.jsonl has none")
    return per_million(PUBLISHED[model], "LLMRouter")


LAYOUT: Final = Layout(
    fields=frozenset({"task", "query", "choices", "ground_truth", "scores"}),
    records=_records,
    folder=NAME,
    beside={
        MODELS: frozenset({"model", "input_price_per_million", "output_price_per_million"}),
    },
    complete=True,
)
