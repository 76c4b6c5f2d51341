"""Commands about the nano pool: `train` weights, `serve` them, `eval` them, make test `items`."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from r2reasoner.cli.pool import JsonOption, PoolOption
from r2reasoner.errors import ConfigError

if TYPE_CHECKING:
    from r2reasoner.nano.ladder import Ladder
    from r2reasoner.nano.serve import NanoServer
    from r2reasoner.training.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    help="The nano pool: tiny models on which the whole method runs anywhere.",
)

RECIPES: Final = {"length": "nano", "addprim_jump": "nano-jump", "simple": "nano"}
FEWEST_OPERANDS: Final = 2

SeedOption = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]


@app.command()
def train(
    weights: Annotated[
        Literal["length", "addprim_jump", "simple"],
        typer.Option("--set", help="The weight set, named after the SCAN split it is for."),
    ] = "length",
    preset: Annotated[
        Literal["full", "tiny"],
        typer.Option(help="full: the shipped sizes; tiny: minutes, to see that it works."),
    ] = "full",
    out: Annotated[
        Path | None, typer.Option(help="Run folder [default: runs/nano-SET]; goes on from it.")
    ] = None,
    train_items: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Training commands of simple, a random split."),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a weight set, workers and policies, and write its pool file; it goes on if stopped.

    All of it is a recipe's: `train run nano` with workers of its own. Then outcomes are measured.
    """
    from r2reasoner.cli.train import goes_on, say
    from r2reasoner.nano.presets import preset_for
    from r2reasoner.training.environment import nano_weights
    from r2reasoner.training.recipe import stages

    recipe = _recipe(weights, preset, out, train_items, seed)
    chosen = nano_weights(recipe.data)
    goes_on(recipe, stages(recipe), dry_run=False, as_json=as_json)
    from r2reasoner.nano.ship import ship
    from r2reasoner.training.alternate import run

    folder = run(recipe, say=say)
    pool_file = folder / "nano.toml"
    say("measuring which model gets which subtask right")
    count = preset_for(preset, chosen).calibration
    ship(folder, chosen, count, folder / "weights", pool_file, seed)
    if as_json:
        print(json.dumps({"set": weights, "preset": preset, "seed": seed, "pool": str(pool_file)}))
    else:
        print(f"wrote {pool_file}; now: r2reasoner nano eval --pool {pool_file}")


def _recipe(
    weights: str, preset: str, out: Path | None, train_items: Path | None, seed: int
) -> "Recipe":
    """Return the recipe of a weight set, with workers of its own. Raises ConfigError."""
    from r2reasoner.nano.scan import VERBS
    from r2reasoner.training.recipe import POLICIES, load_recipe

    if weights == "simple" and train_items is None:
        raise ConfigError("--set simple: a random split; give its training file (--train-items)")
    if weights != "simple" and train_items is not None:
        raise ConfigError(f"--train-items: the split {weights} has training commands of its own")
    name = "tiny" if preset == "tiny" else RECIPES[weights]
    texts = {"recipe.out": str(out or Path("runs") / f"nano-{weights}")}
    texts |= {} if train_items is None else {"data.train_items": str(train_items)}
    settings = [f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in texts.items()]
    settings += [f"data.workers={preset}", f"data.nano_set={weights}", f"recipe.seed={seed}"]
    if weights != "length" and name != RECIPES["addprim_jump"]:  # the recipe has arithmetic too
        count, more = (200, 80) if preset == "tiny" else (5000, 1500)
        scan = f'{{benchmark = "scan", count = {count}, reinforce = {more}}}'
        settings.append(f"data.sources=[{scan}]")
    if weights == "addprim_jump":
        settings += [f"policies.{p}.interchangeable={json.dumps(VERBS)}" for p in POLICIES]
    return load_recipe(name, settings)


@app.command()
def serve(
    pool: PoolOption = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8099,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let others than this machine in; no key asked.")
    ] = False,
    write_pool: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a pool file that reaches the models here."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a nano pool's models over HTTP in the OpenAI format, until Ctrl-C."""
    from r2reasoner.nano.http_pool import check_replaceable
    from r2reasoner.nano.serve import NanoServer
    from r2reasoner.pool.load import load_pool

    if write_pool is not None:
        check_replaceable(write_pool)
    server = NanoServer(load_pool(pool), host=host, port=port, allow_remote=allow_remote)
    asyncio.run(_serve(server, write_pool, as_json=as_json))


async def _serve(server: "NanoServer", write_pool: Path | None, *, as_json: bool) -> None:
    import signal

    from r2reasoner.files import write_whole
    from r2reasoner.nano.http_pool import served_pool
    from r2reasoner.nano.serve import serve_until

    def ready(base_url: str) -> None:
        if write_pool is not None:
            write_whole(write_pool, served_pool(server.pool, base_url), replace=True)
        where = {"base_url": base_url, "books": base_url.removesuffix("/v1") + "/books"}
        if write_pool is not None:
            where["pool"] = str(write_pool)
        if as_json:
            typer.echo(json.dumps(where))
        else:
            typer.echo("\n".join(f"{name:<8} {value}" for name, value in where.items()))
            typer.echo(f"models   {', '.join(server.cards)}\nstop with Ctrl-C")

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve_until(stop, server, ready)


@app.command("eval")
def evaluate(
    pool: PoolOption = None,
    items: Annotated[
        int, typer.Option(min=1, max=1000, help="Most items for each kind of subtask.")
    ] = 200,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Show how often each model is right, kind of subtask by kind of subtask."""
    from r2reasoner.cli.ladder import ladder_document, print_ladder
    from r2reasoner.pool.load import load_pool

    loaded = load_pool(pool)
    ladder = asyncio.run(_climb(loaded, items, seed))
    if as_json:
        print(json.dumps(ladder_document(ladder), indent=2))
    else:
        print_ladder(ladder)


async def _climb(pool: Any, items: int, seed: int) -> "Ladder":
    from r2reasoner.client import PoolClient
    from r2reasoner.nano.ladder import climb

    client = PoolClient()
    try:
        with _progress("asking") as say:
            return await climb(pool, client, items, seed, say)
    finally:
        await client.close()


@app.command()
def items(
    family: Annotated[Literal["arithmetic", "scan"], typer.Argument(help="What to make.")],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="File to write, whole.")],
    count: Annotated[
        int | None, typer.Option(min=1, help="How many; SCAN: all, unless given; else 1000.")
    ] = None,
    seed: SeedOption = 0,
    operands: Annotated[
        str, typer.Option(help="Arithmetic: operand counts by commas, taken in turn.")
    ] = "3,4",
    unseen_values: Annotated[
        bool,
        typer.Option(
            "--unseen-values", help="Arithmetic: each with a two-digit number that nobody saw."
        ),
    ] = False,
    split: Annotated[
        Literal["length", "addprim_jump"], typer.Option(help="SCAN: the split.")
    ] = "length",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write fresh test items that no model of the nano pool was trained on."""
    from r2reasoner.files import write_whole

    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another --out, or --force to replace it")
    if family == "scan":
        rows = _scan_rows(split, count, seed)
    else:
        rows = _arithmetic_rows(operands, count or 1000, seed, unseen_values=unseen_values)
    write_whole(out, "".join(json.dumps(row) + "\n" for row in rows), replace=force)
    if as_json:
        print(json.dumps({"out": str(out), "items": len(rows), "seed": seed}))
    else:
        print(f"wrote {len(rows):,} items to {out}")


def _scan_rows(split: str, count: int | None, seed: int) -> list[dict[str, Any]]:
    import random

    from r2reasoner.nano import scan

    _, commands = scan.split(split)
    if count is not None and count > len(commands):
        raise ConfigError(f"--count {count}: the test side of {split} has {len(commands):,}")
    if count is not None:
        commands = random.Random(f"scan {seed}").sample(commands, count)
    return [{"command": c, "actions": scan.interpret(c)} for c in commands]


def _arithmetic_rows(
    operands: str, count: int, seed: int, *, unseen_values: bool
) -> list[dict[str, Any]]:
    from r2reasoner.nano import arithmetic
    from r2reasoner.nano.splits import MOST_OPERANDS

    parts = [part.strip() for part in operands.split(",")]
    numbers = [int(p) for p in parts if p.isascii() and p.isdigit() and len(p) < 4]
    if len(numbers) < len(parts) or not all(FEWEST_OPERANDS <= n <= MOST_OPERANDS for n in numbers):
        raise ConfigError(
            f"--operands {operands!r}: expected counts from {FEWEST_OPERANDS} to {MOST_OPERANDS},"
            " by commas, like 3,4"
        )
    # Of two operands there are so few that more could never be found.
    share = -(-count * numbers.count(2) // len(numbers))
    there = _two_operand_count(unseen_values=unseen_values) if share else share
    if share > there:
        raise ConfigError(
            f"--count {count}: {share:,} of them would have 2 operands, but there are only"
            f" {there:,} such items"
        )
    return list(arithmetic.held_out_items(numbers, count, seed, unseen_values=unseen_values))


def _two_operand_count(*, unseen_values: bool) -> int:
    from r2reasoner.nano import arithmetic

    side = "values" if unseen_values else "test"
    numbers = range(1, arithmetic.LARGEST_OPERAND + 1)
    return sum(
        0 <= apply(a, b) <= arithmetic.LARGEST_VALUE
        and arithmetic.side((a, sign, b)) == side
        and not arithmetic.is_large_product((a, sign, b))
        for sign, apply in arithmetic.OPERATORS.items()
        for a in numbers
        for b in numbers
    )


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """Show a bar on stderr; yields the function that hears (done, total)."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
