import io

from rich.console import Console

from pools import given, plan_of
from r2reasoner.cli.view import PlanView
from r2reasoner.events import (
    Allocated,
    FellBack,
    Planned,
    SubtaskFailed,
    SubtaskFinished,
    SubtaskStarted,
)
from r2reasoner.types import Step

PLAN = plan_of("first [thing]", "second #1")


def shown(view: PlanView) -> list[str]:
    console = Console(width=120, no_color=True, record=True, file=io.StringIO())
    console.print(view)
    return console.export_text().splitlines()


def step(number: int, answer: str | None, error: str | None = None) -> Step:
    return Step(number, "small", "p", answer, error, 1.0, 1.5)


def test_the_tree_grows_with_the_events() -> None:
    view = PlanView("the query")
    assert shown(view) == ["the query", "└── planning…"]
    view.take(Planned(PLAN, ("json_schema: repaired once: why", "json_schema"), failed=False))
    lines = shown(view)
    assert lines[1] == "└── 2 subtasks"
    assert "repaired once" in lines[2]
    assert "#1 first [thing]  waiting" in lines[3]
    view.take(Allocated(given(PLAN, "small")))
    assert any("small  waiting" in line for line in shown(view))
    view.take(SubtaskStarted(1, "small", "p"))
    assert any("small  …" in line for line in shown(view))
    view.take(FellBack(1, "small", "large", "it is down"))
    view.take(SubtaskFinished(step(1, "the  answer\nof it")))
    text = "\n".join(shown(view))
    assert "→ the answer of it  500 ms" in text
    assert "fell back small → large: it is down" in text
    view.take(SubtaskFailed(step(2, None, "nobody could")))
    assert "failed: nobody could" in "\n".join(shown(view))


def test_what_models_write_commands_no_terminal() -> None:
    view = PlanView("\x1b[31mquery")
    view.take(Planned(plan_of("a\x9b", "b"), (), failed=False))
    view.take(SubtaskFinished(step(1, "\x1b]0;owned\x07 [bold]x[/]")))
    text = "\n".join(shown(view))
    assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert "[bold]x[/]" in text


def test_long_texts_are_cut() -> None:
    view = PlanView("word " * 1000)
    view.take(Planned(plan_of("x" * 5000), (), failed=False))
    assert sum(map(len, shown(view))) < 1000
