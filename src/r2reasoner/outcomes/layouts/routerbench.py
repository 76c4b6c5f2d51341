"""RouterBench: a wide table, one row a sample, three columns a model.

Source: withmartian/routerbench (Hu et al., arXiv 2403.12031). `MODEL` is its score (0 to 1),
`MODEL|total_cost` what the answer cost in dollars, `MODEL|model_response` its text; `prompt` is
the question, `eval_name` its benchmark (the group here), `sample_id` its name. Its authors publish
pickles, which are never loaded here: convert them to Parquet, CSV or JSON lines.
"""

from collections.abc import Iterator
from typing import Final

from r2reasoner.outcomes.layouts.base import (
    Context,
    Found,
    Judged,
    Layout,
    dollars,
    score,
    text,
)
from r2reasoner.outcomes.records import Row

NAME: Final = "routerbench"
COST: Final = "|total_cost"
RESPONSE: Final = "|model_response"


def _records(row: Row, context: Context) -> Iterator[Found]:
    prompt, benchmark = text(row, "prompt"), text(row, "eval_name")
    models = [name.removesuffix(COST) for name in row if name.endswith(COST)]
    if not models:
        raise ValueError(f"no column that ends in {COST}: the price of every model is unknown")
    _refuse_unpriced(row, models)
    for model in models:
        response = row.get(f"{model}{RESPONSE}")
        yield from Judged(
            source=NAME,
            text=prompt,
            model=model,
            score=score(row, model),
            at=context.written_at,
            group=benchmark,
            sample=f"{benchmark} {row.get('sample_id', '')}",
            answer=None if response is None else str(response),
            cost=dollars(row, f"{model}{COST}"),
        ).records()


def _refuse_unpriced(row: Row, models: list[str]) -> None:
    answered = {name.removesuffix(RESPONSE) for name in row if name.endswith(RESPONSE)}
    if unpriced := sorted(answered - set(models)):
        raise ValueError(f"the price of {', '.join(unpriced)} is unknown: no column with {COST}")


LAYOUT: Final = Layout(
    fields=frozenset({"prompt", "eval_name"}), records=_records, folder=NAME, complete=True
)
