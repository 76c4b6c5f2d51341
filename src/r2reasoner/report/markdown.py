"""The page as Markdown: the same words and tables, without the pictures."""

from collections.abc import Iterator

from r2reasoner.report.numbers import FIGURE_SPACE, POINT_SPACE
from r2reasoner.report.page import Cell, Claim, Column, Figure, Origin, Page, Table

_PLAIN = str.maketrans({"|": "\\|", "\n": " ", FIGURE_SPACE: None, POINT_SPACE: None})


def to_markdown(page: Page) -> str:
    """Return the page's text."""
    return "\n".join(_lines(page)) + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield from (f"# {page.title}", "", page.lead)
    if page.caution:
        yield from ("", page.caution)
    if page.claims:
        yield ""
    for claim in page.claims:
        yield f"- {_claim(claim)}"
    for section in page.sections:
        yield from ("", f"## {section.title}")
        if section.intro:
            yield from ("", section.intro)
        for block in section.blocks:
            yield from _figure(block) if isinstance(block, Figure) else _table(block)
    yield from ("", "## Where the figures come from")
    for origin in page.origins:
        yield from _origin(origin)
    yield from ("", f"Made by {page.made}.")


def _claim(claim: Claim) -> str:
    saving = claim.saving + (f" ({claim.saving_range})" if claim.saving_range else "")
    difference = claim.difference + (
        f" ({claim.difference_range})" if claim.difference_range else ""
    )
    return f"Against {claim.against}: **{saving}**, at **{difference}**; {claim.over}."


def _figure(figure: Figure) -> Iterator[str]:
    yield from ("", f"*{figure.title}* (drawn in the HTML page): {figure.says}")


def _table(table: Table) -> Iterator[str]:
    yield from ("", f"### {table.title}{_marks(table)}", "")
    yield f"| {' | '.join(_heading(column) for column in table.columns)} |"
    yield f"|{'|'.join('---:' if column.number else '---' for column in table.columns)}|"
    for line in table.lines:
        yield f"| {' | '.join(_cell(cell) for cell in line.cells)} |"
    for note in table.notes:
        yield from ("", note)


def _marks(table: Table) -> str:
    return "".join(f" [{source}]" for source in table.sources)


def _heading(column: Column) -> str:
    return _escaped(f"{column.title}, {column.unit}" if column.unit else column.title)


def _cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    if cell.strong and text:
        text = f"**{text}**"
    return f"{text} ({_escaped(cell.beside)})" if cell.beside else text


def _escaped(text: str) -> str:
    return text.translate(_PLAIN)


def _origin(origin: Origin) -> Iterator[str]:
    yield from ("", f"[{origin.number}] **{_escaped(origin.file)}**")
    if origin.command:
        yield from ("", f"    {origin.command}")
    if origin.facts:
        yield from ("", "; ".join(f"{name} {text}" for name, text in origin.facts))
    for note in origin.notes:
        yield from ("", note)
