"""`r2reasoner savings`: what the router would have cost on requests that were logged."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from r2reasoner.cli.ask import DbOption, TradeOffOption
from r2reasoner.cli.exits import INTERRUPTED
from r2reasoner.cli.ledger import console, foreign, print_json, table
from r2reasoner.cli.pool import JsonOption, PoolOption
from r2reasoner.errors import ConfigError

if TYPE_CHECKING:
    from r2reasoner.config import Settings
    from r2reasoner.pool.cards import Card, Pool
    from r2reasoner.savings.document import Sampled
    from r2reasoner.savings.logs import Logs

OPENAI: Final = "https://api.openai.com/v1"
TITLES: Final = ("who answers", "cost", "of today's", "requests", "how known")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("savings")(savings)


def savings(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOGS.jsonl...",
            help="Requests and answers: OpenAI's form, the batch API's, or LiteLLM's.",
        ),
    ],
    pool: PoolOption = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="DOLLARS", help="Hard cap for a judged sample; else nothing is paid."),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, help="Most requests of the sample, drawn by the seed.")
    ] = 100,
    scorer: Annotated[
        Literal["agree", "exact", "number", "sequence"],
        typer.Option(help="When an answer is the gold, or without one says what was logged."),
    ] = "agree",
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Model of the pool that compares answers that differ."),
    ] = None,
    base_url: Annotated[
        str, typer.Option(help="Where requests went whose log does not say, for their price.")
    ] = OPENAI,
    trade_off: TradeOffOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample and the intervals.")] = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out lines that are no request log.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Result file; verdicts on a sample go to OUT.samples.jsonl."),
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what this pool's router would have cost on logged requests, and what it risks."""
    from r2reasoner.config import load_settings
    from r2reasoner.pool.load import find_pool, load_pool
    from r2reasoner.savings.document import document
    from r2reasoner.savings.logs import read_logs
    from r2reasoner.savings.sample import judge_card
    from r2reasoner.savings.today import paid
    from r2reasoner.savings.unpaid import outlook

    loaded = load_pool(pool)
    settings = load_settings(find_pool(pool), trade_off=trade_off)
    judging = judge_card(judge, loaded)
    if judge is not None and budget is None:
        raise ConfigError("--judge asks a model, which is paid for: say how much with --budget")
    found = read_logs(logs, skip_bad=skip_bad)
    costs = [paid(request, loaded, base_url) for request in found.requests]
    estimated = outlook(found.requests, loaded, settings.trade_off)
    result = out or (Path("runs") / "savings.json" if budget is not None else None)
    sampled = None
    if budget is not None and result is not None:
        asked = _Asked(loaded, settings, scorer, judging, seed, sample, budget)
        sampled = asked.run(found, result, db)
    from r2reasoner.evaluation.provenance import provenance

    made = {
        "provenance": provenance(loaded, seed) | {"trade_off": settings.trade_off},
        **document(found, costs, estimated, sampled),
    }
    if result is not None:
        from r2reasoner.evaluation.results import write_result

        write_result(result, made)
    if as_json:
        print_json(made)
    else:
        _show(made, result)


class _Asked:
    """A sample that is to be asked, and how."""

    def __init__(
        self,
        pool: "Pool",
        settings: "Settings",
        scorer: str,
        judge: "Card | None",
        seed: int,
        count: int,
        budget: str,
    ) -> None:
        from r2reasoner.cli.calibrate import check_prices
        from r2reasoner.config import settings as checked
        from r2reasoner.savings.sample import Terms

        self.cap = checked(max_cost=budget).cap
        check_prices((*pool.workers, *pool.policies.values()), self.cap)
        self.judge = judge
        self.count = count
        name = None if judge is None else judge.name
        self.terms = Terms(pool=pool, settings=settings, scorer=scorer, judge=name, seed=seed)

    def run(self, found: "Logs", result: Path, db: str | None) -> "Sampled":
        """Ask what has no verdict yet. Leaves with code 130 on Ctrl-C, what was judged kept."""
        from r2reasoner.evaluation.spending import SpendingLedger
        from r2reasoner.ledger import evaluations_path
        from r2reasoner.savings.document import Sampled
        from r2reasoner.savings.sample import Samples, drawn, rows_of

        requests = drawn(found.requests, self.count, self.terms.seed)
        samples = Samples(result.with_name(f"{result.name}.samples.jsonl"))
        with SpendingLedger.open(db or evaluations_path()) as ledger:
            ledger.cap = self.cap
            try:
                stopped = asyncio.run(self._ask(requests, samples, ledger))
            except KeyboardInterrupt:
                _say(
                    f"stopped; verdicts are in {samples.file}: the same command goes on from there"
                )
                raise typer.Exit(INTERRUPTED) from None
        pairs = rows_of(requests, samples, self.terms.context())
        if stopped is not None and not pairs:
            raise stopped
        return Sampled(
            pairs, len(requests), None if stopped is None else str(stopped), self.terms.seed
        )

    async def _ask(self, requests: Any, samples: Any, ledger: Any) -> Any:
        from r2reasoner.cli.calibrate import bar
        from r2reasoner.client import PoolClient
        from r2reasoner.savings.sample import Sampler
        from r2reasoner.savings.verdict import SCORERS, Judge

        client = PoolClient()
        judge = Judge(SCORERS[self.terms.scorer], client, self.judge)
        try:
            with bar(self.cap) as progress:
                shown = progress.add_task("asking", total=len(requests), spent="$0")

                def show(done: int) -> None:
                    progress.update(shown, completed=done, spent=_money(ledger.spent))

                return await Sampler(self.terms, ledger, client, judge).run(requests, samples, show)
        finally:
            await client.close()


def _show(made: dict[str, Any], result: Path | None) -> None:
    out = console()
    cells = [
        (
            row["who"],
            _dollars(row["dollars"]),
            "" if row["of_today"] is None else f"{row['of_today']:.1%}{_ends(row)}",
            f"{row['requests']:,}",
            row["how"],
        )
        for row in made["rows"]
    ]
    out.print(table(TITLES, {"cost", "of today's", "requests"}, cells))
    for line in _in_words(made):
        out.print(foreign(line))
    for text in made["assumptions"]:
        out.print(foreign(f"- {text}"), style="dim")
    if result is not None:
        out.print(foreign(f"result in {result}"))


def _ends(row: dict[str, Any]) -> str:
    ends = row["of_today_ci95"]
    return "" if ends is None else f" [{ends[0]:.1%}, {ends[1]:.1%}]"


def _in_words(made: dict[str, Any]) -> list[str]:
    left = ", ".join(f"{n:,} {reason}" for reason, n in made["left_out"].items())
    lines = [f"{made['requests']:,} requests" + (f"; left out: {left}" if left else "")]
    if made["bad_lines"]:
        lines.append(f"{len(made['bad_lines']):,} lines were no request log and are left out")
    quality, sample = made["quality"], made["sample"]
    if quality is None:
        return [*lines, "nothing was asked: --budget DOLLARS judges a sample"]
    by = ", ".join(f"{n:,} by {name}" for name, n in quality["judged_by"].items())
    lines.append(f"{sample['asked']:,} of {sample['drawn']:,} sampled requests asked ({by})")
    if quality["at_risk"] is not None:
        lines.append(
            f"at risk: {_risk(quality)} of the answers are not as good as what was logged;"
            f" {quality['unscored']:,} could not be judged, {quality['failed']:,} got no answer"
        )
    if (again := quality["today_asked_again"]) is not None and again["at_risk"] is not None:
        lines.append(f"the model in use today, asked again: {_risk(again)} not as good")
    lines.append(f"the sample's calls cost {_dollars(sample['dollars'])} in all")
    if sample["stopped"]:
        lines.append(f"stopped: {sample['stopped']}")
    return lines


def _risk(quality: dict[str, Any]) -> str:
    ends = quality["at_risk_ci95"]
    return f"{quality['at_risk']:.1%}" + (f" [{ends[0]:.1%}, {ends[1]:.1%}]" if ends else "")


def _dollars(dollars: float | None) -> str:
    from r2reasoner.types import PICO_PER_DOLLAR

    return _money(None if dollars is None else round(dollars * PICO_PER_DOLLAR))


def _money(pico: int | None) -> str:
    from r2reasoner.bill import show_money

    return show_money(pico)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
