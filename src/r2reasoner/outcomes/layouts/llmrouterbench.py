"""LLMRouterBench: a file of results for each benchmark and model, or a split made of them.

Source: ynulihao/LLMRouterBench (arXiv 2601.07206). `results/bench/<dataset>/<split>/<model>/` has
JSON documents with `records` of one run; of several runs the last counts, as in its own loader,
and demo runs are left out. Its adaptors also write splits as JSON lines: `records` has the scores
and `usages` tokens and cost of each model. There a model that never answered a question stands
with score, tokens and cost 0: a hole, which is left out. Costs and tokens as recorded; a score of
null was not judged.
"""

from collections.abc import Iterator
from typing import Final

from r2reasoner.outcomes.layouts.base import (
    Context,
    Found,
    Judged,
    Layout,
    Skipped,
    count,
    dollars,
    object_of,
    score,
    text,
)
from r2reasoner.outcomes.records import Row
from r2reasoner.types import Usage

NAME: Final = "llmrouterbench"
SPLITS_NAME: Final = "llmrouterbench_split"


def _runs(row: Row, context: Context) -> Iterator[Found]:
    if row.get("demo"):
        yield Skipped("record of a demo run")
        return
    dataset, prediction = text(row, "dataset_name"), row.get("prediction")
    yield from Judged(
        source=NAME,
        text=text(row, "origin_query"),
        model=text(row, "model_name"),
        score=None if row["score"] is None else score(row, "score"),
        at=context.written_at,
        group=dataset,
        sample=f"{dataset} {row['split']} {row.get('index', '')}",
        answer=None if prediction is None else str(prediction),
        usage=_usage(row),
        cost=dollars(row, "cost"),
    ).records()


def _splits(row: Row, context: Context) -> Iterator[Found]:
    query, dataset = text(row, "query"), text(row, "dataset")
    scores, usages = object_of(row, "records"), object_of(row, "usages")
    for model in scores:
        if model not in usages:
            raise ValueError(f"usages: the price of {model!r} is unknown")
        usage, cost = _usage(usages[model]), dollars(usages[model], "cost")
        if usage == Usage() and cost == 0:
            yield Skipped("model that never answered the question")
            continue
        yield from Judged(
            source=NAME,
            text=query,
            model=model,
            score=score(scores, model),
            at=context.written_at,
            group=dataset,
            sample=f"{dataset} {row.get('index', '')}",
            usage=usage,
            cost=cost,
        ).records()


def _usage(row: Row) -> Usage:
    return Usage(count(row, "prompt_tokens"), count(row, "completion_tokens"))


RUNS: Final = Layout(
    fields=frozenset(
        {"dataset_name", "split", "model_name", "origin_query", "ground_truth", "score", "cost"}
    ),
    records=_runs,
    folder=NAME,
    run=lambda row: (str(row["dataset_name"]), str(row["split"]), str(row["model_name"])),
)
SPLITS: Final = Layout(
    fields=frozenset({"query", "dataset", "records", "usages"}), records=_splits, folder=NAME
)
