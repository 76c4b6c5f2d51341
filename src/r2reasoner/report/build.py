"""From results to a page: which sections there are, in which order, and where figures come from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from r2reasoner import __version__
from r2reasoner.report import judged, routing, scatter, tables, trained
from r2reasoner.report.evidence import EasyTax, Shares, easy_tax, shares_by_kind
from r2reasoner.report.groups import Group, averaged, group
from r2reasoner.report.headline import Standing, claims, standings, title
from r2reasoner.report.page import Figure, Origin, Page, Section, Table
from r2reasoner.report.results import Provenance, Results, StrategyRow, Trained
from r2reasoner.report.saved import saved_claims, saved_tables

if TYPE_CHECKING:
    from r2reasoner.ledger import Ledger

COMMIT_SHOWN: Final = 12
SILENT: Final = "The file does not name the command, commit or date that it was made by."


@dataclass(slots=True)
class _Evidence:
    """What rows and traces add, by benchmark."""

    taxes: list[tuple[Group, StrategyRow, EasyTax]] = field(default_factory=list)
    shares: list[tuple[Group, StrategyRow, Shares]] = field(default_factory=list)


def build(results: Results, ledger: "Ledger | None" = None, now: datetime | None = None) -> Page:
    """Return the page of some results. `ledger` has the traces of evaluations, if at hand."""
    groups = group(results.evaluated)
    common, names = averaged(groups)
    compared = standings(common or [g for g in groups if g.ours is not None and g.others])
    evidence = _evidence(groups, ledger)
    first_judged = len(results.evaluated) + 1
    first_trained = first_judged + len(results.judged)
    sections = [
        _overview(common, names, compared),
        *(_benchmark(g) for g in groups),
        _shares(groups, evidence),
        _tax(groups, evidence),
        _trouble(groups),
        _judged(results, first_judged),
        _training(results, first_trained),
        _savings(results),
    ]
    origins = _origins(results)
    said = claims(compared) or saved_claims(results.saved)
    return Page(
        title=title(compared) if compared or not results.saved else "Route-and-Reason: savings",
        lead=_lead(results, groups),
        claims=said,
        sections=[section for section in sections if section is not None],
        origins=origins,
        made=f"r2reasoner {__version__}, {_moment(now or datetime.now(UTC))}",
        caution=_caution(groups, common),
    )


def _lead(results: Results, groups: Sequence[Group]) -> str:
    parts = []
    if groups:
        strategies = {r.strategy for g in groups for r in g.rows}
        parts.append(f"{len(strategies)} strategies on {_count(len(groups), 'set')} of items")
    if results.judged:
        sets = {row.set for result in results.judged for row in result.rows}
        parts.append(f"routers on {_count(len(sets), 'set')} of recorded outcomes")
    if results.trained:
        parts.append(_count(len(results.trained), "training run"))
    if results.ablated:
        parts.append("a training ablation")
    if results.laddered:
        parts.append("a ladder of models")
    if results.saved:
        parts.append(f"{_count(len(results.saved), 'look')} at request logs")
    told = "; ".join(parts)
    return (
        f"{told}. Net cost is everything that was paid for an item, the router’s own calls"
        " included; intervals are 95 %."
        if groups
        else f"{told}. Intervals are 95 %."
    )


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")


def _caution(groups: Sequence[Group], common: Sequence[Group]) -> str:
    """Say where our router is off the Pareto front, for a reader who stops at the headline."""
    compared = [g for g in groups if g.ours is not None and g.others]
    off = [
        g.name for g in compared if not any(row.ours and row.strategy in g.front for row in g.rows)
    ]
    if not compared:
        return ""
    told = []
    if off:
        told.append(f"r2 is off the Pareto front on {', '.join(off)}.")
    elif len(compared) > 1:
        told.append(f"r2 is on the Pareto front on all {len(compared)} sets of items.")
    else:
        told.append("r2 is on the Pareto front.")
    if common and len(common) < len(compared):
        left = [g.name for g in compared if g not in common]
        told.append(f"Not in the averages: {', '.join(left)}, where other strategies ran.")
    return " ".join(told)


def _evidence(groups: Sequence[Group], ledger: "Ledger | None") -> _Evidence:
    found = _Evidence()
    for one in groups:
        ours = one.ours
        if ours is None:
            continue
        for result in one.results:
            if all(row is not ours for row in result.rows):
                continue  # a mean over seeds has no rows of its own
            if (tax := easy_tax(result, ours)) is not None:
                found.taxes.append((one, ours, tax))
            if ledger is not None and (shares := shares_by_kind(result, ours, ledger)):
                found.shares.append((one, ours, shares))
    return found


def _overview(
    common: Sequence[Group], names: Sequence[str], compared: Sequence[Standing]
) -> Section | None:
    if not common:
        return None
    blocks = [tables.average_table(common, names), *tables.versus_tables(compared)]
    return Section("average", "On average", "", blocks)


def _benchmark(one: Group) -> Section:
    points = scatter.points_of(one)
    blocks: list[Table | Figure] = []
    if points:
        left_out = len(one.rows) - len(points)
        heading = "Accuracy against net cost"
        blocks.append(scatter.figure(heading, points, left_out, one.sources))
    blocks.append(tables.strategy_table(one))
    return Section(f"b-{_slug(one.name)}", one.name, "", blocks)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def _shares(groups: Sequence[Group], evidence: _Evidence) -> Section | None:
    models = routing.models_of(groups)
    blocks: list[Table | Figure] = []
    for one, ours, shares in evidence.shares:
        blocks.append(routing.kind_bars(one, shares, models, ours.strategy))
        blocks.append(routing.kind_table(one, shares, models, ours.strategy))
    blocks += [bars for g in groups if (bars := routing.share_bars(g, models)) is not None]
    if (table := routing.shares_table(groups, models)) is not None:
        blocks.append(table)
    if not blocks:
        return None
    intro = "A router that routes uses several models, and different ones for different work."
    return Section("shares", "Who does the work", intro, blocks)


def _tax(groups: Sequence[Group], evidence: _Evidence) -> Section | None:
    found = (routing.tax_table(groups), routing.easy_table(evidence.taxes))
    blocks = [table for table in found if table is not None]
    if not blocks:
        return None
    intro = "What decomposing and allocating cost beside the work itself, and on easy items."
    return Section("tax", "The decomposition tax", intro, blocks)


def _trouble(groups: Sequence[Group]) -> Section | None:
    if not groups:
        return None
    return Section("trouble", "What went wrong", "", [routing.trouble_table(groups)])


def _judged(results: Results, first: int) -> Section | None:
    if not results.judged:
        return None
    blocks: list[Table | Figure] = [*judged.judged_tables(results.judged, first)]
    if (table := judged.oracle_table(results.judged, first)) is not None:
        blocks.insert(0, table)
    intro = (
        "Routers trained on recorded outcomes, judged on rows they have not seen. APGR: the share"
        " of the gap between weak and strong that is recovered, averaged over all budgets. CPT50,"
        " CPT80: the share of calls to the strong model that recovers 50 or 80 % of it. AIQ: area"
        " under the accuracy-cost curve."
    )
    return Section("recorded", "On recorded outcomes", intro, blocks)


def _training(results: Results, first: int) -> Section | None:
    blocks: list[Table | Figure] = []
    source = first
    for run in results.trained:
        if (figure := trained.curves(run, source)) is not None:
            blocks.append(figure)
        blocks.append(trained.run_table(run, source))
        source += 1
    for ablation in results.ablated:
        blocks += trained.ablation_tables(ablation, source)
        source += 1
    for ladder in results.laddered:
        blocks.append(trained.ladder_table(ladder, source))
        source += 1
    return Section("training", "Training", "", blocks) if blocks else None


def _savings(results: Results) -> Section | None:
    if not results.saved:
        return None
    first = 1 + len(_origins(results)) - len(results.saved)
    blocks = [t for i, one in enumerate(results.saved, first) for t in saved_tables(one, i)]
    return Section("savings", "On logged requests", "", blocks)


def _origins(results: Results) -> list[Origin]:
    known: Iterable[tuple[Path, Provenance]] = [
        *((r.file, r.provenance) for r in results.evaluated),
        *((r.file, r.provenance) for r in results.judged),
    ]
    origins = [_origin(n, file, origin) for n, (file, origin) in enumerate(known, 1)]
    for run in results.trained:
        origins.append(_run_origin(len(origins) + 1, run))
    rest = [
        *((r.file, r.provenance) for r in results.ablated),
        *((r.file, r.provenance) for r in results.laddered),
        *((r.file, r.provenance) for r in results.saved),
    ]
    origins += [_origin(n, *one) for n, one in enumerate(rest, len(origins) + 1)]
    return origins


def _origin(number: int, file: Path, origin: Provenance) -> Origin:
    pool = origin.pool
    facts = [
        ("commit", _short_commit(origin.commit)),
        ("date", (origin.date or "").replace("T", " ").replace("+00:00", " UTC")),
        ("seed", _text(origin.seed)),
        ("pool", f"{pool.name} {pool.sha256[:12]}".strip() if pool else ""),
        ("trade-off", _text(origin.trade_off)),
        ("calls", "" if origin.calls is None else f"{origin.calls:,}{_on_record(origin)}"),
        ("in flight", _text(origin.in_flight)),
        ("versions", ", ".join(f"{name} {v}" for name, v in origin.versions.items())),
        ("python", origin.python or ""),
        ("machine", _machine(origin)),
    ]
    kept = [(name, text) for name, text in facts if text]
    silent = () if origin.command or origin.commit or origin.date else (SILENT,)
    return Origin(number, file.name, origin.command, kept, (*origin.notes, *silent))


def _on_record(origin: Provenance) -> str:
    return f", {origin.calls_on_record:,} of them on record" if origin.calls_on_record else ""


def _machine(origin: Provenance) -> str:
    cpus = f"{origin.cpu_count} CPUs" if origin.cpu_count else ""
    return ", ".join(filter(None, (origin.platform, cpus)))


def _run_origin(number: int, run: Trained) -> Origin:
    began = run.began_at
    when = "" if began is None else _moment(datetime.fromtimestamp(began, UTC))
    name = run.recipe.get("name")
    facts = [("recipe", _text(name)), ("seed", _text(run.recipe.get("seed")))]
    facts += [("pool", _text(run.recipe.get("pool"))), ("begun", when)]
    folder = run.file.resolve().parent.name
    kept = [(key, text) for key, text in facts if text]
    return Origin(number, f"{folder}/{run.file.name}", "", kept)


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _short_commit(commit: str | None) -> str:
    if not commit:
        return ""
    return commit[:COMMIT_SHOWN] + (" with changes" if commit.endswith("+") else "")


def _text(value: object) -> str:
    return "" if value is None else str(value)
