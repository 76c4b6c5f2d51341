"""CommonsenseQA's dev questions answered by four systems, two of them sampled many times.

Source: text-davinci-002 with and without "Let's think step by step" from
kojima-takeshi188/zero_shot_cot; llama3.1:8b and llama3.2:3b from lionzwarrior/llm-benchmark, asked
in several runs (machines and numbers of workers), at the default temperature. The runs of one
model on one question are one outcome: its score is the share of right answers over all samples.

Prices: tokens as recorded for the Llamas (they ran on own machines, so Groq's list prices stand
in: $0.05 and $0.08 per million tokens read and written for 8B, $0.06 for 3B); for text-davinci-002
estimated from text length and word counts at OpenAI's list price, $20 per million.
"""

from collections.abc import Iterator
from typing import Final

from r2reasoner.outcomes.layouts.base import (
    Context,
    Found,
    Judged,
    Layout,
    count,
    lettered,
    number,
    object_of,
    per_million,
    text,
    tokens_in,
    tokens_of_words,
    verdict,
)
from r2reasoner.outcomes.layouts.four_systems import DAVINCI, asked_twice
from r2reasoner.outcomes.records import Row
from r2reasoner.types import Usage

NAME: Final = "csqa_dev_outcomes"
ONCE: Final = ("text-davinci-002_zero_shot", "text-davinci-002_zero_shot_cot")
SAMPLED: Final = {
    "llama3.1:8b": per_million("0.05", "Groq's list price", output="0.08"),
    "llama3.2:3b": per_million("0.06", "Groq's list price"),
}


def _records(row: Row, context: Context) -> Iterator[Found]:
    choices, systems = object_of(row, "choices"), object_of(row, "systems")
    if row["gold"] not in choices:
        raise ValueError(f"gold: expected one of {', '.join(choices)}, got {row['gold']!r}")
    question = lettered(text(row, "stem"), [str(choices[letter]) for letter in sorted(choices)])
    if unknown := [name for name in systems if name not in (*ONCE, *SAMPLED)]:
        raise ValueError(
            f"systems: the price of {', '.join(unknown)} is unknown; known:"
            f" {', '.join((*ONCE, *SAMPLED))}"
        )
    for name, found in systems.items():
        judged = _once if name in ONCE else _sampled
        yield from judged(name, question, found, context).records()


def _once(name: str, question: str, found: Row, context: Context) -> Judged:
    words = count(found, "output_words")
    usage = Usage(tokens_in(question), tokens_of_words(words))
    if name.endswith("_cot"):
        usage = asked_twice(question, words)
    return Judged(
        source=NAME,
        text=question,
        model=name,
        score=verdict(found, "correct"),
        at=context.written_at,
        answer=text(found, "prediction", empty=True),
        cost=DAVINCI.cost(usage),
        price=DAVINCI,
    )


def _sampled(name: str, question: str, runs: Row, context: Context) -> Judged:
    """Return the runs of a model as one outcome; tokens and latency are means over samples."""
    samples = {run: count(found, "n") for run, found in runs.items()}
    total = sum(samples.values())
    if total == 0:
        raise ValueError(f"systems: {name} has no samples")
    right = sum(count(found, "n_correct") for found in runs.values())
    if right > total:
        raise ValueError(f"systems: {name} has {right} right answers of {total}")

    def mean(field: str) -> float:
        return sum(samples[run] * number(found, field) for run, found in runs.items()) / total

    usage = Usage(round(mean("prompt_tokens")), round(mean("gen_tokens_mean")))
    return Judged(
        source=NAME,
        text=question,
        model=name,
        score=right / total,
        at=context.written_at,
        usage=usage,
        cost=SAMPLED[name].cost(usage),
        price=SAMPLED[name],
        latency_s=mean("latency_s_mean"),
    )


LAYOUT: Final = Layout(
    fields=frozenset({"stem", "choices", "gold", "systems"}),
    records=_records,
    folder=NAME,
    complete=True,
)
