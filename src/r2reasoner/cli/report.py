"""`r2reasoner report`: result files in, one page out, for people who were not there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r2reasoner.cli.ledger import foreign, print_json
from r2reasoner.cli.pool import JsonOption
from r2reasoner.errors import ConfigError, R2Error

if TYPE_CHECKING:
    from r2reasoner.report.page import Page
    from r2reasoner.report.results import Results


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...",
            help="Results of evaluate, outcomes judge, savings; an ablation; training run folders.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.html", help="The page to write.")
    ] = Path("report.html"),
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="The same as Markdown, too.")
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Ledger with the evaluations' traces, for shares by kind of subtask; else the"
            " evaluations' own in $R2REASONER_HOME, if it is there.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained page of results: tables, plots and where each figure comes from."""
    from r2reasoner.report.html import to_html
    from r2reasoner.report.markdown import to_markdown
    from r2reasoner.report.results import read_results

    found = read_results(results)
    if markdown is not None and markdown.resolve() == out.resolve():
        raise ConfigError(f"{out}: --out and --markdown name the same file")
    _check_apart([*([markdown] if markdown else []), out], results)
    page = _build(found, ledger)
    _write(out, to_html(page))
    if markdown is not None:
        _write(markdown, to_markdown(page))
    written = [str(out), *([str(markdown)] if markdown else [])]
    if as_json:
        claims = [
            {"against": c.against, "saving": c.saving, "difference": c.difference, "over": c.over}
            for c in page.claims
        ]
        sections = [section.title for section in page.sections]
        print_json({"out": written, "title": page.title, "claims": claims, "sections": sections})
        return
    typer.echo(foreign(page.title).plain)
    typer.echo(f"written: {', '.join(written)}")


def _check_apart(outputs: list[Path], inputs: list[Path]) -> None:
    """Raise ConfigError where the page would be written over a result."""
    for out in outputs:
        if any(out.resolve() == given.resolve() for given in inputs):
            raise ConfigError(f"{out}: is one of the results; choose another file to write to")


def _build(found: "Results", ledger: Path | None) -> "Page":
    from r2reasoner.ledger import Ledger, evaluations_path
    from r2reasoner.report.build import build

    where = ledger or evaluations_path()
    if not where.is_file():
        if ledger is not None:
            raise ConfigError(f"{ledger}: no such ledger")
        return build(found)
    try:
        opened = Ledger.open(where)
    except R2Error:
        if ledger is not None:
            raise
        return build(found)
    with opened:
        return build(found, opened)


def _write(file: Path, text: str) -> None:
    from r2reasoner.files import write_whole

    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{file}: there is no folder {file.parent}; make it first")
    write_whole(file, text, replace=True)
