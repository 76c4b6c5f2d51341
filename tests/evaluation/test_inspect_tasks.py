import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r2reasoner.benchmarks import BENCHMARKS, CSQA, MUSIQUE
from r2reasoner.evaluation.sources import Source
from r2reasoner.mock import MockProvider, in_thread

inspect_ai = pytest.importorskip("inspect_ai", reason="needs the extra inspect")
pytestmark = pytest.mark.filterwarnings("default")

CHOICES = {"A": "doctor", "B": "bookstore"}
ROWS = [
    {"stem": f"Question {n}?", "choices": CHOICES, "answer": letter}
    for n, letter in enumerate("ABB")
]


@pytest.fixture
def provider() -> Iterator[MockProvider]:
    with in_thread(MockProvider(answer=lambda call: "I think the answer is (B).")) as provider:
        yield provider


def evaluated(task: Any, provider: MockProvider, folder: Path) -> Any:
    from inspect_ai.model import get_model

    model = get_model("openai-api/mock/any", base_url=provider.base_url, api_key="x")
    (log,) = inspect_ai.eval(task, model=model, display="none", log_dir=str(folder / "logs"))
    assert log.status == "success", log.error
    return log


def items(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "items.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def metrics(log: Any) -> dict[str, dict[str, float]]:
    return {
        score.name: {name: metric.value for name, metric in score.metrics.items()}
        for score in log.results.scores
    }


def test_a_task_asks_our_prompt_over_http_and_scores_as_we_do(
    provider: MockProvider, tmp_path: Path
) -> None:
    from r2reasoner.evaluation.inspect_tasks import inspect_task

    file = items(tmp_path, ROWS)
    log = evaluated(inspect_task(CSQA, Source(file)), provider, tmp_path)
    assert metrics(log)["right"]["accuracy"] == pytest.approx(2 / 3)
    assert len(provider.books) == 3
    first = CSQA.load(file)[0]
    assert {sample.id for sample in log.samples} == {item.id for item in CSQA.load(file)}
    assert CSQA.query(first, plain=False) in {sample.input for sample in log.samples}


def test_f1_stands_beside_exact_match(provider: MockProvider, tmp_path: Path) -> None:
    from r2reasoner.evaluation.inspect_tasks import inspect_task

    paragraphs = [{"title": "t", "paragraph_text": "p"}]
    row = {"question": "q?", "paragraphs": paragraphs, "answer": "I think B"}
    log = evaluated(inspect_task(MUSIQUE, Source(items(tmp_path, [row]))), provider, tmp_path)
    assert metrics(log)["right"]["accuracy"] == 0
    assert metrics(log)["score"]["mean"] == pytest.approx(2 * 3 / (3 + 5))


def test_every_benchmark_is_a_task_by_name() -> None:
    from r2reasoner.evaluation.inspect_tasks import TASKS

    assert list(TASKS) == list(BENCHMARKS)
    task = TASKS["scan"](split="length", limit=3, plain=True)
    assert len(task.dataset) == 3
