"""The `r2reasoner` command: mounts every command group and turns our errors into messages.

Modules of commands import heavy things inside functions, so that `--help` is quick.
"""

import json
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from r2reasoner import __version__
from r2reasoner.cli import (
    ask,
    build,
    calibrate,
    demo,
    evaluate,
    key,
    ledger,
    mock,
    nano,
    outcomes,
    pool,
    pool_add,
    report,
    savings,
    serve,
    trace,
    train,
)
from r2reasoner.cli.exits import INTERRUPTED
from r2reasoner.errors import R2Error, UnknownWords


class _Interruptible(TyperGroup):
    """Says what Ctrl-C leaves behind, and ends as a shell expects it."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted; what was recorded is kept", file=sys.stderr)
            sys.exit(INTERRUPTED)


app = typer.Typer(
    cls=_Interruptible,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Route-and-Reason: break a query into subtasks, give each to the best of many models,"
    " see the answer and an honest bill.",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


ask.register(app)
demo.register(app)
evaluate.register(app)
calibrate.register(app)
report.register(app)
savings.register(app)

pool_add.register(pool.app)
app.command("init")(pool.init)
app.command("mock")(mock.mock)
app.command("serve")(serve.serve)
app.add_typer(key.app, name="key")
app.add_typer(pool.app, name="pool")
app.add_typer(nano.app, name="nano")
app.add_typer(build.app, name="build")
app.add_typer(train.app, name="train")
app.add_typer(trace.app, name="trace")
app.add_typer(ledger.app, name="ledger")
app.add_typer(outcomes.app, name="outcomes")


def main() -> None:
    """Run the command line; our own errors end in one clear message and exit code 1."""
    try:
        app()
    except R2Error as error:
        _fail(error)
    except BrokenPipeError:
        # the reader went away (`| head`): close quietly, without Python's own complaint
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(error: R2Error) -> None:
    message = str(error)
    if isinstance(error, UnknownWords):
        message += f"\n{ask.NANO_KNOWS}"
    if "--json" in sys.argv:
        print(json.dumps({"error": {"type": type(error).__name__, "message": message}}))
    else:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
