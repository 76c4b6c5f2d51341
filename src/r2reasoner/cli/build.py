"""`r2reasoner build`: make the training data of a recipe, and say what came out.

The same stages as `r2reasoner train run` begins with, in the same run folder.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from r2reasoner.cli.pool import JsonOption
from r2reasoner.cli.train import (
    DryRunOption,
    OutOption,
    RecipeArgument,
    SeedOption,
    SetOption,
    goes_on,
    load,
    say,
)

if TYPE_CHECKING:
    from r2reasoner.training.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    help="Make training data by a recipe: decompositions, or models for subtasks (allocations).",
)

EngineOption = Annotated[
    Literal["asyncio", "ray"] | None,
    typer.Option(help="What runs it: this process, or a Ray cluster; else the recipe's."),
]


@app.command()
def decompositions(
    recipe: RecipeArgument,
    dry_run: DryRunOption = False,
    out: OutOption = None,
    engine: EngineOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search decompositions: run candidate plans, score them, keep the best."""
    chosen = load(recipe, out, seed, settings)
    _build(chosen, "decompositions", engine, dry_run=dry_run, as_json=as_json)


@app.command()
def allocations(
    recipe: RecipeArgument,
    dry_run: DryRunOption = False,
    out: OutOption = None,
    engine: EngineOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search models for the subtasks of the fine-tuned decomposer's plans, which comes before."""
    chosen = load(recipe, out, seed, settings)
    _build(chosen, "allocations", engine, dry_run=dry_run, as_json=as_json)


def _build(
    recipe: "Recipe", what: str, engine: str | None, *, dry_run: bool, as_json: bool
) -> None:
    from r2reasoner.training.recipe import stages

    every = stages(recipe)
    wanted = every[: every.index(what) + 1]
    if not goes_on(recipe, wanted, dry_run=dry_run, as_json=as_json):
        return
    from r2reasoner.training.alternate import run
    from r2reasoner.training.shards import Engine

    folder = run(recipe, wanted, say, None if engine is None else Engine(engine))
    told = _told(folder, what)
    if as_json:
        print(json.dumps({"recipe": recipe.run.name, "out": str(folder), **told}))
    else:
        print("\n".join([*(told[name] for name in ("summary", "gap") if told[name]), told["data"]]))


def _told(run: Path, what: str) -> dict[str, Any]:
    """Return where the data lies, and what came out in words."""
    from r2reasoner.training import allocations, decompositions
    from r2reasoner.training.optimum import Gap
    from r2reasoner.training.run_folder import RunFolder
    from r2reasoner.training.shard_folder import made_rows

    folder = RunFolder.reading(run)
    rows = [row for path in folder.produced(what).values() for row in made_rows(path)]
    figures = next((r for r in folder.rows() if r["stage"] == "allocations"), {})
    gap = Gap.of(figures) if what == "allocations" else None
    words = allocations.summary if what == "allocations" else decompositions.summary
    return {
        "data": str(folder.produced(what)[what]),
        "items": len(rows),
        "summary": words(rows),
        "gap": None if gap is None else str(gap),
        "figures": None if gap is None else gap._asdict(),
    }
