"""The page as a whole, from files to HTML and Markdown."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from r2reasoner.report.build import build
from r2reasoner.report.html import to_html
from r2reasoner.report.markdown import to_markdown
from r2reasoner.report.page import Figure, Page, Table
from r2reasoner.report.results import read_results
from r2reasoner.training.metrics import append
from results_on_disk import evaluated, judged, strategy, write

pytest.importorskip("jinja2")
VOID = {"meta", "br", "link"}


class Structure(HTMLParser):
    """Checks that tags close in order, and gathers ids, links to them, and what loads."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")
            if name in ("src", "srcset", "data"):
                self.loads.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def page(tmp_path: Path) -> Page:
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.parent.mkdir()
    for step in range(50):
        append(metrics, "grpo-1-allocator", step, {"reward": step / 50, "accuracy": 0.5})
    append(metrics, "grpo-1-allocator", 50, {"val_accuracy": 0.75, "paid_pico": 10, "calls": 3})
    hostile = strategy("<img src=x>|", 0.5, 3e-6, split="a", unscored=3)
    first = evaluated("a")
    first["rows"].append(hostile)
    files = [
        write(tmp_path / "a.json", first),
        write(tmp_path / "b.json", evaluated("b")),
        write(tmp_path / "j.json", judged()),
    ]
    return build(read_results([*files, metrics.parent]), now=datetime(2026, 11, 25, tzinfo=UTC))


def test_the_page_has_every_section(page: Page) -> None:
    assert [section.id for section in page.sections] == [
        "average",
        "b-toy-a",
        "b-toy-b",
        "shares",
        "tax",
        "trouble",
        "recorded",
        "training",
    ]
    assert page.title == "r2 costs 90 % less than CoT, at 2.0 points less accuracy"
    assert page.caution == "r2 is on the Pareto front on all 2 sets of items."


def test_every_figure_names_a_source_that_is_there(page: Page) -> None:
    known = {origin.number for origin in page.origins}
    blocks: list[Table | Figure] = [b for s in page.sections for b in s.blocks]
    assert all(block.sources and set(block.sources) <= known for block in blocks)
    first = page.origins[0]
    assert first.command == "r2reasoner evaluate toy.jsonl --split a"
    assert ("commit", "abc123abc123") in first.facts
    assert ("date", "2026-11-24 20:00:00 UTC") in first.facts


def test_the_html_is_whole_loads_nothing_and_shows_foreign_names_as_text(page: Page) -> None:
    html = to_html(page)
    structure = Structure()
    structure.feed(html)
    assert structure.open == []
    assert structure.loads == []
    assert len(structure.ids) == len(set(structure.ids))
    assert all(link.startswith("#") and link[1:] in structure.ids for link in structure.links)
    assert "<img" not in html
    assert "&lt;img src=x&gt;" in html
    assert not re.search(r"https?://", html)


def test_markdown_has_the_same_tables(page: Page) -> None:
    markdown = to_markdown(page)
    tables = [b for s in page.sections for b in s.blocks if isinstance(b, Table)]
    assert markdown.count("|---") + markdown.count("|---:") >= len(tables)
    for table in tables:
        assert f"### {table.title}" in markdown
    assert "| ● | **r2** | 90.0 (86.5 to 93.5) |" in markdown
    assert "<img src=x>\\|" in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    for row in rows:
        assert row.endswith("|")


def test_unknown_costs_are_unknown_and_not_drawn(tmp_path: Path) -> None:
    document = evaluated()
    document["rows"][0]["net_cost"] = None
    document["comparisons"] = []
    page = build(read_results([write(tmp_path / "a.json", document)]))
    markdown = to_markdown(page)
    assert "| unknown |" in markdown
    assert page.claims == []
    figure = next(b for s in page.sections for b in s.blocks if isinstance(b, Figure))
    assert "1 without a known accuracy" in figure.notes[-1]
    assert "r2 is off the Pareto front on toy all." in page.caution
