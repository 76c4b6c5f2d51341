"""`r2reasoner train`: train both policies by a recipe, whole or a stage at a time.

`--dry-run` says what it takes in calls, dollars, hours and memory, before anything is paid.
"""

import json
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from r2reasoner.cli.pool import JsonOption
from r2reasoner.errors import ConfigError

if TYPE_CHECKING:
    from r2reasoner.training.forecast import Forecast, Paid
    from r2reasoner.training.memory import Memory
    from r2reasoner.training.recipe import Recipe
    from r2reasoner.types import Pico

app = typer.Typer(
    no_args_is_help=True,
    help="Train the decomposer and the allocator by a recipe: data, fine-tuning, reinforcement.",
)

PARTS: Final = (
    *("weights", "adapter", "gradients", "optimizer", "activations", "generation", "vllm"),
    "context",
)
PACKAGES: Final = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "pyarrow")

RecipeArgument = Annotated[
    str,
    typer.Argument(help="A shipped recipe (nano, nano-jump, tiny, qwen2.5-7b) or a recipe file."),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what it takes, in dollars and hours; run nothing."),
]
OutOption = Annotated[
    str | None, typer.Option(help="Run folder; else the recipe's. Goes on from what is in it.")
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of everything; else the recipe's.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Win over the recipe; may be repeated."),
]


@app.command("run")
def run(
    recipe: RecipeArgument,
    dry_run: DryRunOption = False,
    out: OutOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run all stages: training data, fine-tuning, GRPO in alternation, the pool file."""
    _train(load(recipe, out, seed, settings), None, dry_run=dry_run, as_json=as_json)


@app.command("sft")
def sft(
    recipe: RecipeArgument,
    dry_run: DryRunOption = False,
    out: OutOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune both policies on the training data that the run folder has."""
    _train(load(recipe, out, seed, settings), ("sft-",), dry_run=dry_run, as_json=as_json)


@app.command("grpo")
def grpo(
    recipe: RecipeArgument,
    policy: Annotated[
        Literal["decomposer", "allocator"], typer.Option(help="The policy that learns.")
    ],
    round_: Annotated[int, typer.Option("--round", min=1, help="The round of the phase.")] = 1,
    dry_run: DryRunOption = False,
    out: OutOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reinforce one policy for one phase, the other frozen."""
    stage = f"grpo-{round_}-{policy}"
    _train(load(recipe, out, seed, settings), (stage,), dry_run=dry_run, as_json=as_json)


@app.command("alternate")
def alternate(
    recipe: RecipeArgument,
    dry_run: DryRunOption = False,
    out: OutOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reinforce both policies in alternation, all rounds; then write the pool file."""
    _train(load(recipe, out, seed, settings), ("grpo-", "pool"), dry_run=dry_run, as_json=as_json)


def load(recipe: str, out: str | None, seed: int | None, settings: list[str] | None) -> "Recipe":
    """Return a recipe with options in the place of its own values. Raises ConfigError."""
    from r2reasoner.training.recipe import load_recipe

    own = [] if out is None else [f"recipe.out={json.dumps(out, ensure_ascii=False)}"]
    own += [] if seed is None else [f"recipe.seed={seed}"]
    return load_recipe(recipe, [*(settings or ()), *own])


def _train(recipe: "Recipe", only: tuple[str, ...] | None, *, dry_run: bool, as_json: bool) -> None:
    """Forecast, refuse what cannot work, then train: all stages, or those that begin so."""
    wanted = _wanted(recipe, only)
    if not goes_on(recipe, wanted, dry_run=dry_run, as_json=as_json):
        return
    from r2reasoner.training.alternate import run as train

    folder = train(recipe, wanted, say)
    done = {"recipe": recipe.run.name, "out": str(folder), "stages": wanted}
    print(json.dumps(done) if as_json else f"run folder: {folder}")


def goes_on(recipe: "Recipe", wanted: list[str], *, dry_run: bool, as_json: bool) -> bool:
    """Forecast stages and refuse what cannot work; a dry run prints the forecast, and ends there.

    Raises ConfigError and DataError, before anything is paid.
    """
    from r2reasoner.pool.load import load_pool
    from r2reasoner.training.forecast import check_budget, check_items, forecast

    expected = forecast(recipe, load_pool(recipe.run.pool), wanted)
    if dry_run and not as_json:
        _print(recipe, expected)
    check_budget(recipe, expected)
    if dry_run:
        if as_json:
            print(json.dumps(_document(recipe, expected), indent=2))
        return False
    check_items(expected)
    for note in expected.notes:
        say(f"warning: {note}")
    _need_packages(recipe)
    return True


def _wanted(recipe: "Recipe", only: tuple[str, ...] | None) -> list[str]:
    from r2reasoner.training.recipe import stages

    every = stages(recipe)
    found = [name for name in every if only is None or name.startswith(only)]
    if not found:
        raise ConfigError(
            f"recipe {recipe.run.name} has no stage {' or '.join(only or ())}; it has:"
            f" {', '.join(every)}"
        )
    return found


def _need_packages(recipe: "Recipe") -> None:
    """Raise ConfigError naming what is not installed."""
    wanted = list(PACKAGES)
    wanted += ["vllm"] if recipe.grpo.vllm.mode != "off" else []
    wanted += ["ray"] if recipe.data.engine == "ray" else []
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        extras = {"vllm": "vllm", "ray": "ray"}
        named = ",".join(dict.fromkeys(extras.get(name, "training") for name in missing))
        raise ConfigError(
            f"training by this recipe needs {', '.join(missing)}, not installed:"
            f" pip install 'r2reasoner[{named}]'"
        )


def _print(recipe: "Recipe", expected: "Forecast") -> None:
    from rich.console import Console

    console = Console()
    items = expected.items
    print(
        f"recipe {recipe.run.name}: {items.count:,} items ({items.reinforced:,} for GRPO), pool"
        f" {recipe.run.pool}, cap ${recipe.run.cap:f}, run folder {recipe.run.out}"
    )
    console.print(_stages_table(expected))
    if expected.models:
        console.print(_models_table(expected.models))
    for name, needed in expected.memory.items():
        print(f"memory of the {name} ({recipe.policies[name].base}): {_memory_line(needed)}")
    print("expected, not measured: " + "; ".join(expected.assumptions))
    for note in expected.notes:
        say(f"warning: {note}")


def _stages_table(expected: "Forecast") -> Any:
    table = _table("stage", "calls", "dollars", "time")
    for stage in expected.stages:
        table.add_row(stage.name, f"{stage.calls:,}", _money(stage.cost), _time(stage.hours))
    table.add_section()
    together = _money(expected.cost)
    if expected.cost is None and expected.known_cost:
        together = f"{_money(expected.known_cost)} + unknown"
    table.add_row("together", f"{expected.calls:,}", together, _time(expected.hours))
    return table


def _models_table(models: "dict[str, Paid]") -> Any:
    table = _table("model", "calls", "dollars")
    for name, paid in models.items():
        table.add_row(name, f"{paid.calls:,}", _money(paid.cost))
    return table


def _table(*headings: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _memory_line(needed: "Memory | None") -> str:
    if needed is None:
        return "unknown"
    if needed.limit is None:
        return f"about {_size(needed.needs)}"
    sizes = {name: getattr(needed, name) for name in PARTS}
    shown = ", ".join(f"{name} {_size(size)}" for name, size in sizes.items() if size)
    return f"about {_size(needed.needs)} of a GPU's {_size(needed.limit)} ({shown})"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"


def _money(cost: "Pico | None") -> str:
    if cost is None:
        return "unknown"
    return "< $0.0001" if 0 < cost < 10**8 else f"${cost / 10**12:,.4f}"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"


def _document(recipe: "Recipe", expected: "Forecast") -> dict[str, Any]:
    def dollars(cost: "Pico | None") -> float | None:
        return None if cost is None else cost / 10**12

    def memory_of(needed: "Memory | None") -> dict[str, Any] | None:
        if needed is None:
            return None
        return {**needed._asdict(), "needs": needed.needs, "fits": needed.fits}

    return {
        "recipe": recipe.run.name,
        "out": recipe.run.out,
        "pool": recipe.run.pool,
        "cap": float(recipe.run.cap),
        "items": expected.items.count,
        "stages": [
            {"stage": s.name, "calls": s.calls, "dollars": dollars(s.cost), "hours": s.hours}
            for s in expected.stages
        ],
        "models": {
            name: {"calls": paid.calls, "dollars": dollars(paid.cost)}
            for name, paid in expected.models.items()
        },
        "calls": expected.calls,
        "dollars": dollars(expected.cost),
        "known_dollars": dollars(expected.known_cost),
        "hours": expected.hours,
        "group_reserve_dollars": dollars(expected.group_reserve),
        "memory_bytes": {name: memory_of(needed) for name, needed in expected.memory.items()},
        "notes": list(expected.notes),
        "assumptions": list(expected.assumptions),
    }


def say(line: str) -> None:
    """Tell how it goes, on stderr."""
    # of the processes of a launcher, the first speaks
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)
