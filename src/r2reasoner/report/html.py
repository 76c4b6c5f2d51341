"""The page as one HTML file: styles, pictures and the little script stand inside it.

It loads nothing and sends nothing: a content security policy says so. Without the script all is
there, only tables cannot be sorted. Needs Jinja2.
"""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Final

from r2reasoner.errors import ConfigError
from r2reasoner.report.page import Figure, Page, Table

TEMPLATES: Final = "r2reasoner.report.templates"


def to_html(page: Page) -> str:
    """Return the page's HTML. Raises ConfigError where Jinja2 is missing."""
    try:
        from jinja2 import DictLoader, Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise ConfigError("a report needs Jinja2: pip install 'r2reasoner[evaluation]'") from None
    style, script = _read("page.css"), _read("page.js")
    environment = Environment(
        loader=DictLoader({"page.html": _read("page.html.j2")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        page=page,
        style=Markup(style),
        script=Markup(script),
        style_hash=_digest(style),
        script_hash=_digest(script),
        is_figure=lambda block: isinstance(block, Figure),
        drawn=Markup,
        beside_width=_beside_width,
    )


def _beside_width(table: Table, column: int) -> int:
    """Return the most characters beside a column's numbers, so that the numbers stay in line."""
    return max((len(line.cells[column].beside) for line in table.lines), default=0)


def _read(name: str) -> str:
    return files(TEMPLATES).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
