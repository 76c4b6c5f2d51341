"""Independent subtasks run at the same time, over a real socket, by the provider's own clock.

How close the whole comes to its critical path is a figure of time: benchmarks/critical_path.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pools import answers, plan_json, routing
from r2reasoner.ledger import Ledger
from r2reasoner.mock import BookEntry, MockProvider
from r2reasoner.types import AnswerStatus

ROOT = Path(__file__).parents[2]
LATENCY_S = 0.2
WIDTH = 8
PLAN = plan_json(
    *(f"part {n}" for n in range(1, WIDTH + 1)), ("put together", list(range(1, WIDTH + 1)))
)


def ended(book: BookEntry) -> float:
    assert book.finished_at is not None
    return book.finished_at


async def test_all_parts_are_asked_before_the_first_is_answered(ledger: Ledger) -> None:
    models = json.dumps({"models": ["medium"] * (WIDTH + 1)})
    provider = MockProvider(answer=answers(PLAN, allocator=models), latency_s=LATENCY_S)
    async with routing(provider, ledger, allocator="large") as router:
        trace = await router.trace("a task in parts")
    assert trace.answer.status is AnswerStatus.COMPLETE
    planner, allocator, *parts, last = provider.books
    assert [b.role for b in provider.books] == [
        "decomposer",
        "allocator",
        *["worker"] * WIDTH,
        "final",
    ]
    assert ended(planner) <= allocator.started_at
    assert ended(allocator) <= min(b.started_at for b in parts)
    assert max(b.started_at for b in parts) < min(map(ended, parts))
    assert max(map(ended, parts)) <= last.started_at


async def test_one_slow_part_holds_up_only_what_needs_it(ledger: Ledger) -> None:
    plan = plan_json("slow", "quick", ("after slow", [1]), ("after quick", [2]), ("end", [3, 4]))
    provider = MockProvider(
        answer=answers(plan),
        latency_s=lambda call: 0.5 if call.last_user.endswith("Your step: slow") else 0.02,
    )
    async with routing(provider, ledger) as router:
        trace = await router.trace("a task in parts")
    step = {s.subtask: s for s in trace.steps}
    assert step[4].finished_s < step[1].finished_s <= step[3].started_s


def test_the_figure_can_be_made(tmp_path: Path) -> None:
    out = tmp_path / "critical_path.json"
    command = ["benchmarks/critical_path.py", "--rounds", "1", "--latency", "0.05"]
    done = subprocess.run(
        [sys.executable, *command, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result == json.loads(done.stdout)
    assert result["ratio"] == min(result["ratios"]) == pytest.approx(result["median"])
    assert 1 <= result["ratio"] < WIDTH  # far below what one part after the other would take
