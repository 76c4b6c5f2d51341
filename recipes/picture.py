"""Draw docs/images/run.svg: a real run of the nano pool, as the terminal shows it."""

import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from r2reasoner.bill import bill
from r2reasoner.cli.view import PlanView, print_answer, print_bill
from r2reasoner.config import settings
from r2reasoner.ledger import Ledger
from r2reasoner.pool.load import load_pool
from r2reasoner.router import Router

QUERIES = (
    "walk around left twice and run opposite right thrice",
    "( 12 + 34 ) * 5 - ( 61 - 17 )",
)


def main() -> None:
    """Run the queries and write the picture."""
    pool = load_pool("nano")
    console = Console(record=True, width=118, force_terminal=True)
    with Ledger.in_memory() as ledger:
        for query in QUERIES:
            trace = Router.open(pool, settings(), ledger).ask(query)
            console.print(f'[bold green]$[/] r2reasoner ask "{query}"')
            console.print(PlanView.of(trace))
            print_answer(trace, console)
            print_bill(trace, bill(trace, pool), console)
            console.print()
    # the font is named by a web address in rich's own template; a picture should need no network
    template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    out = Path(__file__).parents[1] / "docs/images/run.svg"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(console.export_svg(title="r2reasoner", code_format=template))


if __name__ == "__main__":
    main()
