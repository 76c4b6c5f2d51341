"""RouteLLM's verdicts of a strong and a weak model: GSM8K, MMLU and MT-Bench.

Source: lm-sys/RouteLLM, `routellm/evals`. Weak is Mixtral-8x7B-Instruct-v0.1, strong
gpt-4-1106-preview. Rows that RouteLLM leaves out as contaminated (near its own training data) are
kept: nothing here is trained on that data, and its published end points (GSM8K 63.84 and 85.67,
MMLU 68.08 and 80.58) are over all rows.

Prices: the source recorded none. They are estimated from the length of the texts (4 characters a
token) at what the paper states as average cost of the two: $24.7 and $0.24 per million tokens
(Ong et al., RouteLLM, arXiv 2406.18665, section on cost). Not counted: the examples that stood
before each question (8 on GSM8K, 5 on MMLU), which are not in the files. GSM8K has the answers'
texts; an MMLU answer is one letter, one token; MT-Bench answers are not in the files: a stated
300 tokens each.

MT-Bench scores (1 to 10, by a judge) are divided by ten; its two turns are two samples of an item
whose text is the first turn, which is what RouteLLM routes on. One MMLU text may stand under
several subjects, with other examples before it: those are samples of one item too.
"""

from collections.abc import Iterator
from typing import Final

from r2reasoner.outcomes.layouts.base import (
    Context,
    Found,
    Judged,
    Layout,
    number,
    per_million,
    text,
    tokens_in,
    verdict,
)
from r2reasoner.outcomes.records import Row
from r2reasoner.types import Usage

GSM8K_NAME: Final = "routellm_gsm8k"
MMLU_NAME: Final = "routellm_mmlu"
MTBENCH_NAME: Final = "routellm_mtbench"

WEAK: Final = "mixtral-8x7b-instruct-v0.1"
STRONG: Final = "gpt-4-1106-preview"
STATED: Final = "RouteLLM, arXiv 2406.18665"
PRICES: Final = {WEAK: per_million("0.24", STATED), STRONG: per_million("24.7", STATED)}

LETTER_TOKENS: Final = 1
TURN_TOKENS: Final = 300
TOP_SCORE: Final = 10


def _gsm8k(row: Row, context: Context) -> Iterator[Found]:
    prompt = text(row, "prompt")
    text(row, "gold")
    for model, side in ((WEAK, "weak"), (STRONG, "strong")):
        answer = text(row, f"{side}_response", empty=True)
        price = PRICES[model]
        yield from Judged(
            source=GSM8K_NAME,
            text=prompt,
            model=model,
            score=verdict(row, f"{side}_correct"),
            at=context.written_at,
            answer=answer,
            cost=price.cost(Usage(tokens_in(prompt), tokens_in(answer))),
            price=price,
        ).records()


def _mmlu(row: Row, context: Context) -> Iterator[Found]:
    prompt, domain = text(row, "prompt"), text(row, "domain")
    for model, side in ((WEAK, "weak"), (STRONG, "strong")):
        price = PRICES[model]
        yield from Judged(
            source=MMLU_NAME,
            text=prompt,
            model=model,
            score=verdict(row, f"{side}_correct"),
            at=context.written_at,
            group=domain,
            sample=domain,
            cost=price.cost(Usage(tokens_in(prompt), LETTER_TOKENS)),
            price=price,
        ).records()


def _mtbench(row: Row, context: Context) -> Iterator[Found]:
    prompt, turn = text(row, "first_turn_prompt"), row["turn"]
    if turn not in (1, 2):
        raise ValueError(f"turn: expected 1 or 2, got {turn!r}")
    name = text(row, "model")
    model = WEAK if name.lower().endswith(WEAK) else name
    if model not in PRICES:
        raise ValueError(f"model: the price of {name!r} is unknown; known: {', '.join(PRICES)}")
    points = number(row, "score")
    if not 1 <= points <= TOP_SCORE:
        raise ValueError(f"score: expected 1 to {TOP_SCORE}, got {points:g}")
    yield from Judged(
        source=MTBENCH_NAME,
        text=prompt,
        model=model,
        score=points / TOP_SCORE,
        at=context.written_at,
        group=text(row, "category"),
        sample=f"turn {turn}",
        cost=PRICES[model].cost(Usage(tokens_in(prompt), TURN_TOKENS)),
        price=PRICES[model],
    ).records()


GSM8K: Final = Layout(
    fields=frozenset(
        {"prompt", "gold", "weak_correct", "strong_correct", "weak_response", "strong_response"}
    ),
    records=_gsm8k,
    folder=GSM8K_NAME,
)
MMLU: Final = Layout(
    fields=frozenset({"domain", "prompt", "weak_correct", "strong_correct"}),
    records=_mmlu,
    folder=MMLU_NAME,
)
MTBENCH: Final = Layout(
    fields=frozenset({"turn", "model", "score", "category", "first_turn_prompt"}),
    records=_mtbench,
    folder=MTBENCH_NAME,
    complete=True,
)
